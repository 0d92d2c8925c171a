"""The figures of the distillation lessons: what is drawn, and that the words beside them say the same."""
import pytest
import torch

from m2kd_lite import pictures
from m2kd_lite.method import targets
from m2kd_lite.pictures import plots

COLUMNS = (range(0, 3), range(3, 5), range(5, 10))
PLANS = {"Eq. 1": targets.penultimate, "Eq. 2": targets.own_step}


def written(axis):
    return [text.get_text() for text in axis.texts]


def test_who_fills_draws_a_block_for_each_filler_of_each_step():
    figure = pictures.lessons.who_fills(PLANS, COLUMNS, "who")
    sequential, multi = figure.axes
    assert written(sequential) == ["labels", "model 1", "labels", "model 2", "labels"]
    assert written(multi) == ["labels", "model 1", "labels", "model 1", "model 2", "labels"]
    spans = [(block.get_x(), block.get_width(), round(block.get_y() + 0.4)) for block in multi.patches]
    assert spans == [(0, 3, 1), (0, 3, 2), (3, 2, 2), (0, 3, 3), (3, 2, 3), (5, 5, 3)]
    assert "Eq. 1, step 3: model 2 fills classes 0 to 4, labels fills classes 5 to 9" in figure.alt_text


def test_a_model_has_one_colour_and_labels_are_told_apart_without_colour():
    sequential, multi = pictures.lessons.who_fills(PLANS, COLUMNS, "who").axes
    ones = [block.get_facecolor() for axis in (sequential, multi)
            for block, text in zip(axis.patches, written(axis), strict=True) if text == "model 1"]
    assert len(ones) == 3 and len(set(ones)) == 1
    assert all(bool(block.get_hatch()) == (text == "labels") for block, text in zip(multi.patches, written(multi), strict=True))


def test_one_plan_is_one_panel():
    assert len(pictures.lessons.who_fills({"Eq. 1": targets.penultimate}, COLUMNS, "who").axes) == 1


def test_target_matrices_show_the_values_and_name_each_block():
    matrix = torch.rand(4, 10)
    figure = pictures.lessons.target_matrices({name: (plan(COLUMNS), matrix) for name, plan in PLANS.items()}, COLUMNS, "targets")
    one, two, bar = figure.axes
    for axis, fillers in ((one, ["model 2", "labels"]), (two, ["model 1", "model 2", "labels"])):
        (picture,) = axis.images
        assert torch.equal(torch.as_tensor(picture.get_array()), matrix)
        assert (picture.norm.vmin, picture.norm.vmax) == (0, 1)
        assert written(axis) == fillers
    assert "Eq. 2: model 1 in classes 0 to 2, model 2 in classes 3 to 4, labels in classes 5 to 9" in figure.alt_text


def test_lines_are_drawn_from_zero_and_told_apart_without_colour():
    figure = pictures.lessons.lines_over_models({"a copy": ([2, 3], [0.9, 0.8]), "model 1": ([1, 2, 3], [1.0, 0.9, 0.7])},
                                        "share of images", "drift", top=1.05)
    (axis,) = figure.axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[0.9, 0.8], [1.0, 0.9, 0.7]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in axis.lines}) == 2
    assert axis.get_ylim() == (0, 1.05)
    assert "model 1 is 1.00 at model 1 and 0.70 at model 3" in figure.alt_text


@pytest.mark.parametrize("figure", [
    pictures.lessons.who_fills(PLANS, COLUMNS, "who"),
    pictures.lessons.target_matrices({"Eq. 2": (targets.own_step(COLUMNS), torch.zeros(2, 10))}, COLUMNS, "targets"),
    pictures.lessons.lines_over_models({"model 1": ([1, 2], [1.0, 0.5])}, "share of images", "drift")])
def test_each_becomes_a_small_picture_that_carries_its_words(figure):
    assert len(figure.alt_text.split()) > 12
    assert 2_000 < len(plots.png(figure)) < 150_000

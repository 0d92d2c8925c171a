"""Figures of the lesson on pruning: what they say in words, and that what is drawn is what was counted."""
import pytest
import torch
from matplotlib.colors import to_hex

from m2kd_lite import pictures
from m2kd_lite.method import masks
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.plots import COLOURS


def three_steps(ratio=0.75, shape=(8, 4, 3, 3)):
    draws = torch.Generator().manual_seed(0)
    owners = {"w": torch.zeros(shape, dtype=torch.uint8)}
    for step in (1, 2, 3):
        owners = masks.prune({"w": torch.randn(shape, generator=draws)}, owners, step, ratio)
    return owners["w"]


def test_one_layer_draws_a_row_a_stage_with_the_mask_below_and_colours_by_owner():
    stages = [("trained", torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0, 0, 0], dtype=torch.uint8)),
              ("pruned", torch.tensor([0.0, -2.0, 0.0]), torch.tensor([0, 1, 0], dtype=torch.uint8))]
    figure = pictures.masks.one_layer(stages, "Two stages")
    trained, pruned = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["trained", "pruned"]
    assert [label.get_text() for label in pruned.get_xticklabels()] == ["0", "1", "0"]
    assert [bar.get_height() for bar in trained.patches] == [1.0, -2.0, 0.5]
    (owned,) = [bar for bar in pruned.patches if bar.get_height()]
    assert owned.get_height() == -2.0 and to_hex(owned.get_facecolor()).upper() == COLOURS[0] and owned.get_hatch()
    assert "pruned: 2 free, 1 of step 1, 2 of them zero" in figure.alt_text


def test_a_model_shows_its_weights_in_full_later_ones_faded_and_free_ones_white():
    mask = three_steps()
    figure = pictures.masks.owners_by_model(mask, [1, 2, 3], "Who owns what")
    owners = mask.reshape(8, -1)
    for step, axis in enumerate(figure.axes[:3], 1):
        picture = torch.as_tensor(axis.images[0].get_array())
        assert picture.shape == (8, 36, 3) and (picture[owners == 0] == 1).all()
        for owner in (1, 2, 3):
            (colour,) = {to_hex(pixel).upper() for pixel in picture[owners == owner].tolist()}
            assert (colour == COLOURS[owner - 1]) == (owner <= step)
        share = 100 * masks.active(mask, step).float().mean().item()
        assert axis.get_title(loc="left") == f"model {step}: {share:.0f} % active"
        assert f"model {step} uses {share:.0f} %" in figure.alt_text
    assert "faded where it belongs to a later step" in figure.alt_text and "42 % are free in the end" in figure.alt_text
    assert [text.get_text() for text in figure.axes[3].get_legend().get_texts()] == [
        "step 1 owns it", "step 2 owns it", "step 3 owns it", "faded: not in this model", "free"]


def test_a_single_model_can_be_drawn():
    figure = pictures.masks.owners_by_model(three_steps(), [2], "Model 2 alone")
    assert len(figure.axes) == 2 and "model 2 uses 44 %" in figure.alt_text


def test_capacity_draws_the_law_and_the_counts():
    figure = pictures.masks.capacity([1.0, 0.75, 0.5625], 0.75, "What is left")
    law, counted = figure.axes[0].lines
    assert law.get_ydata() == pytest.approx([100, 75, 56.25]) and counted.get_ydata() == pytest.approx([100, 75, 56.25])
    assert counted.get_marker() != "None" and "step 3 56.2 %" in figure.alt_text


def test_added_bytes_are_differences_by_component_and_sum_to_what_is_said():
    per_step = [{"step": k, "weights": 900, "mask": 1000 * k, "batch_norm": 2000 * k, "heads": 1000 * k * k, "exemplars": 0}
                for k in (1, 2, 3)]
    figure = pictures.masks.added_bytes(per_step, {"the\npaper": 20e3}, "What is added")
    left, right = figure.axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["mask", "batch norm", "heads"]
    assert [bar.get_height() for bar in left.patches] == [1, 1, 2, 2, 3, 5]
    assert [text.get_text() for text in right.texts] == ["14", "20"]
    assert "mask 2 kB, batch norm 4 kB, heads 8 kB; together 14 kB. Beside it: the paper 20 kB" in figure.alt_text


def test_mask_bits_draws_each_packing_beside_the_entropy():
    figure = pictures.masks.mask_bits({"run": [0.8, 1.3], "noise": [0.82, 1.45]}, [0.81, 1.42], "Bits")
    run, noise, entropy = figure.axes[0].lines
    assert list(entropy.get_ydata()) == [0.81, 1.42]
    assert list(run.get_ydata()) == [0.8, 1.3] and run.get_marker() != noise.get_marker()
    assert "0.81 after step 1 and 1.42 after step 2; run packs to 0.80 and 1.30; noise packs to 0.82 and 1.45" in figure.alt_text


@pytest.mark.parametrize("figure", [
    lambda: pictures.masks.owners_by_model(three_steps(), [1, 2, 3], "Who owns what"),
    lambda: pictures.masks.capacity([1.0, 0.8], 0.8, "What is left")], ids=["grids", "curve"])
def test_they_become_pictures_with_words(figure):
    drawn = figure()
    assert plots.png(drawn).startswith(b"\x89PNG") and len(drawn.alt_text.split()) > 15

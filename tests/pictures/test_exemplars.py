"""Figures of the lesson on exemplars: what is marked, written and told is what was measured."""
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from m2kd_lite import pictures
from m2kd_lite.pictures.plots import COLOURS


def test_each_pick_has_its_rank_beside_it_and_both_means_are_where_they_are():
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -0.5], [0.25, 0.25]])
    figure = pictures.exemplars.picked_points(points, {"herding": [2, 0], "at random": [1]}, "Two ways")
    herding, chance = figure.axes
    assert {text.get_text(): tuple(text.xy) for text in herding.texts} == {"1": (0.0, -0.5), "2": (1.0, 0.0)}
    assert [text.get_text() for text in chance.texts] == ["1"] and chance.get_title("left") == "at random"
    drawn = {line.get_label(): line.get_xydata().tolist() for line in herding.lines}
    assert drawn == {"mean of the class": [[0.0, 0.0]], "mean of the picks": [[0.5, -0.25]]}
    assert [len(dots.get_offsets()) for dots in herding.collections] == [4, 2]
    assert "4 images of a class" in figure.alt_text and "herding: the mean of 2 picks lies 0.559 from it" in figure.alt_text


def test_a_single_way_to_pick_is_drawn_alone():
    figure = pictures.exemplars.picked_points(torch.randn(5, 2), {"herding": [0, 1]}, "One way")
    assert len(figure.axes) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picked_images_stand_in_their_order(channels):
    images = torch.arange(3 * channels * 16, dtype=torch.uint8).view(3, channels, 4, 4)
    figure = pictures.exemplars.picked_images(images, "Three")
    assert [axis.get_title() for axis in figure.axes] == ["1", "2", "3"]
    for axis, image in zip(figure.axes, images, strict=True):
        assert np.array_equal(axis.images[0].get_array().reshape(4, 4, -1), image.permute(1, 2, 0).numpy())
    assert "first 3 exemplars" in figure.alt_text


def test_the_band_spans_the_random_orders_and_the_lines_are_herding_and_their_mean():
    figure = pictures.exemplars.distance_to_the_mean([0.4, 0.2, 0.1], [[0.9, 0.6, 0.3], [0.5, 0.4, 0.5]], "Nearer")
    axis = figure.axes[0]
    lines = {line.get_label(): line.get_ydata().tolist() for line in axis.lines}
    assert lines["herding"] == [0.4, 0.2, 0.1] and lines["their mean"] == pytest.approx([0.7, 0.5, 0.4])
    assert len({line.get_linestyle() for line in axis.lines}) == 2          # told apart without colour
    heights = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == 0.3 and heights.max() == 0.9
    assert "of 1: 0.400 by herding, 0.700 by chance" in figure.alt_text and "of 5" not in figure.alt_text


def test_the_histogram_counts_every_image_on_its_own_side_of_the_line():
    cosines = torch.tensor([-0.1, 0.2, 0.499, 0.5, 0.7, 0.95])
    figure = pictures.exemplars.nearest_cosines(cosines, "The trap")
    axis = figure.axes[0]
    left, right = axis.containers
    assert [sum(bar.get_height() for bar in bars) for bars in (left, right)] == [3, 3]
    assert all(bar.get_x() + bar.get_width() <= 0.5 + 1e-9 for bar in left if bar.get_height())
    assert all(bar.get_x() >= 0.5 - 1e-9 for bar in right if bar.get_height())
    assert [text.get_text() for text in axis.get_legend().texts] == ["nearer to the origin: 3 images", "nearer to a mean: 3 images"]
    assert left[0].get_hatch() and not right[0].get_hatch()
    assert "6 images" in figure.alt_text and "3 lie below 0.5" in figure.alt_text


def test_no_image_below_the_line_is_said_too():
    assert "0 lie below 0.5" in pictures.exemplars.nearest_cosines(torch.full((4,), 0.9), "The trap").alt_text


def test_what_was_asked_for_is_one_bar_a_class_in_the_colour_of_its_step():
    figure = pictures.exemplars.asked_for([10.0, 20.0, 300.0, 500.0], [range(0, 2), range(2, 4)], "Asked for")
    bars = [bar for group in figure.axes[0].containers for bar in group]
    assert [bar.get_height() for bar in bars] == [10, 20, 300, 500]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2
    assert "step 1 15, step 2 400" in figure.alt_text


def test_bars_by_layer_have_the_first_layer_on_top_and_say_the_extremes():
    panels = {"importance": {"EWC": {"conv1": 0.9, "main": 0.1}},
              "moved": {"FT": {"conv1": 0.2, "main": 2.0}, "EWC": {"conv1": 0.1, "main": 0.4}}}
    figure = pictures.exemplars.by_layer(panels, "Held")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["conv1", "main"] and left.yaxis_inverted()
    assert [[bar.get_width() for bar in group] for group in right.containers] == [[0.2, 2.0], [0.1, 0.4]]
    assert [text.get_text() for text in right.get_legend().texts] == ["FT", "EWC"] and left.get_legend() is None
    assert "moved, FT: most in main, least in conv1" in figure.alt_text

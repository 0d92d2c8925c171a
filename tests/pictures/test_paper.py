"""The paper's figures with ours in them: what is there is drawn and said, and so is what is not."""
import io

import numpy as np
import pytest
from PIL import Image

from m2kd_lite import pictures
from m2kd_lite.method import metrics
from m2kd_lite.method.table import METHODS
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.explorer import Curve


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_panels_draw_ours_and_the_papers_and_say_what_was_not_run():
    ours = Curve(0, [20, 40], np.array([[80.0, 60.0], [82.0, 62.0]]))
    both = Curve(3, [20, 40], np.array([[70.0, 50.0]]), [(20, 83.5), (40, 58.5)])
    figure = pictures.paper.accuracy_panels({"20 a step": ({"FT": ours, "M²KD": both}, []), "5 a step": ({}, ["FT", "M²KD"])}, "Figure 4")
    full, empty = figure.axes
    assert [line.get_ydata().tolist() for line in full.lines] == [[81, 61], [70, 50], [83.5, 58.5]] and not texts(full)
    assert not empty.lines and texts(empty) == ["not run: FT, M²KD"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["FT", "M²KD", "M²KD, in the paper"]
    assert "20 a step: FT ends at 61.0 %; M²KD ends at 50.0 %; the paper's M²KD ends at 58.5 %." in figure.alt_text
    assert "5 a step: not run: FT, M²KD." in figure.alt_text


def test_one_panel_or_none_of_it_run_is_still_a_figure():
    figure = pictures.paper.accuracy_panels({"5 a step": ({}, ["FT"])}, "Figure 4", "top-5")
    assert plots.png(figure) and "top-5" in figure.axes[0].get_ylabel() and "top-5" in figure.alt_text


def test_points_show_every_run_and_name_what_was_not_run():
    figure = pictures.paper.points_beside({"0.6": [50.0, 52.0], "0.7": [], "0.8": [54.0]}, {"0.7": 57.1}, "average (%)", "Table 1")
    means, dots, paper = figure.axes[0].lines
    assert means.get_ydata().tolist() == [51, 54] and dots.get_ydata().tolist() == [50, 52, 54] and dots.get_xdata().tolist() == [0, 0, 2]
    assert (paper.get_xdata().tolist(), paper.get_ydata().tolist()) == ([1], [57.1])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.6", "0.7\n(not run)", "0.8"]
    assert "0.6: ours 51.0 (2 runs). 0.7: not run; the paper 57.1. 0.8: ours 54.0 (1 run)." in figure.alt_text


def test_points_without_any_run_are_still_a_figure():
    assert plots.png(pictures.paper.points_beside({"0.6": []}, {}, "average (%)", "Table 1"))


def test_bars_of_destinations_reach_a_hundred_and_are_told_apart_without_colour():
    shares = np.array([[0.5, 0.1, 0.0, 0.4], [0.7, 0.1, 0.2, 0.0]])
    figure = pictures.paper.destinations({"LwF-MC": shares, "M²KD": shares[::-1]}, "Where they go")
    for axis, rows in zip(figure.axes, (shares, shares[::-1]), strict=True):
        assert [[bar.get_height() for bar in part] for part in axis.containers] == pytest.approx(100 * rows.T)
        tops = [bar.get_y() + bar.get_height() for bar in axis.containers[-1]]
        assert tops == pytest.approx([100, 100])
        assert len({part[0].get_hatch() for part in axis.containers}) == len({part[0].get_facecolor() for part in axis.containers}) == 4
    assert [text.get_text() for text in figure.legends[0].texts] == list(metrics.DESTINATIONS)
    assert "LwF-MC takes 70 % of a step's images for classes of that step, 60 % for the right one" in figure.alt_text
    assert plots.png(pictures.paper.destinations({"M²KD": shares}, "One run"))


def test_no_two_methods_are_drawn_alike_not_even_without_colour():
    assert len(METHODS) <= len(plots.STYLES)
    assert len({(str(style["linestyle"]), style["marker"]) for style in plots.STYLES}) == len(plots.STYLES)
    curves = {row.title: Curve(place, [20, 40], np.array([[80.0 - place, 60.0 - place]])) for place, row in enumerate(METHODS.values())}
    figure = pictures.paper.accuracy_panels({"all": (curves, [])}, "Every method")
    drawn = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn}) == len(METHODS) == len(drawn)


def test_a_picture_as_png_looks_as_matplotlib_draws_it_has_no_fourth_channel_and_says_what_it_shows():
    figure = pictures.paper.points_beside({"0.6": [50.0, 52.0]}, {}, "average (%)", "Table 1")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    picture, usual = Image.open(io.BytesIO(plots.png(figure))), Image.open(drawn)
    assert (picture.mode, usual.mode) == ("RGB", "RGBA") and picture.info["Description"] == figure.alt_text
    assert usual.getextrema()[3] == (255, 255) and picture.tobytes() == usual.convert("RGB").tobytes()

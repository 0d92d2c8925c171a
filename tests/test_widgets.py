"""Panels without a browser: the controls' values in, figure and sentence out."""
import base64
import re

import ipywidgets
import pytest

from m2kd_lite import data, widgets
from m2kd_lite.errors import BadInput
from m2kd_lite.plots import new_figure
from m2kd_lite.widgets import stream
from m2kd_lite.widgets.panel import Panel


@pytest.fixture(scope="module")
def glyphs():
    return data.load("glyphs")


def picture(panel):
    found = re.search(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', panel.figure.value)
    return found[1], base64.b64decode(found[2])


def test_a_move_of_the_slider_changes_figure_and_sentence(glyphs):
    panel = widgets.stream_viewer(glyphs)
    alt, png = picture(panel)
    assert png.startswith(b"\x89PNG") and "25 classes" not in alt
    panel.controls["class_batch"].value = 50
    assert "make 2 incremental steps" in panel.text.value and "50 classes are old" in panel.text.value
    assert picture(panel)[0].count("brings classes") == 2 and picture(panel)[1] != png
    panel.controls["class_order"].value = "natural"
    assert f"The first to arrive: {', '.join(glyphs.class_names[:4])}" in panel.text.value.replace("&#x27;", "'")


def test_a_long_stream_is_drawn_in_part_and_says_so(glyphs):
    assert "The first 5 of 20 steps are drawn" in stream.describe(glyphs, 5, "natural")
    assert stream.render(glyphs, 5, "natural").alt_text.count("brings classes") == 5


def test_only_class_batches_that_fit_are_offered():
    panel = widgets.stream_viewer(data.load("digits"))
    assert list(panel.controls["class_batch"].options) == [5, 10]
    panel.controls["class_batch"].value = 10
    assert "one step, and nothing to forget" in panel.text.value


def test_a_choice_that_is_not_allowed_is_said_and_the_figure_stays():
    def render(number):
        if number > 2:
            raise BadInput(f"number {number}: not allowed; give <= 2")
        return new_figure(f"A figure of the number {number}")[0]

    panel = Panel({"number": ipywidgets.IntSlider(1, description="Number")}, render, lambda number: f"It is {number}.")
    before = panel.figure.value
    panel.controls["number"].value = 3
    assert "number 3: not allowed; give &lt;= 2" in panel.text.value and panel.figure.value == before
    panel.controls["number"].value = 2
    assert "It is 2." in panel.text.value and panel.figure.value != before


def test_a_control_without_a_label_is_refused():
    with pytest.raises(ValueError, match="description"):
        Panel({"number": ipywidgets.IntSlider()}, lambda number: None, lambda number: "")

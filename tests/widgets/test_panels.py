"""Panels without a browser: the controls' values in, figure and sentence out."""
import asyncio
import base64
import gc
import re

import ipywidgets
import pytest
import torch
from conftest import small_config

from m2kd_lite import data, widgets
from m2kd_lite.errors import BadInput
from m2kd_lite.method import losses, targets
from m2kd_lite.pictures.plots import new_figure
from m2kd_lite.training import train
from m2kd_lite.widgets import painter, stepper, stream, targets as target_panel
from m2kd_lite.widgets.panel import Panel, _spare_what_is_loaded, beside, following


@pytest.fixture(scope="module")
def glyphs():
    return data.load("glyphs")


def picture(panel):
    found = re.search(r'<img style="max-width: 100%" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', panel.figure.value)
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


def test_an_exception_in_a_callback_surfaces():
    def render(number):
        if number > 2:
            raise ZeroDivisionError("a mistake of ours")
        return new_figure(f"A figure of the number {number}")[0]

    panel = Panel({"number": ipywidgets.IntSlider(1, description="Number")}, render, lambda number: f"It is {number}.")
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        panel.controls["number"].value = 3


def test_the_garbage_collector_goes_past_what_was_loaded_before_the_first_panel():
    gc.unfreeze()
    _spare_what_is_loaded.cache_clear()
    assert not gc.get_freeze_count()
    counted()
    spared = gc.get_freeze_count()
    assert spared > 100_000                 # torch's and matplotlib's, at least
    held = [[] for _ in range(1000)]
    counted()
    assert held and gc.get_freeze_count() <= spared        # once: what a user makes later is looked at


def counted():
    """A panel of one number, and the numbers that were drawn, in order."""
    drawn = []

    def render(number):
        drawn.append(number)
        if number > 4:
            raise BadInput(f"number {number}: not allowed; give <= 4")
        return new_figure(f"A figure of the number {number}")[0]

    slider = ipywidgets.IntSlider(1, 0, 6, description="Number")
    return Panel({"number": slider}, render, lambda number: f"It is {number}."), slider, drawn


def test_a_figure_is_drawn_once_until_it_is_forgotten():
    panel, slider, drawn = counted()
    first = panel.figure.value
    for number in (2, 1, 2):
        slider.value = number
    assert drawn == [1, 2] and "It is 2." in panel.text.value
    slider.value = 1
    assert panel.figure.value == first
    panel.forget()
    panel.redraw()
    assert drawn == [1, 2, 1]


def test_only_so_many_figures_are_kept(monkeypatch):
    monkeypatch.setattr("m2kd_lite.widgets.panel.KEPT", 2)
    _, slider, drawn = counted()
    for number in (2, 3, 2, 1):             # 1 was the oldest
        slider.value = number
    assert drawn == [1, 2, 3, 1]


async def drawn_ahead(panel):
    while panel._ahead:
        await asyncio.sleep(0.01)


def moved(*numbers, late=()):
    """What the panel says, and what it drew, after the first moves without a pause and each late one when nothing is left to draw."""
    async def moves():
        panel, slider, drawn = counted()
        for number in numbers:
            slider.value = number
        await drawn_ahead(panel)
        for number in late:
            slider.value = number
            await drawn_ahead(panel)
        return panel.text.value, drawn

    return asyncio.run(moves())


def test_the_likeliest_next_figures_are_drawn_while_nobody_waits_and_no_others():
    said, drawn = moved(3)
    assert "It is 3." in said and drawn == [1, 3, 5, 4, 2]          # the same move again, which is not allowed; then a step up and one down
    assert moved(2, 3)[1] == [1, 2, 3, 4]                           # in between there was no time; 2 is kept
    assert moved(2, 1, 0)[1] == [1, 2, 0]                           # nothing lies beyond an end
    said, drawn = moved(3, 4)
    assert "It is 4." in said and drawn == [1, 3, 4, 5]             # what is not allowed is not said before it is asked for
    assert moved(2, late=[3, 2, 1])[1] == [1, 2, 3, 4, 0]           # each is drawn once


def test_the_first_move_does_not_wait_either():
    async def opened():
        panel, _, drawn = counted()
        await drawn_ahead(panel)
        return drawn

    assert asyncio.run(opened()) == [1, 2, 0]
    assert counted()[2] == [1]              # no event loop: nobody waits


def test_a_move_waits_for_no_more_than_one_figure(monkeypatch):
    monkeypatch.setattr("m2kd_lite.widgets.panel.PAUSE", 0.5)

    async def moves():
        panel, slider, drawn = counted()
        slider.value = 3
        while drawn[-1] == 3:                                       # until the first of three is drawn ahead
            await asyncio.sleep(0.001)
        slider.value = 0
        return drawn[:]

    assert asyncio.run(moves()) == [1, 3, 5, 0]


def test_a_choice_is_drawn_ahead_only_where_the_same_move_leads():
    drawn = []

    def render(number, word):
        drawn.append((number, word))
        return new_figure("A figure of a number and a word")[0]

    async def moves():
        controls = {"number": ipywidgets.IntSlider(1, 1, 2, description="Number"),
                    "word": ipywidgets.Dropdown(options=["a", "b", "c", "d"], description="Word")}
        panel = Panel(controls, render, lambda number, word: f"It is {number} {word}.")
        controls["word"].value = "b"
        await drawn_ahead(panel)

    asyncio.run(moves())
    assert drawn == [(1, "a"), (1, "b"), (1, "c"), (2, "b")]


def test_a_figure_that_became_stale_while_it_was_drawn_is_not_kept():
    drawn = []

    def render(number):
        drawn.append(number)
        if drawn == [1, 2]:
            panel.forget()              # as when a training in the background ends
        return new_figure(f"A figure of the number {number}")[0]

    panel = Panel({"number": ipywidgets.IntSlider(1, description="Number")}, render, lambda number: f"It is {number}.")
    for number in (2, 3, 2):
        panel.controls["number"].value = number
    assert drawn == [1, 2, 3, 2]


def test_what_follows_a_move():
    numbers = ipywidgets.IntSlider(1, 1, 5, description="Number")
    words = ipywidgets.Dropdown(options=["a", "b", "c"], description="Word")
    pairs = ipywidgets.Dropdown(options=[("one", 1), ("two", 2), ("three", 3)], description="Pair")
    assert following(numbers, 1, 3) == [5] and following(numbers, 2, 1) == [] and following(numbers, 4, 5) == []
    assert following(words, "a", "b") == ["c"] and following(words, "b", "c") == [] and following(words, "b", "a") == []
    assert following(pairs, 3, 2) == [1] and following(pairs, None, 2) == []
    assert following(ipywidgets.Checkbox(description="On"), False, True) == []


def test_what_lies_beside_a_value():
    places = {1: [2], 3: [4, 2], 5: [4]}
    assert {place: beside(ipywidgets.IntSlider(place, 1, 5)) for place in places} == places
    assert beside(ipywidgets.SelectionSlider(value=0.8, options=[("0.7", 0.7), ("0.8", 0.8)])) == [0.7]


def test_a_control_without_a_label_is_refused():
    with pytest.raises(ValueError, match="description"):
        Panel({"number": ipywidgets.IntSlider()}, lambda number: None, lambda number: "")


# ---- the reconstruction stepper -------------------------------------------------------------------------------------

def test_stepping_tells_of_each_model_and_that_its_bits_are_the_live_ones(finished):
    folder, metrics = finished("m2kd")
    panel = widgets.reconstruction_stepper(folder)
    shown = set()
    for model in (1, 2, 3):
        panel.controls["model"].value = model
        own = metrics["steps"][model - 1]["accuracy_by_step"][model - 1]
        assert f"Model {model} of 3 uses" in panel.text.value
        assert f"it is right for {own:.1f} %; when the step ended, the live network was right for {own:.1f} %" in panel.text.value
        assert "over 16 images: 0, exactly." in panel.text.value
        alt, png = picture(panel)
        assert f"Model {model} of 3. A grid of the weights of conv1" in alt and "live network&#x27;s logits is 0." in alt
        shown.add(png)
    assert len(shown) == 3
    added = metrics["bytes"]["added"]
    assert f"Steps 2 to 3 have added {added:,} bytes" in panel.text.value


def test_layer_and_image_can_be_chosen(finished):
    panel = widgets.reconstruction_stepper(finished("m2kd")[0])
    before, told = picture(panel)[1], panel.text.value
    panel.controls["layer"].value = "stage3.0.conv2"
    assert "% of stage3.0.conv2." in panel.text.value and picture(panel)[1] != before
    panel.controls["image"].value = 15
    assert panel.text.value != told and "It takes the image, of class" in panel.text.value


def test_a_difference_to_the_live_network_is_told(finished, tmp_path):
    folder, _ = finished("m2kd")
    models = stepper.Models.of(folder)
    name, weight = next(iter(models.past.weights.items()))
    weight[models.past.masks[name] == 1] *= 1.01
    assert "exactly" not in stepper.describe(models, 1, "conv1") and "another machine" in stepper.describe(models, 1, "conv1")


def test_a_file_by_itself_is_stepped_through_without_images(finished):
    panel = widgets.reconstruction_stepper(finished("m2kd")[0] / "snapshots.safetensors")
    assert set(panel.controls) == {"model", "layer"} and "right for" not in panel.text.value
    assert "No image was there" in picture(panel)[0]


@pytest.mark.parametrize("method", ["finetune", "m2kd-no-pruning"])
def test_a_run_whose_models_share_nothing_is_refused(method, finished):
    with pytest.raises(BadInput, match="its models share no weights; give a run of a method that prunes"):
        widgets.reconstruction_stepper(finished(method)[0])


# ---- the target matrix viewer ---------------------------------------------------------------------------------------

def test_the_rows_are_those_of_the_target_matrix_and_the_loss_is_the_loss(finished):
    folder, _ = finished("lwf-mc")
    chain = target_panel.Chain.of(folder)
    images, labels = chain.stream.train(3)
    chosen = chain.offered(3)[1]
    for name, plan in (("Eq. 1: LwF-MC", targets.penultimate), ("Eq. 2: M²KD", targets.own_step)):
        matrix, _ = targets.target_matrix(plan(chain.stream.columns), chain.past.reconstruct, images, labels, 10)
        row = chain.rows(3, 1)[name][1]
        assert torch.allclose(row, matrix[:, chosen], atol=1e-5)
        logits = chain.past.reconstruct(3)(images[[chosen]].flip(3))[0]
        assert chain.loss(name, 3, 1, True) == pytest.approx(losses.distillation_loss(logits, row[1:], 10).item(), rel=1e-4)


def test_the_viewer_tells_who_filled_what_and_the_flip_changes_it(finished):
    panel = widgets.target_viewer(finished("lwf-mc")[0])
    assert "Eq. 1: LwF-MC: model 2 fills classes 0 to 7, highest" in panel.text.value
    assert "Eq. 2: M²KD: model 1 fills classes 0 to 3, highest" in panel.text.value and "model 2 fills classes 4 to 7" in panel.text.value
    assert "Old steps with the same targets by both: 1 of 2." in panel.text.value
    told, (_, png) = panel.text.value, picture(panel)
    panel.controls["flip"].value = True
    assert "mirrored" in panel.text.value and panel.text.value != told and picture(panel)[1] != png
    panel.controls["step"].value = 2
    assert "Old steps with the same targets by both: 1 of 1." in panel.text.value


def test_a_run_without_teachers_is_refused(tmp_path):
    train.run(small_config("finetune", class_batch=10, epochs=1), tmp_path / "run")
    with pytest.raises(BadInput, match="its only step had no teacher"):
        widgets.target_viewer(tmp_path / "run")


# ---- the painter ----


def test_the_painter_s_panel_tells_what_each_step_took_and_that_old_drawings_stay(finished):
    panel = widgets.painter_stepper(finished("dgm")[0])
    assert "After step 1 the painter draws 4 classes." in panel.text.value and "bit for bit" not in panel.text.value
    said, shown = panel.text.value, picture(panel)
    assert shown[0].startswith("Images in 4 rows")
    panel.controls["step"].value = 3
    assert "draws 10 classes" in panel.text.value and "the same, bit for bit, as after step 2" in panel.text.value
    assert picture(panel)[0].startswith("Images in 10 rows") and picture(panel)[1] != shown[1]
    panel.controls["step"].value, panel.controls["layer"].value = 1, 0
    assert "layer 1, step 1 took" in panel.text.value and panel.text.value != said
    before = picture(panel)[1]
    panel.controls["chance"].value = 4
    assert picture(panel)[1] != before


def test_only_so_many_classes_are_drawn_as_fit(finished, monkeypatch):
    monkeypatch.setattr(painter, "ROWS", 4)
    paintings = painter.Paintings.of(finished("dgm")[0])
    names = list(paintings.drawn(3, 0))
    assert len(names) == 4 and names[0].endswith("(step 1)") and names[-1].endswith("(step 3)")


def test_a_run_that_draws_nothing_is_refused(finished):
    with pytest.raises(BadInput, match="a run of --method m2kd, which keeps no generator; give a run of dgm"):
        widgets.painter_stepper(finished("m2kd")[0])

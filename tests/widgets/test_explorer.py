"""The explorer without a browser: what is in the banks, what is not, and training it."""
import re
import shutil
from pathlib import Path
from threading import Event

import pytest
from widgets.test_panels import picture

from m2kd_lite import widgets
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.results import bank, paper
from m2kd_lite.widgets.explorer import RATIOS, describe, render, table
from m2kd_lite.widgets.offers import SHAPES, Choice, Offer, Results, cannot_be, offers

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "data" / "paper"
GLYPHS = Offer("glyphs", {"profile": "quick"}, class_batches=(5, 50))
CIFAR = Offer("imagefolder", {"profile": "paper", "data_root": "elsewhere"}, *next(iter(paper.KNOWN_IMAGES.items())))


def row(method, seed, top1, ratio=0.8, **more):
    """One step's row of a run that was never made, with the settings of a plain `quick` one."""
    config = RunConfig.make(dict(method=method, seed=seed, class_batch=50, pruning_ratio=ratio))
    known = dict.fromkeys(bank.COLUMNS, 0) | {"variant": "", **{name: getattr(config, name) for name in bank.SETTINGS}}
    return known | {"step": 1, "classes_seen": 50, "top1": top1, "accuracy_by_step": [top1], "bytes_total": 100, "device": "a CPU",
                    "threads": 1, "revision": "abc", "confusion": "0:2;0:1 1:1", "average_incremental_accuracy": top1} | more


@pytest.fixture
def results(tmp_path):
    runs = [*(row("m2kd", seed, top1) for seed, top1 in ((0, 60.0), (1, 64.0), (2, 68.0))), row("lwf-mc", 1, 50.0, ratio=0.75)]
    second = [one | {"step": 2, "classes_seen": 100, "top1": one["top1"] - 20, "bytes_total": 1100,
                     "accuracy_by_step": [12.5, 70.0]} for one in runs]
    bank.save(runs + second, tmp_path / "bank.csv")
    return Results([tmp_path / "bank.csv"], tmp_path / "local.csv", PAPER)


def test_curves_and_numbers_are_the_banks(results):
    choice = Choice(GLYPHS, ("m2kd", "lwf-mc"), 50, 0.8)
    figure = render(results, choice)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["M²KD, ratio 0.8"].get_xdata().tolist() == [50, 100]
    assert lines["M²KD, ratio 0.8"].get_ydata().tolist() == [64, 44]
    assert lines["LwF-MC"].get_ydata().tolist() == [50, 30]        # found, whatever ratio its row has
    band, = figure.axes[0].collections                              # of three runs; one alone has none
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(68) and len(figure.axes[1].get_images()) == 2
    told = describe(results, choice)
    assert "M²KD, ratio 0.8 ends at 44.0 ± 4.0 %" in told and "LwF-MC ends at 30.0 %" in told and "(one run)" in told
    numbers = table(results, choice)
    assert "44.0 ± 4.0" in numbers and ">12.5<" in numbers and ">1,100<" in numbers and ">1,000<" in numbers
    assert "a CPU, 1 thread, revision abc" in numbers


def test_one_seed_is_looked_at_alone(results):
    choice = Choice(GLYPHS, ("m2kd", "lwf-mc"), 50, 0.8, seed=2)
    assert "ends at 48.0 %" in describe(results, choice) and "LwF-MC with seed 2 is not in the bank" in describe(results, choice)
    assert [config.method for config in results.missing(choice)] == ["lwf-mc"]


def test_the_papers_marks_are_drawn_where_its_table_has_them(results):
    marked = Choice(CIFAR, ("m2kd", "m2kd-no-pruning", "lwf-mc"), 20, 0.8)
    lines = {line.get_label(): line.get_ydata() for line in render(results, marked).axes[0].get_lines()}
    assert list(lines) == ["M²KD (no pruning), in the paper", "M²KD, ratio 0.8, in the paper"]
    assert list(lines["M²KD, ratio 0.8, in the paper"]) == [83.5, 58.5, 52.0, 49.3, 42.0]
    assert "The paper's M²KD (no pruning) ends at 42.1 %" in describe(results, marked)
    for other in (Choice(CIFAR, ("m2kd",), 20, 0.75), Choice(CIFAR, ("m2kd",), 10, 0.8), Choice(GLYPHS, ("m2kd",), 20, 0.8)):
        assert "paper" not in describe(results, other)


def test_another_number_of_exemplars_is_another_run_of_a_method_that_keeps_some(tmp_path):
    runs = [row("icarl", 0, top1, exemplars=kept) for kept, top1 in ((200, 60.0), (500, 70.0))]
    bank.save(runs, tmp_path / "bank.csv")
    results = Results([tmp_path / "bank.csv"], tmp_path / "local.csv", PAPER)
    few, many, none = (describe(results, Choice(GLYPHS, ("icarl", "lwf-mc"), 50, 0.8, kept)) for kept in (200, 500, 1000))
    assert "iCaRL, 200 exemplars ends at 60.0 %" in few and "iCaRL, 500 exemplars ends at 70.0 %" in many
    assert "iCaRL, 1000 exemplars is not in the bank. LwF-MC is not in the bank." in none.replace("  ", " ")
    assert "iCaRL, 500 exemplars" in table(results, Choice(GLYPHS, ("icarl",), 50, 0.8, 500))


def test_what_is_in_the_banks_is_offered_by_name_and_what_cannot_be_trained_here_says_so():
    results = Results(sorted((ROOT / "data" / "results").glob("*.csv")), ROOT / "nowhere.csv", PAPER)
    there = offers(results.table, "quick")
    assert list(there)[:2] == ["glyphs", "digits"]
    small, whole, recipe = (there[f"CIFAR-100: profile {said}"] for said in ("quick, outputs begin at 0.5, 200 images a class", "paper", "icarl-recipe"))
    tenth = next(offer for name, offer in there.items() if name.startswith("CIFAR-100: profile paper, 20 epochs"))
    assert small.exemplars == (200, 800) and small.five_steps == 20 and small.reported == whole.reported == tenth.reported == "cifar100"
    shown = Choice(small, ("lwf-mc", "m2kd-no-pruning", "icarl"), 20, 0.8, 800)
    told = describe(results, shown)
    assert re.search(r"M²KD \(no pruning\) ends at \d+\.\d ± \d+\.\d %", told) and "iCaRL, 800 exemplars ends at" in told
    assert "The paper's M²KD (no pruning) ends at 42.1 % (ResNet-32, 80 epochs a step)." in told and "not in the bank" not in told
    assert "(one run)" in describe(results, Choice(tenth, ("m2kd",), 20, 0.8))
    assert "(one run)" in describe(results, Choice(whole, ("m2kd-no-pruning",), 20, 0.8))
    every = Choice(recipe, ("lwf-mc", "m2kd-no-pruning", "m2kd", "icarl"), 20, 0.8, 2000)
    assert describe(results, every).count("(one run)") == 4 and "not in the bank" not in describe(results, every)
    assert {"bf16-compiled", "mixed"} <= {words.split(", ")[0] for words in re.split(r"; |\. ", table(results, every))}
    other = Choice(small, ("lwf-mc",), 10, 0.8, 800)
    assert ("LwF-MC is not in the bank. What is not there: it cannot be trained here, for its images are not embedded"
            in describe(results, other))
    assert all(cannot_be(small, config) for config in results.missing(other))
    assert all(len(offer.class_batches) > 1 and offer.exemplars for offer in there.values())        # a slider needs two values


def test_an_offer_needs_two_methods_and_whole_streams(tmp_path):
    short = dict(epochs=7, milestones=5)
    runs = [row("m2kd", 0, 60.0, **short), row("lwf-mc", 0, 60.0, **short, steps=1), row("lwf-mc", 0, 60.0, **short, variant="changed")]
    bank.save(runs, tmp_path / "bank.csv")
    assert list(offers(bank.load(tmp_path / "bank.csv"), "quick")) == ["glyphs", "digits"]
    bank.save([*runs, row("lwf-mc", 0, 60.0, **short)], tmp_path / "bank.csv")
    found = offers(bank.load(tmp_path / "bank.csv"), "quick")
    assert list(found) == ["glyphs", "digits", "glyphs: 7 epochs"] and found["glyphs: 7 epochs"].why_not_here == ""


def test_the_panel_offers_the_class_batches_and_exemplars_of_the_images_that_are_chosen():
    panel = widgets.explorer(["icarl"], root=ROOT)
    assert panel.controls["exemplars"].value == 200
    panel.controls["dataset"].value = next(name for name in panel.offers if name.startswith("CIFAR-100: profile quick"))
    assert panel.controls["exemplars"].options == (200, 800) and panel.controls["class_batch"].value == 20
    assert "iCaRL, 200 exemplars ends at" in panel.text.value and "CIFAR-100: profile quick, outputs begin at 0.5, 200 images a class" in panel.offers
    panel.controls["exemplars"].value = 800
    assert "iCaRL, 800 exemplars ends at" in panel.text.value
    panel.controls["class_batch"].value = 10
    assert "cannot be trained here" in panel.text.value and panel.train.layout.display == "none"


def test_what_cannot_last_is_said_and_not_offered(results):
    short, long = (RunConfig.make(dict(method="m2kd", class_batch=5, pruning_ratio=ratio)) for ratio in (0.6, 0.75))
    assert "no free weight left for step 13" in cannot_be(GLYPHS, short) and cannot_be(GLYPHS, long) == ""
    assert cannot_be(GLYPHS, RunConfig.make(dict(method="lwf-mc", class_batch=5, pruning_ratio=0.6))) == ""
    assert "M²KD, ratio 0.6 cannot be run: " in describe(results, Choice(GLYPHS, ("m2kd",), 5, 0.6))


def test_the_committed_banks_say_something_for_each_method_at_the_first_look():
    panel = widgets.explorer(root=ROOT)
    for name in ("FT", "LwF-MC", "M²KD, ratio 0.8"):
        assert re.search(rf"{name} ends at \d+\.\d ± \d+\.\d %", panel.text.value)
    assert panel.train.layout.display == "none" and "confusion matrices of FT" in picture(panel)[0]


# ---- training what is not there -------------------------------------------------------------------------------------

@pytest.fixture
def panel(tmp_path):
    (tmp_path / "data" / "results").mkdir(parents=True)
    shutil.copytree(ROOT / "data" / "paper", tmp_path / "data" / "paper")
    panel = widgets.explorer(["lwf-mc"], profile="smoke", root=tmp_path)
    panel.controls["dataset"].value = "digits"
    panel.controls["class_batch"].value = 5
    return panel


def test_the_class_batches_on_offer_are_the_data_sets(panel):
    assert panel.controls["class_batch"].options == SHAPES["digits"][2]
    panel.controls["dataset"].value = "glyphs"
    assert panel.controls["class_batch"].options == (5, 10, 20, 50) and panel.controls["pruning_ratio"].options == RATIOS


def test_every_list_comes_up_with_its_first_seed_chosen_and_a_seed_can_be_chosen():
    """Of a list that offers None, ipywidgets lost the first choice in some processes: their sets come in another order."""
    panel = widgets.explorer(root=ROOT)
    lists = [control for control in panel.controls.values() if hasattr(control, "options")]
    assert len(lists) == 5 and all(None not in dict(control._options_full).values() for control in lists)
    assert panel.choice(**panel.state()).seeds == (0, 1, 2)
    panel.controls["seed"].value = "2"
    assert panel.choice(**panel.state()).seeds == (2,) and "(one run)" in panel.text.value


def test_a_run_that_is_missing_is_trained_and_joins_the_local_bank(panel, tmp_path):
    assert "LwF-MC is not in the bank" in panel.text.value and panel.train.layout.display is None
    panel.train.click()
    assert panel.cancel.layout.display is None and panel.train.layout.display == "none"
    panel.run.wait()
    assert re.search(r"LwF-MC ends at \d+\.\d %", panel.text.value)
    assert panel.cancel.layout.display == panel.train.layout.display == "none"
    rows = bank.load(tmp_path / "runs" / "results.csv")
    assert rows.step.tolist() == [1, 2] and set(rows.method) == {"lwf-mc"} and set(rows.profile) == {"smoke"}
    again = widgets.explorer(["lwf-mc"], profile="smoke", root=tmp_path)
    again.controls["dataset"].value = "digits"
    again.controls["class_batch"].value = 5
    assert "ends at" in again.text.value


def test_a_training_can_be_cancelled_and_begun_again(panel, tmp_path, monkeypatch):
    """A smoke run ends before anybody can cancel it, so this one is longer."""
    trains, make = Event(), Choice.config
    monkeypatch.setattr(Choice, "config", lambda choice, method, seed: make(choice, method, seed).model_copy(update={"epochs": 400}))
    panel.train.click()
    view = panel.training.children[-1]
    run, listen = panel.run, type(view).__call__
    monkeypatch.setattr(type(view), "__call__", lambda self, event: (listen(self, event), event["event"] == "epoch" and trains.set()))
    assert trains.wait(60)
    panel.controls["pruning_ratio"].value = 0.9            # the kernel stays usable, and no second training is offered
    assert panel.train.layout.display == "none"
    panel.cancel.click()
    run.wait()
    assert "The training ended: stopped; it goes on from here when it is started again." in panel.text.value
    assert view.bar.description == "Stopped"
    assert panel.train.layout.display is None and not (tmp_path / "runs" / "results.csv").exists()


def test_what_is_no_method_or_profile_is_refused():
    with pytest.raises(BadInput, match="--method nope: not allowed; give one of finetune"):
        widgets.explorer(["lwf-mc", "nope"], root=ROOT)
    with pytest.raises(BadInput, match="--profile nope: not allowed"):
        widgets.explorer(profile="nope", root=ROOT)


def test_without_a_method_the_panel_asks_for_one(panel):
    panel.ticks["lwf-mc"].value = False
    assert "none is chosen; tick one or more" in panel.text.value and panel.train.layout.display == "none"

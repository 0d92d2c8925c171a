"""The leaderboard: what is verified is what a run's models say, and a run that says something else is refused with the reason."""
import json
import re
import shutil

import pytest
import torch
from conftest import small_config
from typer.testing import CliRunner

from m2kd_lite import cli
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.files import storage
from m2kd_lite.method.metrics import frontier
from m2kd_lite.pictures.frontier import Point, accuracy_against_bytes, best_of
from m2kd_lite.results import leaderboard
from m2kd_lite.training import recompute, train
from m2kd_lite.training.rundir import read_run


@pytest.fixture(scope="module")
def stream():
    return ClassStream.of_run(small_config("finetune"))


@pytest.mark.parametrize("method", ["finetune", "lwf-mc", "m2kd-no-pruning", "m2kd", "joint", "scaled", "ewc", "rwalk", "dgm"])
def test_a_run_is_found_again_to_the_last_prediction(method, finished, stream):
    run = read_run(finished(method)[0])
    found = recompute.again(run, stream)
    assert recompute.differences(run.metrics, found) == []
    assert [step["confusion"] for step in found["steps"]] == [step["confusion"] for step in run.metrics["steps"]]
    assert found["bytes"] == run.metrics["bytes"] and found["forgetting"] == run.metrics["forgetting"]


@pytest.mark.parametrize("method", ["icarl", "icarl-m2kd"])
def test_exemplars_are_chosen_again(method, stream, tmp_path):
    train.run(small_config(method, exemplars=20), tmp_path / "run")
    run = read_run(tmp_path / "run")
    found = recompute.again(run, stream)
    assert recompute.differences(run.metrics, found) == [] and found["steps"] == run.metrics["steps"]


def altered(folder, out, change):
    """A copy of a run whose metrics.json was changed, with a hash that fits."""
    shutil.copytree(folder, out)
    metrics = storage.load_json(out / "metrics.json")
    change(metrics)
    storage.save_json(out / "metrics.json", metrics)
    return out


def better(metrics):
    metrics["steps"][-1]["top1"] += 1


def consistently_better(metrics):
    """As one would who knows how it is computed: all images of the first class are right, and all that follows from them."""
    for step in metrics["steps"]:
        step["confusion"][0] = [sum(step["confusion"][0]), *[0] * (step["classes_seen"] - 1)]
        counts = torch.tensor(step["confusion"])
        step["top1"] = 100 * counts.diag().sum().item() / counts.sum().item()
        step["accuracy_by_step"][0] = 100 * counts.diag()[:4].sum().item() / counts[:4].sum().item()


def other_images(metrics):
    metrics["data_sha256"] = "0" * 64


def cheaper(metrics):
    metrics["bytes"]["per_step"][-1]["total"] //= 2
    metrics["bytes"]["total"] //= 2


@pytest.mark.parametrize("change, says", [
    (better, r"step 3: top-1 \S+ %, and its confusion matrix says"), (consistently_better, "predictions are not the model's"),
    (other_images, "its images have SHA-256 000000000000"), (cheaper, r"bytes [\d,]+, found"),
    (lambda metrics: metrics.update(forgetting=0.0), r"forgetting 0.000, found"),
    (lambda metrics: metrics["steps"][0]["accuracy_by_step"].__setitem__(0, 100.0), "do not follow from its confusion matrix"),
    (lambda metrics: metrics["steps"].pop() and metrics["bytes"]["per_step"].pop(), "results of 2 steps"),
    (lambda metrics: metrics["config"].update(epochs=1), "other settings than config.json")])
def test_a_run_that_says_what_its_models_do_not_is_refused(change, says, finished, tmp_path):
    folder = altered(finished("m2kd")[0], tmp_path / "eve" / "run", change)
    entries, ((who, path, why),) = leaderboard.verify(leaderboard.find([tmp_path]))
    assert not entries and (who, path) == ("eve", folder) and re.search(says, why), why


def test_models_of_another_run_damage_and_unfinished_runs_are_refused_and_hurt_nobody_else(finished, tmp_path):
    good = shutil.copytree(finished("lwf-mc")[0], tmp_path / "ann" / "a")
    shutil.copytree(finished("lwf-mc")[0], tmp_path / "bob")
    shutil.copy(finished("finetune")[0] / "snapshots.safetensors", tmp_path / "bob")
    torn = shutil.copytree(finished("lwf-mc")[0], tmp_path / "cid" / "torn")
    (torn / "snapshots.safetensors").write_bytes((torn / "snapshots.safetensors").read_bytes()[:-100])
    (shutil.copytree(finished("lwf-mc")[0], tmp_path / "cid" / "half") / "metrics.json").unlink()
    (tmp_path / "dan").mkdir()
    (tmp_path / "dan" / "config.json").write_text(json.dumps({"config": 3}))
    entries, refused = leaderboard.verify(leaderboard.find([tmp_path]))
    assert [(entry.who, entry.run.path) for entry in entries] == [("ann", good)]
    why = {path.relative_to(tmp_path).as_posix(): reason for _, path, reason in refused}
    assert why.keys() == {"bob", "cid/torn", "cid/half", "dan"}
    assert "models are of another run" in why["bob"] and "not finished" in why["cid/half"] and all(why.values())
    page = leaderboard.render(entries, refused)
    assert "1 run verified" in page and "4 refused" in page and "LwF-MC (ann)" in page


def test_the_page_shows_what_was_found_merges_seeds_and_keeps_protocols_apart(finished, tmp_path):
    shutil.copytree(finished("m2kd")[0], tmp_path / "ann" / "run")
    shutil.copytree(finished("finetune")[0], tmp_path / "<b>bob" / "run")
    train.run(small_config("finetune", seed=1), tmp_path / "<b>bob" / "again")
    train.run(small_config("finetune", class_batch=5), tmp_path / "ann" / "five")
    done = CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0 and "4 verified, 0 refused" in done.output
    page = (tmp_path / "page.html").read_text()
    assert page.count("<h2>") == 2 and "5 classes a step" in page and "<b>bob" not in page and "http" not in page
    row = re.search(r"FT \(&lt;b&gt;bob\)</th>(.*?)</tr>", page, re.S)[1]
    pair = [read_run(tmp_path / "<b>bob" / name).metrics["average_incremental_accuracy"] for name in ("run", "again")]
    assert f"{sum(pair) / 2:.1f} ±" in row and "<td>1, 0</td>" in row


@pytest.mark.parametrize("words, says", [
    ([], "FOLDER: missing"), (["{here}"], "--out: missing"), (["{here}", "--out", "{here}/x.txt"], "give a file that ends in .html"),
    (["{here}/none", "--out", "{here}/x.html"], "no such folder"), (["{here}", "--out", "{here}/x.html"], "no run folders")])
def test_bad_input_gets_one_line(words, says, tmp_path):
    with pytest.raises(BadInput, match=re.escape(says)):
        cli.app(["leaderboard", *(word.format(here=tmp_path) for word in words)], standalone_mode=False)


def test_a_tie_within_rounding_is_believed_and_more_is_not(finished, stream):
    run = read_run(finished("finetune")[0])
    found = recompute.again(run, stream)
    images = sum(map(sum, found["steps"][-1]["confusion"]))
    allowed = int(recompute.TOLERANCE * images)
    for moved, fine in ((allowed, True), (allowed + 1, False)):
        said = json.loads(json.dumps(run.metrics))
        matrix = said["steps"][-1]["confusion"]
        for row in matrix:                                          # from one wrong class to another: accuracies stay
            while moved and len(row) > 2:
                wrong = [place for place, count in enumerate(row) if place != matrix.index(row) and count]
                if not wrong:
                    break
                row[wrong[0]] -= 1
                row[next(place for place in range(len(row)) if place not in (wrong[0], matrix.index(row)))] += 1
                moved -= 1
        assert not moved and (not recompute.differences(said, found)) == fine


def test_an_unknown_method_is_refused_by_its_name(finished, tmp_path):
    """As of somebody whose plug-in is not installed here."""
    folder = altered(finished("finetune")[0], tmp_path / "eve", lambda metrics: metrics["config"].update(method="gone"))
    config = storage.load_json(folder / "config.json")
    config["config"]["method"] = "gone"
    storage.save_json(folder / "config.json", config)
    entries, ((_, _, why),) = leaderboard.verify(leaderboard.find([tmp_path]))
    assert not entries and "--method gone: not allowed" in why


# ---- the frontier -----------------------------------------------------------------------------------------------------

POINTS = {"cheap": Point([100], [30.0]), "dear and worse": Point([200], [20.0]), "good": Point([200, 220], [49.0, 51.0]),
          "as good and dearer": Point([300], [50.0]), "best": Point([900], [80.0])}


def test_the_frontier_is_what_nothing_beats_in_both():
    assert best_of(POINTS) == ["cheap", "good", "best"] and best_of({}) == []
    assert frontier([5, 1, 1], [2.0, 1.0, 1.0]) == [1, 2, 0] and frontier([2, 2], [1.0, 3.0]) == [1] and frontier([1, 2], [3.0, 3.0]) == [0]


def test_the_figure_has_a_point_a_setting_the_frontier_and_words():
    figure = accuracy_against_bytes(POINTS, "Title")
    axis, = figure.axes
    assert axis.get_xscale() == "log" and "good: 50.0 with 0.00 MB (2 runs)." in figure.alt_text
    assert figure.alt_text.endswith("On the frontier: cheap, good, best.")
    steps = next(line for line in axis.lines if line.get_label() == "the frontier")
    assert list(steps.get_ydata()) == [30, 50, 80, 80]


def test_the_report_draws_it_where_asked(finished):
    from m2kd_lite.results import report
    runs = [read_run(finished(method)[0]) for method in ("finetune", "m2kd")]
    assert "On the frontier:" in report.render(runs, frontier=True) and "On the frontier:" not in report.render(runs)

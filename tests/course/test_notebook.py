"""The full-run notebook as papermill sees it: real kernels, every setting, unknown parameters refused."""
import os
import subprocess
import sys

import nbformat
import psutil
import pytest
from conftest import small_config
from sweeps.test_sweep import until

from m2kd_lite.config import RunConfig
from m2kd_lite.course import demo, notebook
from m2kd_lite.errors import BadInput, M2KDError
from m2kd_lite.files import places, storage
from m2kd_lite.results import bank, paper

pytestmark = pytest.mark.system

SOURCE = places.find(places.FULL_RUN)


def outputs(path):
    return [output for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for output in cell.outputs]


def papermill(target, *parameters):
    command = [sys.executable, "-m", "papermill", str(SOURCE), str(target), "--kernel", "python3", *parameters]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, cwd=SOURCE.parent)


def test_every_setting_is_a_parameter_that_papermill_understands():
    import papermill as pm
    found = pm.inspect_notebook(SOURCE)
    assert found.keys() == RunConfig.model_fields.keys() | {"out"}
    assert all(entry["inferred_type_name"] in ("str", "int", "float", "list") and entry["help"] for entry in found.values())
    defaults = {name: eval(entry["default"]) for name, entry in found.items() if name != "out"}
    assert RunConfig.make(defaults) == RunConfig.make({})


def test_executed_it_shows_curve_matrix_and_ledger_and_appears_only_when_whole(tmp_path):
    config, target, said = small_config("m2kd"), tmp_path / "nb" / "m2kd.ipynb", []
    notebook.execute(config, tmp_path / "run", target, said.append)
    metrics = storage.load_json(tmp_path / "run" / "metrics.json")
    assert metrics["config"] == config.model_dump(mode="json")
    pictures = [o for o in outputs(target) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3 and all(o["metadata"]["image/png"]["alt"] for o in pictures)
    text = "".join(o.get("text", "") for o in outputs(target))
    assert f"average incremental accuracy {metrics['average_incremental_accuracy']:.1f} %" in text
    assert f"added since step 1: {metrics['bytes']['added']:,} bytes" in text
    assert any("step 3/3 done" in event["text"] for event in said)              # live, line by line
    assert [p.name for p in target.parent.iterdir()] == ["m2kd.ipynb"]


@pytest.mark.parametrize("parameters, says", [
    (("-p", "clas_batch", "20"), "clas_batch: no such setting; did you mean class_batch?"),
    (("-p", "pruning_ratio", "1.5"), "--pruning-ratio 1.5: not allowed; give a number above 0 and below 1"),
])
def test_bad_parameters_fail_before_anything_is_trained(tmp_path, parameters, says):
    done = papermill(tmp_path / "o.ipynb", *parameters, "-p", "out", str(tmp_path / "run"))
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    shown = "".join(str(o.get("traceback", "")) for o in outputs(tmp_path / "o.ipynb"))
    assert says in done.stderr + shown


def test_a_failed_cell_leaves_its_notebook_and_one_line(tmp_path):
    with pytest.raises(M2KDError, match=r"o\.failed\.ipynb: Diverged: the loss is"):
        notebook.execute(small_config("finetune", lr=1e20), tmp_path / "run", tmp_path / "o.ipynb")
    assert not (tmp_path / "o.ipynb").exists()
    assert any(o.output_type == "error" for o in outputs(tmp_path / "o.failed.ipynb"))


def test_names_in_a_notebook_that_are_no_settings_are_refused():
    before = {"In", "Out", "helper"}
    good = {"In": [], "Out": {}, "helper": 1, "before": before, "method": "lwf-mc", "epochs": None, "out": "", "_i1": "x"}
    assert notebook.run_config(good, before).method == "lwf-mc"
    with pytest.raises(BadInput, match="epoch: no such setting; did you mean epochs?"):
        notebook.run_config(good | {"epoch": 3}, before)


def test_the_same_settings_find_the_same_folder():
    a, b = small_config("m2kd"), small_config("m2kd", seed=1)
    assert notebook.run_folder(a) == notebook.run_folder(small_config("m2kd")) != notebook.run_folder(b)


def test_the_demo_says_what_comes_and_a_second_call_runs_nothing_again(tmp_path):
    command = [sys.executable, "-m", "m2kd_lite.cli", "demo", "--profile", "smoke", "--out", str(tmp_path / "demo")]
    first = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    page = tmp_path / "demo" / "report.html"
    told = " ".join(first.stderr.split())
    assert f"report: {page}" in first.stdout
    assert "4 runs of notebooks/06_full_run.ipynb (glyphs, 20 new classes a step, profile smoke)" in told and "on an idle machine." in told
    assert "[4/4]" in told and "LwF-MC: step 5/5 done in" in told and "The page: figures and tables" in told
    lead = '<p class="lead">Of the first 20 classes fine-tuning still knows'
    assert all(name in page.read_text() for name in ("FT", "LwF-MC", "M²KD", lead))
    kept = (tmp_path / "demo" / "m2kd" / "metrics.json").read_bytes()
    second = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert second.stderr.count("already finished") == 4 and "runs of notebooks" not in second.stderr
    assert (tmp_path / "demo" / "m2kd" / "metrics.json").read_bytes() == kept


def test_nothing_is_left_over_of_a_demonstration_that_is_killed(tmp_path):
    process = psutil.Popen([sys.executable, "-m", "m2kd_lite.cli", "demo", "--out", str(tmp_path / "demo")], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    until(lambda: list((tmp_path / "demo").glob("*/events.jsonl")))         # a kernel is at work
    family = process.children(recursive=True)
    process.kill()
    process.wait()
    assert len(family) >= 4 and not psutil.wait_procs(family, timeout=60)[1]


def test_the_demos_setting_is_in_its_bank_with_every_seed_that_is_reported():
    measured = bank.load(places.find(demo.BANK))
    for method in demo.SHOWN:
        found = paper.runs(measured, RunConfig.make(demo.SETTING | {"method": method}))
        assert {run[0]["seed"] for run in found} == {0, 1, 2} and all(len(run) == 5 for run in found)


def test_the_demos_runs_are_expected_on_the_first_core_that_is_free():
    configs = [RunConfig.make(demo.SETTING | {"method": method}) for method in demo.SHOWN]
    plain, pruned = 10 * 6.0 + demo.KERNEL_SECONDS, 11 * 6.0 + demo.KERNEL_SECONDS
    assert [demo._expected(configs, workers, 6.0) for workers in (1, 2, 4)] == [3 * plain + pruned, plain + pruned, pruned]


def test_the_librarys_code_is_shown_as_it_is_without_its_docstring():
    from m2kd_lite.method import losses, masks
    shown = notebook.source(losses.total_loss).data
    assert shown == ("`m2kd_lite/method/losses.py`:\n\n```python\n"
                     "def total_loss(main: Tensor, auxiliary: Tensor, lambda_aux: float) -> Tensor:\n"
                     "    return main + lambda_aux * auxiliary\n```")
    decorated = notebook.source(masks.prune).data
    assert decorated.startswith("`m2kd_lite/method/masks.py`") and "@torch.no_grad()" in decorated
    assert '"""' not in decorated and "# A stable sort" in decorated


def test_the_environment_is_told_thing_by_thing_and_a_wrong_drawing_is_seen(monkeypatch):
    from m2kd_lite.data import glyphs
    table = notebook.environment()
    assert table.fine.all() and {"Python", "glyphs, SHA-256"} <= set(table.index)
    monkeypatch.setattr(glyphs, "EXPECTED_SHA256", "0" * 64)
    table = notebook.environment()
    assert not table.fine["glyphs, SHA-256"] and table.fine.sum() == len(table) - 1

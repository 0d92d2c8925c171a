"""Sweeps: what a specification means and refuses; real kernels and processes, killed and stopped; the same bytes in the end."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import nbformat
import psutil
import pytest
import torch
from conftest import small_config, write_pictures
from test_cli import call

import m2kd_lite
from m2kd_lite.errors import BadInput, Interrupted, M2KDError
from m2kd_lite.files import places
from m2kd_lite.sweeps import cost, sweep
from m2kd_lite.sweeps.cell import NOTEBOOK, RUN, STOP, code_sha256, is_finished, run_cell
from m2kd_lite.sweeps.spec import cell_key, plan
from m2kd_lite.training import train
from m2kd_lite.training.progress import describe

pytestmark = pytest.mark.system

BASE = "base: {dataset: digits, class_batch: 5, profile: smoke}\n"
# Two steps of a second or two: long enough to be caught in the second one.
LONG = "base: {dataset: digits, class_batch: 5, profile: smoke, epochs: 20, train_per_class: 20, batch_size: 16}\n"


def spec(folder, text):
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def until(what, seconds=120):
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def one_thread():
    """The reference must add in the same order as a worker that has one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def undisturbed(cell, folder):
    """What the models of a cell are if nothing happens: the bytes of its snapshots."""
    with one_thread():
        train.run(cell.config, folder / f"reference-{cell.key}")
    return (folder / f"reference-{cell.key}" / "snapshots.safetensors").read_bytes()


def epochs_of(run, step):
    """The epochs of a step that events.jsonl says were trained, repeated ones twice."""
    path = run / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(event["phase"], event["epoch"]) for event in events if event["step"] == step]


def kernel_of(run):
    """The process that holds a run's folder."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "ipykernel_launcher" in (process.info["cmdline"] or ()) and any(
                    file.path == str(run / ".lock") for file in process.open_files()):
                return process
    return None


# ---- what a specification means -------------------------------------------------------------------------------------


def test_grids_are_products_over_base_with_cells_left_out_and_added(tmp_path):
    found = plan(spec(tmp_path, BASE + """
grid:
  - {method: [lwf-mc, m2kd], seed: [0, 1]}
  - {method: [joint]}
exclude: [{method: m2kd, seed: "1"}]
include: [{method: m2kd, seed: 7, class_batch: 2}]
"""))
    assert [(c.config.method, c.config.seed, c.config.class_batch) for c in found.cells] == [
        ("lwf-mc", 0, 5), ("lwf-mc", 1, 5), ("m2kd", 0, 5), ("joint", 0, 5), ("m2kd", 7, 2)]
    assert [c.steps for c in found.cells] == [2, 2, 2, 2, 5] and found.same == 0
    assert found.cells[0].label == "method lwf-mc, class_batch 5, seed 0" and len({c.key for c in found.cells}) == 5


def test_cells_that_would_be_the_same_run_once_and_are_counted(tmp_path):
    found = plan(spec(tmp_path, BASE + "grid: {method: [finetune, m2kd], pruning_ratio: [0.6, 0.75], alpha: [0.5, 1]}"
                                       "\ninclude: [{method: m2kd, pruning_ratio: 0.6, alpha: 1.0}]"))
    assert [(c.config.method, c.config.pruning_ratio, c.config.alpha) for c in found.cells] == [
        ("finetune", 0.75, 0.5), ("m2kd", 0.6, 0.5), ("m2kd", 0.6, 1.0), ("m2kd", 0.75, 0.5), ("m2kd", 0.75, 1.0)]
    assert found.same == 4
    assert "5 cells (4 more would be the same); to run: 5, about" in cost.announce(found, found.cells, None, 1)


def test_the_example_is_four_runs_of_seconds():
    found = plan(places.find("experiments/example.yaml"))
    assert [cell.label for cell in found.cells] == [f"method {m}, seed {s}" for m in ("lwf-mc", "m2kd") for s in (0, 1)]
    assert max(cell.passes for cell in found.cells) < 2000


def test_an_exclusion_that_matches_nothing_is_said(tmp_path):
    said = []
    plan(spec(tmp_path, BASE + "grid: {seed: [0]}\nexclude: [{seed: 3}]"), said.append)
    assert [event["text"] for event in said] == ["exclude: no cell has seed 3"]


@pytest.mark.parametrize("text, says", [
    ("grid: {clas_batch: [5]}", "clas_batch: no such setting; did you mean class_batch?"),
    ("include: [{out: here}]", "out: no such setting"),
    ("grids: {seed: [1]}", "grids: no such section; give base, grid, exclude, include"),
    ("[1, 2]", "this: no such section"),
    ("grid: {seed: 1}", "grid: seed: 1: not allowed; give a list of values"),
    ("grid: {seed: []}", r"grid: seed: \[\]: not allowed"),
    ("grid: {seed: [0, 1, -1]}", "1 of 3 cells cannot be run.*\n  seed -1: --seed -1: not allowed"),
    ("grid: {seed: [0], seed: [1]}", "seed is written twice in one place, line 1"),
    ("base: {seed: 0", "not YAML"),
    ("exclude: {seed: 0}", "exclude: not allowed; give a list"),
    ("exclude: [{seed: few}]\ngrid: {seed: [1]}", "exclude: seed: few: not allowed; give a whole number"),
    ("base: {seed: 0}", "no cell is left"),
    ("grid: {seed: [0]}\nexclude: [{seed: 0}]", "no cell is left"),
    ("include: [{dataset: imagefolder, data_root: nowhere}]", "nowhere: not allowed; give a folder that exists"),
])
def test_what_is_wrong_with_a_specification_is_said_in_one_line(tmp_path, text, says):
    with pytest.raises(BadInput, match=says):
        plan(spec(tmp_path, text))


def test_impossible_cells_are_named_one_a_line_and_nothing_is_started(tmp_path, capsys):
    path = spec(tmp_path, BASE + "grid: {pruning_ratio: [0.05, 0.8], class_batch: [1, 5, 11]}\n")
    status, _, err = call(capsys, "sweep", path, "--out", tmp_path / "out")
    first, *others = err.splitlines()
    assert status == 2 and "3 of 6 cells cannot be run, and nothing was started; exclude can leave them out" in first
    assert sorted(line.split(": ")[0].strip() for line in others) == [
        "class_batch 1, pruning_ratio 0.05", "class_batch 11, pruning_ratio 0.05", "class_batch 11, pruning_ratio 0.8"]
    assert "no free weight left" in err and "give a whole number from 1 to 10" in err
    assert not (tmp_path / "out").exists()
    left = plan(spec(tmp_path, path.read_text() + "exclude: [{class_batch: 11}, {class_batch: 1, pruning_ratio: 0.05}]"))
    assert len(left.cells) == 3


def test_a_cell_is_known_by_settings_images_and_code_and_not_by_where_the_images_lie(tmp_path):
    config = small_config("m2kd")
    key = cell_key(config, "images", "code")
    assert key == cell_key(config.model_copy(update={"data_root": "elsewhere"}), "images", "code")
    others = [cell_key(small_config("m2kd", seed=1), "images", "code"), cell_key(config, "other images", "code"),
              cell_key(config, "images", "other code")]
    assert len({key, *others}) == 4


def test_code_is_every_source_file_and_the_notebooks_cells_but_not_their_outputs(tmp_path, monkeypatch):
    package, copy = tmp_path / "m2kd_lite", tmp_path / "06.ipynb"
    shutil.copytree(Path(m2kd_lite.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(places.find(places.FULL_RUN), copy)
    monkeypatch.setattr(places, "find", lambda name: copy)
    code = code_sha256(package)
    content = nbformat.read(copy, 4)
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="new")]
    nbformat.write(content, copy)
    assert code_sha256(package) == code
    content.cells[1].source += "\n"
    nbformat.write(content, copy)
    assert code_sha256(package) != code
    code = code_sha256(package)
    (package / "data" / "stream.py").open("a").write("#\n")
    assert code_sha256(package) != code


def test_time_and_disk_are_estimated_from_a_measurement_and_from_sizes(tmp_path, finished):
    small, large = plan(spec(tmp_path, BASE + "grid: {epochs: [1, 200]}")).cells
    assert large.passes > 50 * small.passes
    seconds = cost.seconds([small, large], threads=1)
    assert 0 < seconds[small.key] - cost.NOTEBOOK_SECONDS < seconds[large.key] / 20
    for method in ("m2kd", "m2kd-no-pruning"):
        folder, metrics = finished(method)
        cell = plan(spec(tmp_path, f"include: [{json.dumps(metrics['config'])}]")).cells[0]
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert held < cost.disk_bytes(cell) < 3 * held + 2 * cost.NOTEBOOK_BYTES


# ---- where it runs --------------------------------------------------------------------------------------------------


def test_workers_have_their_share_of_cores_and_take_gpus_by_turns(tmp_path):
    # Each notes its card, and waits for the other: so these are two workers.
    note = f'echo "$OMP_NUM_THREADS $OMP_WAIT_POLICY" > {tmp_path}/$CUDA_VISIBLE_DEVICES; until [ $(ls {tmp_path} | wc -l) = 2 ]; do sleep 0.1; done'
    with sweep.processes(2, threads=3, gpus=2) as pool:
        for future in [pool.submit(subprocess.run, note, shell=True, check=True, timeout=60) for _ in range(2)]:
            future.result()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {card: "3 passive\n" for card in "01"}
    assert [sweep.threads_for(workers) for workers in (1, joblib.cpu_count(), 1000)] == [joblib.cpu_count(), 1, 1]


def test_workers_do_not_outlive_a_sweep_that_is_killed(tmp_path):
    code = ("import subprocess, sys\nfrom m2kd_lite.sweeps import sweep\n"
            "if __name__ == '__main__':\n with sweep.processes(1, 1) as pool:\n"
            "  pool.submit(subprocess.run, ['sleep', '600'])\n  import time; time.sleep(600)")
    (tmp_path / "script.py").write_text(code)
    process = psutil.Popen([sys.executable, str(tmp_path / "script.py")])
    sleeper = until(lambda: [p for p in process.children(recursive=True) if p.name() == "sleep"])[0]
    worker = sleeper.parent()
    process.kill()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, seconds=30)
    sleeper.kill()


def test_a_file_named_stop_makes_a_run_write_a_checkpoint_and_end(tmp_path, finished):
    config, run = small_config("m2kd"), tmp_path / "run"
    run.mkdir()
    (run / "stop").touch()
    with pytest.raises(Interrupted) as asked:
        train.run(config, run, resume=True)
    assert asked.value.exit_status == 130 and list(run.glob("checkpoint/*")) and not (run / "stop").exists()
    train.run(config, run, resume=True)
    assert (run / "snapshots.safetensors").read_bytes() == (finished("m2kd")[0] / "snapshots.safetensors").read_bytes()


def test_no_cell_begins_after_a_stop_or_with_other_code(tmp_path):
    settings = small_config("m2kd").model_dump(mode="json")
    assert run_cell(settings, str(tmp_path / "a"), "other").state == "failed"
    assert "the code has changed since the sweep began" in run_cell(settings, str(tmp_path / "a"), "other").text
    (tmp_path / STOP).touch()
    assert run_cell(settings, str(tmp_path / "b"), code_sha256()).state == "stopped" and not (tmp_path / "b").exists()


def test_a_kernel_is_killed_the_sweep_is_stopped_and_goes_on_to_the_same_bytes(tmp_path):
    path, out = spec(tmp_path, LONG + "grid: {method: [m2kd]}"), tmp_path / "out"
    alone = plan(path)
    cell, = alone.cells
    folder, run = out / cell.key, out / cell.key / RUN
    command = [sys.executable, "-m", "m2kd_lite.cli", "sweep", str(path), "--out", str(out), "--workers", "2"]
    process = psutil.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: epochs_of(run, step=2))
    kernel_of(run).kill()
    lines = [process.stderr.readline() for _ in range(2)]
    assert "1 cell; to run: 1, about 1 MB, about" in lines[0] and "DeadKernelError" in lines[1] and "trying again" in lines[1]
    until(lambda: kernel_of(run))
    family = process.children(recursive=True)
    with pytest.raises(BadInput, match="another sweep is running there"):
        sweep.run(alone, out, sweep.Place(sweep.in_process))
    os.killpg(process.pid, signal.SIGINT)           # as a terminal does: to all at once
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; finished: 0 of 1 cell; the same command goes on" in err
    assert "Traceback" not in err and not psutil.wait_procs(family, timeout=10)[1]
    assert list(run.glob("checkpoint/*")) and not list(folder.glob("*.ipynb"))

    # The next call goes on, and has another cell: one that fails by its own fault, and is not tried again.
    wider, said = plan(spec(tmp_path, LONG + "grid: {method: [m2kd]}\ninclude: [{method: finetune, lr: 1.0e+20}]")), []
    with pytest.raises(M2KDError) as failed:
        sweep.run(wider, out, sweep.place(wider, out, workers=2, on_event=said.append), said.append)
    assert wider.cells[0].key == cell.key and [is_finished(out / c.key) for c in wider.cells] == [True, False]
    assert "1 of 2 cells failed" in str(failed.value) and "method finetune, lr 1e+20" in str(failed.value)
    assert "Diverged: the loss is" in str(failed.value) and 'at "In [6]"' in str(failed.value)
    ended = [event for event in said if event["event"] == "cell"]
    assert {(e["label"].split(",")[0], e["state"]) for e in ended} == {("method m2kd", "finished"), ("method finetune", "failed")}
    assert describe(ended[0]).startswith("[1/2] ") and " left" in describe(ended[0]) and " left" not in describe(ended[1])

    # The same models as if nothing had happened, and nothing but the second step was trained more than once.
    assert (run / "snapshots.safetensors").read_bytes() == undisturbed(cell, tmp_path)
    first = epochs_of(run, step=1)
    assert len(first) == len(set(first)) == 21 and len(set(epochs_of(run, step=2))) == 21
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [NOTEBOOK, RUN]
    assert all(c.execution_count for c in nbformat.read(folder / NOTEBOOK, 4).cells if c.cell_type == "code")
    shown = json.loads((out / "sweep.json").read_text())["cells"]
    assert shown[cell.key]["config"]["method"] == "m2kd"

    # What is finished is left as it is.
    before, said = (folder / NOTEBOOK).stat().st_mtime_ns, []
    sweep.run(alone, out, sweep.place(alone, out, on_event=said.append), said.append)
    assert [event["text"] for event in said] == ["1 cell, 1 of them finished already"]
    assert (folder / NOTEBOOK).stat().st_mtime_ns == before


def test_a_time_limit_between_cells_and_within_one_and_images_that_move_meanwhile(tmp_path):
    write_pictures(tmp_path / "here", train=8, test=2)
    text = "base: {dataset: imagefolder, data_root: %s, class_batch: 2, profile: smoke, batch_size: 4, epochs: 60}\ngrid: {method: [finetune, m2kd]}"
    found, out = plan(spec(tmp_path, text % (tmp_path / "here"))), tmp_path / "out"
    with pytest.raises(Interrupted, match="the time limit is reached; finished: 1 of 2 cells") as between:
        sweep.run(found, out, sweep.Place(sweep.in_process), should_stop=lambda: 75 if is_finished(out / found.cells[0].key) else None)
    assert between.value.exit_status == 75
    run = out / found.cells[1].key / RUN
    with pytest.raises(Interrupted, match="the time limit is reached; finished: 1 of 2 cells"):
        sweep.run(found, out, sweep.Place(sweep.in_process), should_stop=lambda: 75 if len(epochs_of(run, 1)) > 5 else None)
    done = len(epochs_of(run, 1) + epochs_of(run, 2))               # on a busy machine the limit is seen late
    (tmp_path / "here").rename(tmp_path / "there")
    moved = plan(spec(tmp_path, text % (tmp_path / "there")))
    assert [cell.key for cell in moved.cells] == [cell.key for cell in found.cells]
    sweep.run(moved, out, sweep.Place(sweep.in_process))
    assert all(len(epochs) == len(set(epochs)) == 61 for epochs in (epochs_of(run, 1), epochs_of(run, 2)))     # nothing began again
    assert 122 > done > 5


def test_in_this_process_a_cell_waits_for_whoever_is_still_at_it_and_keeps_what_it_did(tmp_path):
    found = plan(spec(tmp_path, BASE + "grid: {method: [finetune]}"))
    folder, said = tmp_path / "out" / found.cells[0].key, []
    other = threading.Thread(target=run_cell, args=(found.cells[0].config.model_dump(mode="json"), str(folder), found.code))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").touch()
    other.start()
    until(lambda: kernel_of(folder / RUN))
    sweep.run(found, tmp_path / "out", sweep.Place(sweep.in_process), said.append)
    other.join()
    assert [event["state"] for event in said if event["event"] == "cell"] == ["found"]
    assert epochs_of(folder / RUN, 1) == [("train", 1)] and epochs_of(folder / RUN, 2) == [("train", 1)]


@pytest.mark.parametrize("options, says", [
    (["--workers", "-1"], "--workers -1: not allowed; give a whole number, 0 or more"),
    (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "not allowed with --scheduler"),
    (["--device", "cpu"], "No such option: --device"),
])
def test_options_that_are_not_allowed_are_status_2(tmp_path, options, says, capsys):
    path = spec(tmp_path, BASE + "grid: {seed: [0]}")
    status, _, err = call(capsys, "sweep", path, "--out", tmp_path / "out", *options)
    assert status == 2 and says in err and not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="not the folder of a sweep"):
        sweep.run(plan(spec(tmp_path, BASE + "grid: {seed: [0]}")), out, sweep.Place(sweep.in_process))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]

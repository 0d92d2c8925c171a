"""Runs that are stopped, killed, shortened or moved, and go on: the same bytes, or one line that says why not."""
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import file_digest, small_config, stop_after, timeless, write_pictures

from m2kd_lite import data, errors
from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, DamagedFile, Interrupted
from m2kd_lite.files import storage
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.results import bank
from m2kd_lite.training import recompute, train
from m2kd_lite.training.rundir import read_run


@pytest.mark.system
def test_compiled_updates_are_resumed_to_the_same_bytes_and_measured_in_plain_bf16(tmp_path, compiler):
    config = small_config("m2kd", precision="bf16-compiled")
    train.run(config, tmp_path / "whole")
    stop_after(30, config, tmp_path / "run")        # in step 2
    train.run(config, tmp_path / "run", resume=True)
    assert len({file_digest(tmp_path / name / "snapshots.safetensors") for name in ("whole", "run")}) == 1
    run = read_run(tmp_path / "run")
    assert run.metrics["environment"]["precision"] == "bf16-compiled"
    assert recompute.differences(run.metrics, recompute.again(run, ClassStream.of_run(config))) == []


@pytest.mark.system
def test_a_resumed_run_may_change_its_arithmetic_and_is_still_found_again(tmp_path):
    said = []
    stop_after(30, small_config("m2kd"), tmp_path / "run")      # in step 2
    content = train.run(small_config("m2kd", precision="bf16"), tmp_path / "run", resume=True, on_event=said.append)
    assert [(environment["precision"], environment["since"]["step"]) for environment in content["environments"]] == [("fp32", 1), ("bf16", 2)]
    assert any(event["text"].startswith("precision: fp32 so far, bf16 from here on") for event in said if event["event"] == "notice")
    assert bank.rows(content)[0]["precision"] == "mixed"
    with pytest.raises(BadInput, match="--precision fp32: not allowed with --resume; this folder's run has bf16"):      # nothing is left to compute
        train.run(small_config("m2kd"), tmp_path / "run", resume=True)
    run = read_run(tmp_path / "run")
    assert recompute.differences(run.metrics, recompute.again(run, ClassStream.of_run(run.config))) == []


@pytest.mark.system
def test_the_steps_that_are_left_may_be_computed_in_other_arithmetic(tmp_path):
    train.run(small_config("finetune", steps=1), tmp_path / "run")
    content = train.run(small_config("finetune", steps=2, precision="bf16"), tmp_path / "run", resume=True)
    assert [environment["precision"] for environment in content["environments"]] == ["fp32", "bf16"]


@pytest.mark.parametrize(("method", "stops"), [
    *((method, (1, 5, 17, 25, 41, 48)) for method in ("lwf-mc", "m2kd")),
    *((method, (5, 29, 41)) for method in ("icarl", "scaled", "rwalk"))])
def test_stopped_anywhere_and_resumed_the_run_is_the_same(method, stops, tmp_path, finished):
    """One run, stopped after each of these batches in turn: what one stop loses shows in the last bytes."""
    folder, content = finished(method)
    for before, after in pairwise((-1, *stops)):
        stop = stop_after(after, small_config(method), tmp_path / "run", before)
        assert stop.exit_status == 130 and "--resume" in str(stop)
    resumed = train.run(small_config(method), tmp_path / "run", resume=True)
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")
    assert timeless(resumed) == timeless(content)
    assert len(resumed["environments"]) == 1


@pytest.mark.system
def test_killed_with_sigkill_and_resumed_the_run_is_the_same(tmp_path, finished):
    folder, _ = finished("m2kd")
    config, out = small_config("m2kd"), tmp_path / "run"
    options = [f"--{name.replace('_', '-')}={','.join(map(str, value)) if isinstance(value, list) else value}"
               for name, value in config.model_dump(mode="json").items() if value is not None]
    command = [sys.executable, "-m", "m2kd_lite.cli", "run", "--out", str(out), *options]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoint/*.safetensors")):           # until it has something to lose
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists()
    train.run(config, out, resume=True)
    assert file_digest(out / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")


def test_a_finished_run_resumed_is_a_no_op_that_says_so(finished):
    folder, content = finished("lwf-mc")
    before, said = file_digest(folder / "metrics.json"), []
    assert train.run(small_config("lwf-mc"), folder, resume=True, on_event=said.append) == content
    assert file_digest(folder / "metrics.json") == before
    assert {"event": "run", "state": "already finished", "folder": str(folder)} in said


def test_an_existing_folder_is_never_overwritten(finished, tmp_path):
    folder, _ = finished("lwf-mc")
    with pytest.raises(BadInput, match="exists already and is never overwritten"):
        train.run(small_config("lwf-mc"), folder)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="exists already"):
        train.run(small_config("lwf-mc"), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_resuming_with_other_settings_names_the_setting(finished):
    folder, _ = finished("lwf-mc")
    with pytest.raises(BadInput, match="--seed 7: not allowed with --resume; this folder's run has 0"):
        train.run(small_config("lwf-mc", seed=7), folder, resume=True)


def interrupted_run(folder, after=30):
    stop_after(after, small_config("m2kd"), folder)
    return sorted((folder / "checkpoint").glob("state-*.safetensors"), key=lambda p: storage.load_tensors(p)[1]["serial"])


def test_a_torn_checkpoint_is_named_and_the_older_one_is_used(tmp_path, finished):
    older, newer = interrupted_run(tmp_path / "run")
    newer.write_bytes(newer.read_bytes()[:-100])
    said = []
    train.run(small_config("m2kd"), tmp_path / "run", resume=True, on_event=said.append)
    assert any(event["event"] == "notice" and newer.name in event["text"] for event in said)
    folder, _ = finished("m2kd")
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")


def test_with_both_checkpoints_damaged_both_are_named(tmp_path):
    files = interrupted_run(tmp_path / "run")
    for file in files:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    with pytest.raises(DamagedFile, match="state-a.*state-b"):
        train.run(small_config("m2kd"), tmp_path / "run", resume=True)


def test_other_images_under_a_begun_run_are_noticed(tmp_path, monkeypatch):
    interrupted_run(tmp_path / "run")
    real = data.load

    def other(*arguments):
        images = real(*arguments)
        return replace(images, train_images=255 - images.train_images, sha256="")

    monkeypatch.setattr(data, "load", other)
    with pytest.raises(BadInput, match="began with other images"):
        train.run(small_config("m2kd"), tmp_path / "run", resume=True)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def second_run(event):
        if event["event"] == "epoch":
            with pytest.raises(BadInput, match="another run is writing there"):
                train.run(small_config("finetune"), tmp_path / "run", resume=True)
            raise StopIteration     # seen
    with pytest.raises(StopIteration):
        train.run(small_config("finetune"), tmp_path / "run", on_event=second_run)


def test_a_run_of_fewer_steps_is_finished_and_goes_on_to_the_bytes_of_a_whole_one(tmp_path, finished):
    folder, content = finished("m2kd")
    first = train.run(small_config("m2kd", steps=1), tmp_path / "run")
    assert [step["confusion"] for step in first["steps"]] == [content["steps"][0]["confusion"]] and first["config"]["steps"] == 1
    second = train.run(small_config("m2kd", steps=2), tmp_path / "run", resume=True)
    assert len(second["steps"]) == 2 == len(Snapshots.load(tmp_path / "run" / "snapshots.safetensors"))
    whole = train.run(small_config("m2kd"), tmp_path / "run", resume=True)
    assert timeless(whole) == timeless(content)
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_run_of_fewer_steps_resumed_as_it_is_stays_as_it_is(tmp_path):
    content = train.run(small_config("lwf-mc", steps=1), tmp_path / "run")
    assert train.run(small_config("lwf-mc", steps=1), tmp_path / "run", resume=True) == content
    assert (tmp_path / "run" / "checkpoint").exists()           # so that it can go on


@pytest.mark.parametrize("begun, asked, says", [
    (2, 1, "--steps 1: not allowed with --resume; this folder's run has 2; give more, or all"),
    (None, 2, "--steps 2: not allowed with --resume; this folder's run has all"),
])
def test_a_run_does_not_go_back_to_fewer_steps(begun, asked, says, tmp_path):
    with pytest.raises(Interrupted):
        train.run(small_config("finetune", steps=begun), tmp_path / "run", should_stop=lambda: 130)
    with pytest.raises(BadInput, match=says):
        train.run(small_config("finetune", steps=asked), tmp_path / "run", resume=True)


def test_more_steps_than_there_are_or_a_lost_checkpoint_are_said(tmp_path):
    with pytest.raises(BadInput, match="--steps 4: not allowed; give a whole number from 1 to 3, or all"):
        train.run(small_config("finetune", steps=4), tmp_path / "run")
    train.run(small_config("finetune", steps=1), tmp_path / "run")
    before = file_digest(tmp_path / "run" / "metrics.json")
    for file in (tmp_path / "run" / "checkpoint").iterdir():
        file.unlink()
    with pytest.raises(BadInput, match="its checkpoint is missing"):
        train.run(small_config("finetune"), tmp_path / "run", resume=True)
    assert file_digest(tmp_path / "run" / "metrics.json") == before


@pytest.fixture
def folder_of_images(tmp_path):
    """4 classes of 6 + 2 noisy pictures of 32x32, and a configuration that reads them."""
    write_pictures(tmp_path / "here", train=6, test=2)
    return RunConfig.make(dict(method="lwf-mc", dataset="imagefolder", data_root=str(tmp_path / "here"), class_batch=2, profile="smoke",
                               batch_size=4, epochs=2))


def test_a_run_goes_on_where_its_images_have_moved_and_not_with_others(folder_of_images, tmp_path):
    config, whole = folder_of_images, train.run(folder_of_images, tmp_path / "whole")
    stop_after(3, config, tmp_path / "run")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = config.model_copy(update={"data_root": str(tmp_path / "there")})
    content = train.run(moved, tmp_path / "run", resume=True)
    assert content["steps"][-1]["confusion"] == whole["steps"][-1]["confusion"] and content["config"]["data_root"] == moved.data_root
    assert train.run(moved, tmp_path / "whole", resume=True)["config"]["data_root"] == config.data_root         # finished: stays
    victim = next((tmp_path / "there" / "train" / "a").iterdir())
    victim.unlink()
    with pytest.raises(BadInput, match="this run began with other images"):
        train.run(moved, tmp_path / "whole", resume=True)


def test_every_environment_a_run_was_computed_in_is_recorded(tmp_path, monkeypatch):
    said = []
    stop_after(12, small_config("finetune"), tmp_path / "run")
    real = train.describe_environment
    monkeypatch.setattr(train, "describe_environment", lambda *given: real(*given) | {"device": "another processor", "threads": 64})
    content = train.run(small_config("finetune"), tmp_path / "run", resume=True, on_event=said.append)
    first, second = content["environments"]
    assert first["since"] == {"step": 1, "phase": "train", "epoch": 0, "batch": 0}
    assert second["since"] == {"step": 1, "phase": "train", "epoch": 1, "batch": 3} and second["threads"] == 64
    assert content["environment"]["device"] == "another processor" and first["device"] != "another processor"
    notices = [event["text"] for event in said if event["event"] == "notice"]
    assert any(text.startswith("device: ") and "another processor from here on" in text for text in notices)
    row = bank.rows(content)[0]
    assert row["device"] == row["threads"] == "mixed" and row["precision"] == "fp32"


def test_a_checkpoint_from_before_environments_and_later_settings_goes_on(tmp_path, finished):
    """As one is that was written by version 0.1.0."""
    folder, content = finished("m2kd")
    older, newer = interrupted_run(tmp_path / "run")
    for path in (older, newer):
        tensors, notes = storage.load_tensors(path)
        del notes["environments"]
        storage.save_tensors(path, tensors, notes | {"arithmetic": {"threads": 63, "precision": "fp32"}})
    younger = ("augment", "prior", "normaliser", "steps", "finetune_schedule")
    for path in (tmp_path / "run" / "checkpoint").glob("models-*"):
        tensors, notes = storage.load_tensors(path)
        for name in younger:
            del notes["notes"]["config"][name]
        storage.save_tensors(path, tensors, notes)
    stored = storage.load_json(tmp_path / "run" / "config.json")
    for name in younger:
        del stored["config"][name]
    storage.save_json(tmp_path / "run" / "config.json", stored)
    resumed = train.run(small_config("m2kd"), tmp_path / "run", resume=True)
    assert resumed["steps"][-1]["confusion"] == content["steps"][-1]["confusion"]
    assert bank.rows(resumed)[0]["threads"] == bank.rows(resumed)[0]["device"] == "mixed"
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")


def test_a_checkpoint_is_written_while_many_teachers_are_asked(tmp_path, finished):
    def stop_while_asked():
        return errors.TIME_LIMIT if any(frame.name == "soft_targets" for frame in traceback.extract_stack()) else None

    with pytest.raises(Interrupted, match="the time limit is reached") as stop:
        train.run(small_config("m2kd"), tmp_path / "run", should_stop=stop_while_asked)
    assert stop.value.exit_status == 75
    resumed = train.run(small_config("m2kd"), tmp_path / "run", resume=True)
    assert timeless(resumed) == timeless(finished("m2kd")[1])


@pytest.mark.system
@pytest.mark.parametrize("method", ["m2kd", "icarl"])
def test_a_run_with_crops_stopped_and_resumed_is_the_same_and_every_model_is_rebuilt(method, tmp_path, live):
    config = small_config(method, augment="crop")
    whole = train.run(config, tmp_path / "whole")
    stop_after(25, config, tmp_path / "run")
    assert timeless(train.run(config, tmp_path / "run", resume=True)) == timeless(whole)
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(tmp_path / "whole" / "snapshots.safetensors")
    assert whole["steps"][0]["loss"] != train.run(small_config(method), tmp_path / "flips")["steps"][0]["loss"]

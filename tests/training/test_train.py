"""Whole runs on real handwriting: what the method promises, and what a crash may not change."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import small_config

from m2kd_lite import data, device, masks, metrics, storage, train
from m2kd_lite.device import autocast
from m2kd_lite.errors import BadInput, DamagedFile, Diverged, Interrupted, LayerExhausted
from m2kd_lite.methods import METHODS
from m2kd_lite.snapshots import Snapshots


def file_digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(content):
    """metrics.json without what a clock says."""
    content = json.loads(json.dumps(content))
    content.pop("wall_seconds")
    content["environment"].pop("revision")      # a commit in the middle of a session is no difference between runs
    for step in content["steps"]:
        step.pop("train_seconds"), step.pop("teacher_seconds")
    return content


@pytest.fixture
def live(monkeypatch):
    """What the live network was when each step ended: its logits on test images, and its convolutions."""
    seen = []
    real = metrics.predict

    def spy(net, images, top=5):
        with torch.no_grad():
            seen.append({"images": images[:40], "logits": net(images[:40]),
                         "weights": {name: w.detach().clone() for name, w in net.convolutions().items()},
                         "training": net.training})
        return real(net, images, top)

    monkeypatch.setattr(train.metrics, "predict", spy)
    return seen


@pytest.mark.parametrize("method", ["lwf-mc", "m2kd-no-pruning", "m2kd"])
def test_every_model_is_rebuilt_bit_for_bit(method, live, tmp_path):
    train.run(small_config(method), tmp_path / "run")
    past = Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    assert len(past) == len(live) == 3
    for step, was in enumerate(live, 1):
        with torch.no_grad():
            logits, auxiliary = past.reconstruct(step)(was["images"])
        assert torch.equal(logits, was["logits"][0])
        if auxiliary is not None:       # where models share weights, the auxiliary head is kept for its own classes
            own = 4 * (step - 1) if method == "m2kd" else 0
            assert torch.equal(auxiliary[:, own:], was["logits"][1][:, own:]) and auxiliary[:, :own].isnan().all()
        assert not was["training"]


def test_on_step_looks_at_the_live_network_once_when_each_step_ends(tmp_path, finished):
    folder, _ = finished("m2kd")
    seen, pictures = [], torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)

    def look(step, net):
        with torch.no_grad():
            seen.append((step, net.training, net(pictures)[0]))

    with pytest.raises(Interrupted):        # in step 2
        train.run(small_config("m2kd"), tmp_path / "run", on_step=look, should_stop=lambda: 130 if seen else None)
    train.run(small_config("m2kd"), tmp_path / "run", resume=True, on_step=look)
    past = Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    assert [step for step, _, _ in seen] == [1, 2, 3]
    for step, training, logits in seen:
        with torch.no_grad():
            assert not training and torch.equal(logits, past.reconstruct(step)(pictures)[0])
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")


def test_in_bf16_too_every_model_is_rebuilt_bit_for_bit(live, tmp_path):
    train.run(small_config("m2kd", precision="bf16"), tmp_path / "run")
    past = Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    for step, was in enumerate(live, 1):
        with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
            assert torch.equal(past.reconstruct(step)(was["images"])[0], was["logits"][0])


@pytest.mark.parametrize("units, expected", [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_what_the_processor_is_good_at(units, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "has_bf16_units", lambda: units)
    content = train.run(small_config("finetune", precision="auto", epochs=1), tmp_path / "run")
    assert content["environment"]["precision"] == expected


def test_frozen_weights_are_bitwise_unchanged_ever_after(live, tmp_path):
    train.run(small_config("m2kd"), tmp_path / "run")
    past = Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    moved = False
    for name, mask in past.masks.items():
        for step, was in enumerate(live, 1):
            own = mask == step
            assert own.any() and torch.equal(past.weights[name][own], was["weights"][name][own])
            later = mask > step
            moved |= bool((past.weights[name][later] != was["weights"][name][later]).any())
    assert moved        # the free ones did learn


def test_each_step_keeps_the_asked_share_of_what_was_free(finished):
    folder, _ = finished("m2kd")
    ratio = small_config("m2kd").pruning_ratio
    assert ratio == 0.75
    for mask in Snapshots.load(folder / "snapshots.safetensors").masks.values():
        free = mask.numel()
        for step in (1, 2, 3):
            own = int((mask == step).sum())
            assert own == masks.kept_count(free, ratio)
            free -= own


def test_metrics_file_has_the_contract_and_agrees_with_the_snapshots(finished):
    folder, content = finished("m2kd")
    assert content == storage.load_json(folder / "metrics.json")
    assert content["schema"] == 1
    assert {"config", "environment", "data_sha256", "steps", "average_incremental_accuracy", "final_accuracy",
            "forgetting", "bytes", "wall_seconds"} <= content.keys()
    assert [step["classes_seen"] for step in content["steps"]] == [4, 8, 10]        # a smaller last step
    for step in content["steps"]:
        assert {"step", "top1", "top5", "accuracy_by_step", "confusion", "train_seconds", "teacher_seconds", "loss"} <= step.keys()
        counts = torch.tensor(step["confusion"])
        assert counts.shape == (step["classes_seen"],) * 2 and counts.sum() == 10 * step["classes_seen"]
        assert step["top1"] == pytest.approx(100 * counts.trace().item() / counts.sum().item())
    assert content["bytes"]["added"] == content["bytes"]["per_step"][-1]["total"] - content["bytes"]["per_step"][0]["total"]
    assert not (folder / "checkpoint").exists()
    epochs = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert len(epochs) == 3 * (2 + 1)       # per step: two epochs, one more after the prune


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, finished):
    folder, content = finished("m2kd")
    again = train.run(small_config("m2kd"), tmp_path / "again")
    assert file_digest(tmp_path / "again" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")
    assert timeless(again) == timeless(content)
    other = train.run(small_config("m2kd", seed=1), tmp_path / "other")
    assert timeless(other)["steps"] != timeless(content)["steps"]


@pytest.mark.parametrize(("method", "after"), [
    *((method, after) for method in ("lwf-mc", "m2kd") for after in (1, 5, 17, 25, 41, 48)),
    *((method, after) for method in ("icarl", "scaled", "rwalk") for after in (5, 29, 41))])
def test_stopped_anywhere_and_resumed_the_run_is_the_same(method, after, tmp_path, finished):
    folder, content = finished(method)
    batches = iter(range(10_000))
    with pytest.raises(Interrupted) as stop:
        train.run(small_config(method), tmp_path / "run", should_stop=lambda: 130 if next(batches) == after else None)
    assert stop.value.exit_status == 130 and "--resume" in str(stop.value)
    resumed = train.run(small_config(method), tmp_path / "run", resume=True)
    assert file_digest(tmp_path / "run" / "snapshots.safetensors") == file_digest(folder / "snapshots.safetensors")
    assert timeless(resumed) == timeless(content)


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
    batches = iter(range(10_000))
    with pytest.raises(Interrupted):
        train.run(small_config("m2kd"), folder, should_stop=lambda: 130 if next(batches) == after else None)
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


def test_a_diverging_run_stops_with_its_place_and_writes_no_metrics(tmp_path):
    with pytest.raises(Diverged, match=r"step 1, train epoch \d+, at learning rate 1e\+20; try --lr"):
        train.run(small_config("finetune", lr=1e20), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("method, teachers", [("finetune", []), ("lwf-mc", [1, 2]), ("m2kd", [1, 1, 2])])
def test_teachers_are_rebuilt_once_a_step_however_many_epochs(method, teachers, tmp_path, monkeypatch):
    asked = []
    real = Snapshots.reconstruct
    monkeypatch.setattr(Snapshots, "reconstruct", lambda self, step, state=None: asked.append(step) or real(self, step, state))
    train.run(small_config(method), tmp_path / "run")
    assert asked == teachers


def test_lwf_mc_and_finetune_part_at_step_2_only(finished):
    finetune, lwf = finished("finetune")[1], finished("lwf-mc")[1]
    assert finetune["steps"][0]["confusion"] == lwf["steps"][0]["confusion"]
    assert finetune["steps"][0]["loss"] == lwf["steps"][0]["loss"] and finetune["steps"][1]["loss"] != lwf["steps"][1]["loss"]


@pytest.mark.system
def test_joint_sees_all_images_and_beats_finetune(tmp_path):
    longer = dict(epochs=6, test_per_class=20)
    joint = train.run(small_config("joint", **longer), tmp_path / "joint")
    finetune = train.run(small_config("finetune", **longer), tmp_path / "finetune")
    assert joint["average_incremental_accuracy"] > finetune["average_incremental_accuracy"] + 10
    assert finetune["steps"][-1]["accuracy_by_step"][0] < 20 < joint["steps"][-1]["accuracy_by_step"][0]
    assert joint["bytes"]["per_step"][-1]["exemplars"] == 40 * 10 * 32 * 32


def test_a_lesson_may_exchange_every_function_that_does_the_work(tmp_path, finished):
    called = set()

    def spied(name):
        real = getattr(METHODS["m2kd"], name)

        def spy(*arguments):
            called.add(name)
            return real(*arguments)
        return spy

    names = ("teachers", "fill", "main_loss", "auxiliary_loss", "prune", "rebuild")
    theirs = train.run(small_config("m2kd"), tmp_path / "run", method=replace(METHODS["m2kd"], **{n: spied(n) for n in names}))
    assert called == set(names) and timeless(theirs) == timeless(finished("m2kd")[1])


def test_a_lesson_may_exchange_one_function_of_the_method(tmp_path):
    calls = []

    def my_loss(logits, targets, total):
        calls.append(targets.shape[1])
        return METHODS["lwf-mc"].main_loss(logits, targets, total)

    train.run(small_config("lwf-mc"), tmp_path / "run", method=replace(METHODS["lwf-mc"], main_loss=my_loss))
    assert set(calls) == {4, 8, 10}


@pytest.mark.parametrize("step, expected", [(1, 0.01), (2, 0.0)])
def test_weight_decay_is_for_step_1_only_and_every_phase_has_a_fresh_optimizer(step, expected, tmp_path, monkeypatch):
    made = []
    real = torch.optim.SGD

    def spy(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(train.torch.optim, "SGD", spy)
    train.run(small_config("m2kd", weight_decay=0.01), tmp_path / "run")
    assert len(made) == 6       # three steps of two phases
    assert {made[2 * step - 2].param_groups[0]["weight_decay"], made[2 * step - 1].param_groups[0]["weight_decay"]} == {expected}


def test_an_incomplete_last_batch_is_dropped_unless_it_is_the_only_one(tmp_path, monkeypatch):
    sizes = []
    real = train.Update.__call__

    def spy(self, rows, flips):
        sizes.append(len(rows))
        real(self, rows, flips)

    monkeypatch.setattr(train.Update, "__call__", spy)
    train.run(small_config("finetune", train_per_class=10, batch_size=32, epochs=1), tmp_path / "run")
    assert sizes == [32, 32, 20]        # 40 images: one batch of 32, 8 dropped; the last step has 20 in all


def test_a_run_whose_layers_would_not_last_says_so_before_it_begins(tmp_path):
    with pytest.raises(LayerExhausted, match="last for 5 of 10 steps; a larger pruning ratio or class batch is needed"):
        train.run(small_config("m2kd", class_batch=1, pruning_ratio=0.3), tmp_path / "run")
    assert not (tmp_path / "run").exists()

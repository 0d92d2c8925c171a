"""Whole runs on real handwriting: what the method promises, and what a crash may not change."""
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import file_digest, small_config, timeless

from m2kd_lite.errors import BadInput, Diverged, Interrupted, LayerExhausted
from m2kd_lite.files import storage
from m2kd_lite.method import masks, nets
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import device, loop, train
from m2kd_lite.training.device import autocast


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


@pytest.mark.system
def test_in_bf16_too_every_model_is_rebuilt_bit_for_bit(live, tmp_path):
    train.run(small_config("m2kd", precision="bf16"), tmp_path / "run")
    past = Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    for step, was in enumerate(live, 1):
        with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
            assert torch.equal(past.reconstruct(step)(was["images"])[0], was["logits"][0])


@pytest.mark.system
def test_without_a_compiler_compiled_updates_are_refused_before_anything_is_written(tmp_path):
    command = [sys.executable, "-m", "m2kd_lite.cli", "run", "--precision", "bf16-compiled", "--device", "cpu", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {"CXX": "false"}, capture_output=True, text=True)
    assert done.returncode == 2 and "torch.compile needs a C++ compiler that works" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_compiled_updates_need_a_cpu(monkeypatch):
    config = small_config("m2kd", precision="bf16-compiled")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="--precision bf16-compiled: not allowed with --device cuda"):
        device.prepare_device(config.model_copy(update={"device": "cuda"}))


@pytest.mark.parametrize("has, vendor, expected", [
    ({"amx_bf16": True, "avx512_bf16": True}, "GenuineIntel", "bf16"), ({"avx512_bf16": True}, "AuthenticAMD", "bf16"),
    ({"avx512_bf16": True}, "GenuineIntel", "fp32"), ({}, "AuthenticAMD", "fp32"), ({}, "", "fp32")])
def test_precision_auto_is_what_the_processor_is_good_at(has, vendor, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(device, "processor_vendor", lambda: vendor)
    content = train.run(small_config("finetune", precision="auto", epochs=1, steps=1), tmp_path / "run")
    assert content["environment"]["precision"] == expected
    said = []
    device.prepare_device(small_config("finetune", precision="bf16"), said.append)
    assert [event["text"].startswith("--precision bf16 may be slower than fp32") for event in said] == [True] * (expected == "fp32")


@pytest.mark.parametrize("before, expected", [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)])
def test_threads_that_wait_spin_less_unless_somebody_has_said_how_long(before, expected):
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, m2kd_lite; print(os.environ.get('GOMP_SPINCOUNT'))"
    said = subprocess.run([sys.executable, "-c", code], env=plain | before, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(expected)


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
    longer = dict(epochs=6, train_per_class=40, test_per_class=20, batch_size=16)
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
    begun, updates = [], 0
    real = loop.sgd

    def spy(parameters, gradients, momenta, **options):
        nonlocal updates
        updates += 1
        if not any(momentum.any() for momentum in momenta):
            begun.append(options["weight_decay"])
        real(parameters, gradients, momenta, **options)

    monkeypatch.setattr(loop, "sgd", spy)
    train.run(small_config("m2kd", weight_decay=0.01), tmp_path / "run")
    assert len(begun) == 6 < updates        # three steps of two phases
    assert set(begun[2 * step - 2:2 * step]) == {expected}


def test_an_incomplete_last_batch_is_dropped_unless_it_is_the_only_one(tmp_path, monkeypatch):
    sizes = []
    real = train.Update.__call__

    def spy(self, rows, *others, **named):
        sizes.append(len(rows))
        real(self, rows, *others, **named)

    monkeypatch.setattr(train.Update, "__call__", spy)
    train.run(small_config("finetune", train_per_class=10, batch_size=32, epochs=1), tmp_path / "run")
    assert sizes == [32, 32, 20]        # 40 images: one batch of 32, 8 dropped; the last step has 20 in all


def test_a_run_whose_layers_would_not_last_says_so_before_it_begins(tmp_path):
    with pytest.raises(LayerExhausted, match="last for 5 of 10 steps; a larger pruning ratio or class batch is needed"):
        train.run(small_config("m2kd", class_batch=1, pruning_ratio=0.3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_after_a_divergence_a_rate_is_named_that_can_work(tmp_path):
    with pytest.raises(Diverged, match=r"try --lr 2$"):
        train.run(small_config("finetune", lr=1e6), tmp_path / "run")


def test_with_crops_the_target_of_an_unshifted_image_is_that_of_the_matrix(tmp_path):
    from m2kd_lite.method import targets
    from m2kd_lite.training.loop import crops
    folder = tmp_path / "run"
    train.run(small_config("m2kd-no-pruning"), folder)
    past = Snapshots.load(folder / "snapshots.safetensors")
    chance = torch.Generator().manual_seed(0)
    images, labels = torch.randint(0, 256, (20, 1, 32, 32), dtype=torch.uint8, generator=chance), torch.arange(20) % 2 + 8
    plan = targets.own_step([range(0, 4), range(4, 8), range(8, 10)])
    matrices = targets.target_matrix(plan, past.reconstruct, images, labels, 10)
    unshifted = crops(images, torch.full((20, 2), 4))
    assert torch.equal(unshifted, images)
    batch = targets.batch_targets(plan, {step: past.reconstruct(step) for step, _ in plan}, unshifted, labels, 10)
    for asked, filled in zip(batch, matrices, strict=True):
        assert torch.equal(asked, filled[0])


def test_a_crop_is_cut_from_the_bordered_image():
    from m2kd_lite.training.loop import crops
    images = torch.arange(1, 3 * 6 * 6 + 1).reshape(1, 3, 6, 6).to(torch.uint8).expand(2, -1, -1, -1)
    cut = crops(images, torch.tensor([[0, 4], [8, 5]]))
    assert torch.equal(cut[0, :, 4:], images[0, :, :2]) and not cut[0, :, :4].any()             # moved down by 4
    assert torch.equal(cut[1, :, :2, :5], images[1, :, 4:, 1:]) and not cut[1, :, 2:].any() and not cut[1, :, :, 5:].any()


def test_new_outputs_begin_at_their_prior_and_old_ones_stay(tmp_path):
    begun = {}
    for prior in (0.5, 0.05):
        net = nets.IncrementalNet("resnet8", 1, True, 0, prior)
        net.grow_heads(4, 1)
        old = net.main.bias.detach().clone()
        net.grow_heads(6, 2)
        assert torch.equal(net.main.bias[:4], old)
        begun[prior] = torch.cat([net.main.bias, net.auxiliary.bias]).detach()
    assert torch.allclose(begun[0.05] - begun[0.5], torch.full((12,), math.log(0.05 / 0.95)))
    losses = [train.run(small_config("finetune", prior=prior, epochs=1, lr=1e-6, steps=1), tmp_path / str(prior))["steps"][0]["loss"]
              for prior in (0.5, 0.25)]
    assert losses[1] < losses[0]            # one class in four is right: nearer to the truth from the start


def test_after_a_prune_the_rate_is_the_schedule_s_last_or_goes_through_all_of_it(tmp_path):
    for schedule, rates in (("last", [0.4, 0.4, 0.4]), ("whole", [2.0, 2.0, 0.4])):
        said = []
        config = small_config("m2kd", epochs=3, milestones=[2], finetune_epochs=3, finetune_schedule=schedule, steps=1)
        train.run(config, tmp_path / schedule, on_event=said.append)
        assert [event["lr"] for event in said if event.get("phase") == "finetune" and event["event"] == "epoch"] == pytest.approx(rates)
    weights = [Snapshots.load(tmp_path / schedule / "snapshots.safetensors").state(1)["main.weight"] for schedule in ("last", "whole")]
    assert not torch.equal(*weights)


def test_the_normaliser_of_classes_seen_is_a_larger_step_while_few_are_seen(tmp_path):
    content = {normaliser: train.run(small_config("finetune", normaliser=normaliser, lr=1e-6), tmp_path / normaliser)
               for normaliser in ("all", "seen")}
    ratios = [seen["loss"] / every["loss"] for seen, every in zip(content["seen"]["steps"], content["all"]["steps"], strict=True)]
    assert ratios == pytest.approx([10 / 4, 10 / 8, 1], rel=1e-3)

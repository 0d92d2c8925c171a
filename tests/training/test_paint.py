"""Whole runs that draw: what a later step may not change of what an earlier one draws, and what a crash may not."""
from dataclasses import fields, replace

import pytest
import torch
from conftest import file_digest, small_config, stop_after

from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method import painter_file
from m2kd_lite.method.painter import Painter
from m2kd_lite.method.reserving import MASKING, Masking
from m2kd_lite.method.table import METHODS, unused_settings
from m2kd_lite.results import bank
from m2kd_lite.training import draws, paint, quality, train


def digest(folder, name=painter_file.FILE):
    return file_digest(folder / name)


def drawings(folder, stream, step):
    painter = painter_file.load(folder / painter_file.FILE)
    images, labels = paint.drawn(painter, stream.columns[:len(painter.parts)], 5, 0, 99)
    return images[torch.isin(labels, torch.tensor(stream.columns[step - 1]))]


@pytest.mark.system
def test_step_1_is_drawn_with_the_same_bits_when_the_run_has_gone_on(tmp_path, finished):
    folder, _ = finished("dgm")
    stream = ClassStream.of_run(small_config("dgm"))
    train.run(small_config("dgm", steps=1), tmp_path / "run")
    early = drawings(tmp_path / "run", stream, 1)
    train.run(small_config("dgm"), tmp_path / "run", resume=True)
    late = drawings(tmp_path / "run", stream, 1)
    assert early.shape == (20, 1, 32, 32) and early.equal(late)
    assert digest(tmp_path / "run") == digest(folder)


@pytest.mark.system
def test_a_row_may_bring_functions_of_its_own_for_the_masks(tmp_path, finished):
    """The library's, under other names, give the same bytes; one that holds nothing still gives another painter."""
    asked = []

    def watched(name):
        return lambda *arguments: asked.append(name) or getattr(MASKING, name)(*arguments)

    own = Masking(**{field.name: watched(field.name) for field in fields(Masking)})
    train.run(small_config("dgm"), tmp_path / "same", method=replace(METHODS["dgm"], masking=own))
    assert digest(tmp_path / "same") == digest(finished("dgm")[0]) and set(asked) == {"steepness", "soft", "cumulative", "gradient"}
    loose = replace(MASKING, gradient=lambda gradient, reserved: gradient)
    train.run(small_config("dgm"), tmp_path / "other", method=replace(METHODS["dgm"], masking=loose))
    stream = ClassStream.of_run(small_config("dgm"))
    assert not drawings(tmp_path / "other", stream, 1).equal(drawings(tmp_path / "same", stream, 1))


@pytest.mark.system
def test_a_run_stopped_and_resumed_draws_and_decides_the_same(tmp_path, finished):
    folder, content = finished("dgm")
    for before, after, place in [(-1, 27, (1, "paint")), (27, 62, (2, "train")), (62, 90, (2, "paint"))]:
        stop_after(after, small_config("dgm"), tmp_path / "run", before)
        newest = max((notes["serial"], notes["position"]["step"], notes["position"]["phase"]) for _, notes in map(
            storage.load_tensors, (tmp_path / "run" / "checkpoint").glob("state-*.safetensors")))
        assert newest[1:] == place
    resumed = train.run(small_config("dgm"), tmp_path / "run", resume=True)
    assert digest(tmp_path / "run") == digest(folder)
    assert digest(tmp_path / "run", "snapshots.safetensors") == digest(folder, "snapshots.safetensors")
    for name in ("drawings", "bytes", "final_accuracy", "average_incremental_accuracy"):
        assert resumed[name] == content[name], name
    assert [step["critic"] for step in resumed["steps"]] == [step["critic"] for step in content["steps"]]


def test_a_checkpoint_with_another_painter_is_refused(tmp_path):
    stop_after(28, small_config("dgm"), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoint").glob("state-*.safetensors"):
        tensors, notes = storage.load_tensors(path)
        assert notes["position"]["phase"] == "paint" or "painter/weights.0" not in tensors
        storage.save_tensors(path, {name: tensor for name, tensor in tensors.items() if name != "painter/weights.1"}, notes)
    with pytest.raises(DamagedFile, match="not a checkpoint of this run"):
        train.run(small_config("dgm"), tmp_path / "run", resume=True)


def test_old_classes_are_drawn_as_often_as_new_ones_come(monkeypatch, tmp_path):
    seen = []
    real = train._Run.soft_targets
    monkeypatch.setattr(train._Run, "soft_targets", lambda self, images, labels, columns: seen.append((images, labels)) or real(self, images, labels, columns))
    train.run(small_config("dgm", steps=2, epochs=1, generator_epochs=1), tmp_path / "run")
    stream = ClassStream.of_run(small_config("dgm"))
    assert [torch.bincount(labels).tolist() for _, labels in seen] == [[20] * 4, [20] * 8]
    images, labels = seen[1]
    new = stream.train(2)[0]
    assert images[:len(new)].equal(new) and labels[len(new):].max() < 4
    own = paint.drawn(painter_file.load(tmp_path / "run" / painter_file.FILE), stream.columns[:1], 20, 0, 2)[0]
    assert images[len(new):].equal(own)


def test_what_is_reported_beside_the_accuracy(finished):
    folder, content = finished("dgm")
    assert {len(content["drawings"][name]) for name in ("recognised", "teaches")} == {3}
    assert all(0 <= percent <= 100 for of in content["drawings"].values() for percent in of)
    assert [len(step["critic"]["accuracy_by_step"]) for step in content["steps"]] == [1, 2, 3]
    counted = painter_file.carried_bytes(painter_file.load(folder / painter_file.FILE))
    carried, alone = content["bytes"]["per_step"][-1], finished("finetune")[1]["bytes"]["per_step"][-1]
    assert carried["mask"] == counted["mask"] > 0 == alone["mask"]
    assert carried["weights"] == counted["weights"] + alone["weights"]
    assert carried["total"] == sum(carried[name] for name in ("weights", "mask", "batch_norm", "heads", "exemplars"))
    assert "drawings" not in finished("finetune")[1]


def test_both_phases_are_told(tmp_path):
    said = []
    train.run(small_config("dgm", steps=1), tmp_path / "run", on_event=said.append)
    assert [(event["phase"], event["epoch"]) for event in said if event["event"] == "epoch"] == [
        ("train", 1), ("train", 2), ("paint", 1), ("paint", 2)]
    assert any(event["event"] == "progress" and event["what"] == "step 1, paint" for event in said)


def test_every_epoch_draws_other_noise_and_a_resumed_one_the_same(images):
    seen = []

    class Spy:
        painter = Painter(6, 3, 2, 0)

        def update(self, *arguments):
            seen.append(arguments)
            return torch.zeros(())

    state = type("State", (), {"painter": Spy.painter, "duel": Spy(), "loss_sum": torch.zeros((), dtype=torch.float64),
                               "position": type("Position", (), {"step": 2})})
    lesson = paint.Lesson(state, *images, RunConfig.make({"method": "dgm", "batch_size": 4, "generator_epochs": 3}), range(2, 6))
    assert list(lesson.epoch(0, 0)) == [1, 2, 3, 4] and list(lesson.epoch(0, 2)) == [3, 4] and len(list(lesson.epoch(1, 0))) == 4
    assert all(mine.equal(again) for mine, again in zip(seen[2][:6], seen[4][:6], strict=True))
    assert not seen[0][4].equal(seen[6][4])
    assert sorted(torch.cat([call[3] for call in seen[:4]]).tolist()) == [0] * 4 + [1] * 4          # every drawn old image once
    assert {int(label) for call in seen for label in call[1]} == {2, 3, 4, 5}


def test_the_painters_settings_make_no_difference_to_other_methods():
    names = {"generator_epochs", "generator_width", "mask_penalty"}
    assert all(names <= set(unused_settings(row)) for name, row in METHODS.items() if name != "dgm")
    assert not names & set(unused_settings(METHODS["dgm"]))
    row = {"variant": "", "data_sha256": "", **RunConfig.make({"method": "m2kd"}).model_dump()}
    assert bank.key(row) == bank.key(row | {"generator_epochs": 7, "generator_width": 9, "mask_penalty": 0.5})
    row["method"] = "dgm"
    assert bank.key(row) != bank.key(row | {"generator_epochs": 7})


def test_other_sizes_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    real = ClassStream.of_run

    def larger(*arguments):
        stream = real(*arguments)
        object.__setattr__(stream, "train_images", torch.zeros(400, 1, 64, 64, dtype=torch.uint8))
        return stream

    monkeypatch.setattr(ClassStream, "of_run", larger)
    with pytest.raises(BadInput, match="--method dgm: draws images of 32x32 pixels, and this data set has 64x64"):
        train.run(small_config("dgm"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_classifier_for_the_drawings_learns_what_it_is_shown():
    config = small_config("dgm", epochs=5, train_per_class=40, batch_size=16)
    stream = ClassStream.of_run(config)
    images, labels = stream.train(1)
    net = quality.classifier(images, labels, config, "fp32")
    with torch.no_grad():
        right = (net(stream.test(1)[0])[0].argmax(1) == stream.test(1)[1]).float().mean()
    assert not net.training and right > 0.6 and draws.batches(config, len(images)) == (16, 10)


def test_real_and_drawn_images_never_share_a_batch():
    order, flips = torch.randperm(50, generator=torch.Generator().manual_seed(0)), torch.arange(50)
    kept = draws.apart((order, flips), (20, 30), 8)
    size, count = draws.batches(RunConfig.make({"method": "dgm", "batch_size": 8}), 20, 30)
    assert (size, count) == (8, 2 + 3) and len(kept[0]) == len(kept[1]) == size * count
    kinds = [set((part < 20).tolist()) for part in kept[0].split(size)]
    assert sorted(map(len, kinds)) == [1] * 5 and {True} in kinds and {False} in kinds
    assert kinds != sorted(kinds, key=str) or kinds[0] != {True}                # they come by turns, as the draw has it
    assert all(int(order[place]) == row for row, place in zip(*map(torch.Tensor.tolist, kept), strict=True))
    assert draws.apart((order, flips), (50,), 8)[0] is order


def test_without_a_painter_there_is_one_kind():
    labels = torch.tensor([4, 5, 4, 0, 1])
    assert paint.kinds(None, labels, range(4, 6)) == (5,) and paint.kinds(Painter(6, 1, 2, 0), labels[:3], range(4, 6)) == (3,)
    assert paint.kinds(Painter(6, 1, 2, 0), labels, range(4, 6)) == (3, 2)

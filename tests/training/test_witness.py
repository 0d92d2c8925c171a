"""What the live network said when each step ended: recorded, kept over a kill, and the same as the rebuilt models say."""
import pytest
import torch
from conftest import small_config, stop_after

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.training import train, witness


def furthest(live, past, step, method):
    """How far the rebuilt model of a step is from what the live one said."""
    shown = ClassStream.of_run(small_config(method)).test_images[list(live.rows)]
    return live.furthest(step, witness.logits_of(past.reconstruct(step), shown))


@pytest.mark.parametrize("method", ["finetune", "m2kd"])
def test_every_rebuilt_model_says_what_the_live_one_said(method, finished):
    folder, metrics = finished(method)
    past, live = Snapshots.load(folder / "snapshots.safetensors"), witness.Witness.load(folder / witness.FILE)
    assert len(live.rows) == witness.WATCHED and len(live.logits) == len(past) == 3
    for step, result in enumerate(metrics["steps"], 1):
        assert live.logits[step - 1].shape == (witness.WATCHED, result["classes_seen"])
        assert furthest(live, past, step, method) == 0


def test_another_model_is_seen(finished):
    folder, _ = finished("m2kd")
    past, live = Snapshots.load(folder / "snapshots.safetensors"), witness.Witness.load(folder / witness.FILE)
    name, weight = next(iter(past.weights.items()))
    weight[past.masks[name] == 2] *= 1.001
    assert furthest(live, past, 1, "m2kd") == 0 and furthest(live, past, 2, "m2kd") > 0


def test_a_run_that_was_stopped_remembers_what_was_said(finished, tmp_path):
    folder, _ = finished("m2kd")
    stop_after(61, small_config("m2kd"), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoint").iterdir()) and not (tmp_path / "run" / witness.FILE).exists()
    train.run(small_config("m2kd"), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / witness.FILE).read_bytes() == (folder / witness.FILE).read_bytes()


@pytest.mark.parametrize("spoil, where", [
    (lambda tensors: tensors.pop("live/step001"), "live/step001"),
    (lambda tensors: tensors.update({"live/step001": torch.zeros(witness.WATCHED, 3)}), "live/step001"),
    (lambda tensors: tensors.update({"live/step009": torch.zeros(witness.WATCHED, 4)}), "live/step009")])
def test_a_checkpoint_with_other_words_is_refused(spoil, where, tmp_path):
    stop_after(31, small_config("lwf-mc"), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoint").glob("state-*"):
        tensors, notes = storage.load_tensors(path)
        if notes["models"]:
            spoil(tensors)
            storage.save_tensors(path, tensors, notes)
        else:
            path.unlink()
    with pytest.raises(DamagedFile, match=f"not a checkpoint of this run .{where}"):
        train.run(small_config("lwf-mc"), tmp_path / "run", resume=True)


def test_what_is_no_witness_is_told(tmp_path, finished):
    with pytest.raises(BadInput):
        witness.Witness.load(tmp_path / "none.safetensors")
    good = dict(tensors={"step001": torch.zeros(2, 4)}, notes={"rows": [0, 5]})
    for tensors, notes in [({"step002": torch.zeros(2, 4)}, good["notes"]), (good["tensors"], {}), (good["tensors"], {"rows": [0]}),
                           (good["tensors"], {"rows": [0, -1]}), ({"step001": torch.zeros(2, 4, dtype=torch.int64)}, good["notes"])]:
        storage.save_tensors(tmp_path / "odd.safetensors", tensors, notes)
        with pytest.raises(DamagedFile, match="odd.safetensors: not what a live network said"):
            witness.Witness.load(tmp_path / "odd.safetensors")
    storage.save_tensors(tmp_path / "good.safetensors", **good)
    assert witness.Witness.load(tmp_path / "good.safetensors").rows == (0, 5)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 3000])
def test_the_watched_images_are_spread_evenly(count):
    rows = witness.rows_of(count)
    assert len(rows) == min(count, witness.WATCHED) == len(set(rows)) and rows[0] == 0 and max(rows) < count
    assert max(rows) >= count - 1 - count // len(rows)

"""Snapshots on disk: round trips, the byte ledger, and files that were tampered with."""
import math
import os

import pytest
import torch
import zstandard

from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method import masks, snapshots
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import Snapshots, ledger


def history(backbone="resnet8", steps=3, classes=4, ratio=0.75, pruned=True):
    """Snapshots of a network that is redrawn, pruned and remembered at each step, as training would leave it."""
    generator = torch.Generator().manual_seed(0)
    net = IncrementalNet(backbone, 3, True, seed=0)
    past = Snapshots(backbone, 3, True, notes={"class_names": ["a"]})
    owners = masks.new_masks(net.convolutions()) if pruned else {}
    for step in range(1, steps + 1):
        net.grow_heads(step * classes, step)
        with torch.no_grad():
            for name, weight in net.convolutions().items():
                fresh = torch.randn(weight.shape, generator=generator)
                weight.copy_(torch.where(masks.free(owners[name]), fresh, weight) if pruned else fresh)
        owners = masks.prune(net.convolutions(), owners, step, ratio) if pruned else {}
        past.add(net, owners)
    return past


@pytest.mark.parametrize("pruned", [True, False])
def test_a_file_holds_every_model(tmp_path, pruned):
    past = history(pruned=pruned)
    past.save(tmp_path / "s.safetensors")
    back = Snapshots.load(tmp_path / "s.safetensors")
    assert len(back) == 3 and back.notes == past.notes
    for step in (1, 2, 3):
        a, b = past.state(step), back.state(step)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)


def test_a_model_does_not_see_later_weights():
    past = history()
    name = next(iter(past.weights))
    first = past.state(1)[name].clone()
    past.weights[name][past.masks[name] > 1] = 99.0
    assert torch.equal(past.state(1)[name], first)
    assert (past.state(2)[name] == 99.0).any()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    digests = {history().save(tmp_path / f"{i}.safetensors") for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_no_such_step():
    with pytest.raises(BadInput, match="--step 4: not allowed; give a whole number from 1 to 3"):
        history().reconstruct(4)


def test_ledger_by_hand():
    past = history()
    conv, norm = 74_160, 2 * (16 * 3 + 32 * 2 + 64 * 2) * 2      # batch norm: weight, bias, mean, variance
    main, auxiliary = 64 + 1, 32 + 1                             # floats a class
    out = ledger(past, "one weight set and a mask")
    assert out["weights"] == 4 * conv
    assert 0 < out["batch_norm"] < 3 * 4 * norm                  # packed: less than the floats themselves
    raw = 4 * (main * (4 + 8 + 12) + auxiliary * (4 + 4 + 4))    # the auxiliary head for each step's own classes
    assert 0.8 * raw < out["heads"] < 0.95 * raw
    assert out["total"] == sum(out[part] for part in ("weights", "mask", "batch_norm", "heads", "exemplars"))
    whole = ledger(history(pruned=False), "snapshots")
    assert whole["weights"] == 3 * 4 * conv and whole["mask"] == 0
    assert ledger(history(pruned=False), "none")["weights"] == 4 * conv         # LwF-MC carries one network
    assert ledger(history(pruned=False), "all images", 500)["exemplars"] == 500


def test_the_ledger_is_what_lies_on_disk(tmp_path):
    from safetensors import safe_open
    past = history()
    past.save(tmp_path / "s.safetensors")
    out = ledger(past, "one weight set and a mask")
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name).nbytes for name in file.keys()}
    for component in ("mask", "batch_norm", "heads"):
        assert sum(stored.pop(f"step{step:03d}/{component}") for step in (1, 2, 3)) == out[component]
    assert sum(stored.pop(name) for name in list(stored) if name.startswith("weights/")) == out["weights"]
    assert list(stored) == ["shared/pixel_mean", "shared/pixel_std"]
    assert out["total"] < os.path.getsize(tmp_path / "s.safetensors") < out["total"] + 3_000


@pytest.mark.parametrize("ratio, within", [(0.6, 1.03), (0.75, 1.03), (0.8, 1.03), (0.9, 1.035)])
def test_the_mask_is_stored_near_its_entropy(ratio, within):
    past = history("resnet32", steps=10, classes=2, ratio=ratio)
    binary = -(ratio * math.log2(ratio) + (1 - ratio) * math.log2(1 - ratio))
    entropy_bytes = 461_232 * binary * (1 - ratio**10) / (1 - ratio) / 8
    assert ledger(past, "one weight set and a mask")["mask"] < within * entropy_bytes


def test_ten_steps_of_resnet32_add_less_than_420_kilobytes_on_disk(tmp_path):
    """With batch norm and heads of noise, which packs worse than what was trained."""
    sizes = {}
    for steps in (1, 10):
        past = history("resnet32", steps=steps, classes=10)
        generator = torch.Generator().manual_seed(1)
        for part in past.parts:
            for tensor in part.values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        past.save(tmp_path / "s.safetensors")
        sizes[steps] = os.path.getsize(tmp_path / "s.safetensors")
    assert sizes[10] - sizes[1] <= 420_000


def test_a_step_never_changes_what_earlier_steps_stored():
    tensors = history(steps=3).to_tensors()[0]
    before = history(steps=2).to_tensors()[0]
    frames = [name for name in before if name.startswith("step")]
    assert len(frames) == 6 and all(torch.equal(before[name], tensors[name]) for name in frames)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    path = tmp_path / "s.safetensors"
    history().save(path)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    places = [*range(0, header, header // 60), *range(header, len(good), len(good) // 60), len(good) - 1]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(DamagedFile, match="s.safetensors"):
            Snapshots.load(path)
    for length in (0, 1, 7, 8, 100, header, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(DamagedFile):
            Snapshots.load(path)


def test_hostile_files_are_refused(tmp_path):
    import pickle
    path = tmp_path / "s.safetensors"
    for raw in (pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(100), b"\xff" * 64, b"{}", (2**60).to_bytes(8, "little") + b"{}"):
        path.write_bytes(raw)
        with pytest.raises(DamagedFile):
            Snapshots.load(path)
    storage.save_tensors(path, {"x": torch.zeros(1)}, {"anything": "else"})         # ours, but not snapshots
    with pytest.raises(DamagedFile, match="not a snapshots file"):
        Snapshots.load(path)


@pytest.mark.parametrize("frame", ["step001/mask", "step002/mask", "step003/batch_norm", "step001/heads"])
@pytest.mark.parametrize("content", [bytes(10_000_000), b"", b"short"])
def test_a_frame_that_unpacks_to_another_size_is_refused(frame, content, tmp_path):
    tensors, notes = history().to_tensors()
    tensors[frame] = torch.frombuffer(bytearray(zstandard.ZstdCompressor().compress(content)), dtype=torch.uint8)
    storage.save_tensors(tmp_path / "s.safetensors", tensors, notes)
    with pytest.raises(DamagedFile, match="not a snapshots file.*a frame says it holds"):
        Snapshots.load(tmp_path / "s.safetensors")


@pytest.mark.parametrize("change", [
    {"format": "m2kd-lite snapshots 1"}, {"classes": "ab"}, {"classes": [4, 8, -1]}, {"masked": False},
    {"backbone": "resnet99"}, {"backbone": "../../etc"}, {"channels": 2}, {"channels": "three"}, {"auxiliary": False}])
def test_notes_that_do_not_fit_are_refused(change, tmp_path):
    tensors, notes = history().to_tensors()
    storage.save_tensors(tmp_path / "s.safetensors", tensors, notes | change)
    with pytest.raises(DamagedFile, match="s.safetensors: not a snapshots file|of step"):
        Snapshots.load(tmp_path / "s.safetensors").reconstruct(3)


def test_snapshots_format_says_what_it_is():
    tensors, notes = history().to_tensors()
    assert notes["format"] == snapshots.FORMAT and repr(history()) == "Snapshots(resnet8, 3 steps, one weight set and a mask)"

"""Snapshots on disk: round trips, the byte ledger, and files that were tampered with."""
import math
import os

import pytest
import torch

from m2kd_lite import masks, snapshots, storage
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.nets import IncrementalNet
from m2kd_lite.snapshots import Snapshots, ledger


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
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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
    head = lambda classes: (64 + 1 + 32 + 1) * classes           # noqa: E731  main and auxiliary rows with their biases
    out = ledger(past, "one weight set and a mask")
    assert out["weights"] == 4 * conv
    assert out["batch_norm"] == 3 * 4 * norm
    assert out["heads"] == 4 * (head(4) + head(8) + head(12))
    assert out["total"] == sum(out[part] for part in ("weights", "mask", "batch_norm", "heads", "exemplars"))
    whole = ledger(history(pruned=False), "snapshots")
    assert whole["weights"] == 3 * 4 * conv and whole["mask"] == 0
    assert ledger(history(pruned=False), "none")["weights"] == 4 * conv         # LwF-MC carries one network
    assert ledger(history(pruned=False), "all images", 500)["exemplars"] == 500


def test_the_mask_is_stored_near_its_entropy():
    past = history("resnet32", steps=10, classes=10)
    weights, ratio, steps = 461_232, 0.75, 10
    binary = -(ratio * math.log2(ratio) + (1 - ratio) * math.log2(1 - ratio))
    entropy_bytes = weights * binary * (1 - ratio**steps) / (1 - ratio) / 8
    assert ledger(past, "one weight set and a mask")["mask"] < 1.03 * entropy_bytes


def test_the_file_is_the_ledger_and_a_small_header(tmp_path):
    past = history()
    past.save(tmp_path / "s.safetensors")
    size = os.path.getsize(tmp_path / "s.safetensors")
    total = ledger(past, "one weight set and a mask")["total"]
    assert total < size < total + 12_000


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


def test_a_mask_frame_that_unpacks_to_more_than_its_shapes_is_refused(tmp_path):
    import zstandard
    past = history()
    tensors, notes = past.to_tensors()
    bomb = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    tensors["masks"] = torch.frombuffer(bytearray(bomb), dtype=torch.uint8)
    storage.save_tensors(tmp_path / "s.safetensors", tensors, notes)
    with pytest.raises(DamagedFile):
        Snapshots.load(tmp_path / "s.safetensors")


def test_snapshots_format_says_what_it_is():
    tensors, notes = history().to_tensors()
    assert notes["format"] == snapshots.FORMAT and repr(history()) == "Snapshots(resnet8, 3 steps, one weight set and a mask)"

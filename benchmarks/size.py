"""What ten incremental steps add to `snapshots.safetensors`, beside the paper's Table 2; and what checkpoints cost.

An upper bound that needs no training: owners drawn at random at the pruning ratio, batch norm and heads of noise. What was trained
repeats itself more, and packs to less. The bytes are those on disk.
"""
from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import table
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.method import masks
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import Snapshots, ledger
from m2kd_lite.training.rundir import RunFolder
from m2kd_lite.training.state import State

STEPS, RATIO = 10, 0.75
# Table 2, MB: what the last step stores beyond the first.
PAPER = {"resnet32": {"M2KD": 0.84, "iCaRL": 9.4}, "resnet18": {"M2KD": 9.80, "iCaRL": 68.0}}
GOALS = {"resnet32": 420_000, "resnet18": 5_000_000}


def entropy_bytes(weights: int, ratio: float, steps: int) -> float:
    """The least that a mask can take: each step answers for every weight still free whether it is its own."""
    binary = -(ratio * math.log2(ratio) + (1 - ratio) * math.log2(1 - ratio))
    return weights * binary * (1 - ratio**steps) / (1 - ratio) / 8


def ten_steps(backbone: str) -> Snapshots:
    """Ten models of ten classes each, of noise."""
    draws = torch.Generator().manual_seed(0)
    net = IncrementalNet(backbone, 3, True, seed=0)
    past, owners = Snapshots(backbone, 3, True), masks.new_masks(net.convolutions())
    for step in range(1, STEPS + 1):
        net.grow_heads(10 * step, step)
        with torch.no_grad():
            for tensor in net.state_dict().values():
                tensor.copy_(torch.randn(tensor.shape, generator=draws))
        owners = masks.prune(net.convolutions(), owners, step, RATIO)
        past.add(net, owners)
    return past


def size_on_disk(past: Snapshots, folder: Path) -> int:
    """Bytes of the file."""
    past.save(folder / "measured.safetensors")
    return os.path.getsize(folder / "measured.safetensors")


def checkpoint_seconds(past: Snapshots, folder: Path) -> float:
    """What a run writes every 30 seconds: the live network, its momenta and masks, but not the past models again."""
    net = past.reconstruct(len(past))
    momenta = {name: torch.randn_like(parameter) for name, parameter in net.named_parameters()}
    state = State(net, past, torch.zeros((), dtype=torch.float64), past.masks, momenta)
    with RunFolder(folder, RunConfig.make({}), resume=False) as run:
        for state.serial in (1, 2, 3):
            tensors, notes = state.to_tensors()
            begun = time.perf_counter()
            run.save_checkpoint(tensors, notes, past)
    return time.perf_counter() - begun


def rows() -> Iterator[Row]:
    """Both networks of the paper."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for backbone, title in (("resnet32", "ResNet-32"), ("resnet18", "ResNet-18")):
            past, memory = ten_steps(backbone), "one weight set and a mask"
            one, ten = size_on_disk(past.first(1), folder), size_on_disk(past, folder)
            before, after = ledger(past.first(1), memory), ledger(past, memory)
            paper = PAPER[backbone]
            yield Row(f"{title}, ten steps: bytes added to the file", ten - one, "bytes", f"<= {GOALS[backbone]}",
                      f"Table 2: M2KD {paper['M2KD']} MB, iCaRL {paper['iCaRL']} MB")
            for part in ("mask", "batch_norm", "heads"):
                a_step = [round(frames[part].numel() / 1000) for frames in past.frames()]
                yield Row(f"  {part.replace('_', ' ')}", after[part] - before[part], "bytes", "",
                          f"kB of steps 1-{STEPS}: {' '.join(map(str, a_step))}")
            yield Row("  header of the file", ten - one - (after["total"] - before["total"]), "bytes")
            weights = sum(mask.numel() for mask in past.masks.values())
            yield Row("  mask over its entropy", after["mask"] / entropy_bytes(weights, RATIO, STEPS), "x", "<= 1.03",
                      f"{after['mask']:,} bytes for {weights:,} weights, step 1 included")
            seconds = checkpoint_seconds(past, folder / backbone)
            yield Row("  a checkpoint every 30 s, of the wall time", 100 * seconds / 30, "%", "<= 1", f"{1000 * seconds:.0f} ms")


if __name__ == "__main__":
    table.main(rows)

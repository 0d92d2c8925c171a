"""What a sweep will cost, said before it starts: about how long, about how many bytes.

Time is the number of images that each cell passes through its network, times the seconds that one took in a short
measurement here. Bytes are what the files hold before they are packed. Called by `cli.py` and `sweep.py`.
"""
from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import torch

from m2kd_lite.config import RunConfig
from m2kd_lite.method import losses
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.table import METHODS
from m2kd_lite.sweeps.spec import Cell, Plan
from m2kd_lite.training.device import prepare_device
from m2kd_lite.training.loop import TrainingData, Update
from m2kd_lite.training.progress import in_words

MEASURED_SECONDS = 0.3
MEASURED_BATCH = 32         # at most: a batch of large images would take as long as the rest of the preparation
# A kernel's start, its imports, figures and the check at the end: 6 to 8 s on a machine with two cores.
NOTEBOOK_SECONDS = 7.0
NOTEBOOK_BYTES = 400_000
_BYTES = 4                  # a weight


def seconds(cells: Iterable[Cell], threads: int) -> dict[str, float]:
    """About how long each cell takes by itself, by its key, as measured on this machine with `threads` threads.

    Raises
    ------
    BadInput : a cell asks for a device that is not here.
    """
    known: dict[tuple, float] = {}
    estimates = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cell in cells:
            config = cell.config
            kind = (config.backbone, cell.image_shape, METHODS[config.method].auxiliary, config.device, config.precision,
                    min(config.batch_size, MEASURED_BATCH))
            if kind not in known:
                known[kind] = _seconds_an_image(config, cell.image_shape, kind[-1])
            estimates[cell.key] = NOTEBOOK_SECONDS + cell.passes * known[kind]
    finally:
        torch.set_num_threads(before)
    return estimates


def _seconds_an_image(config: RunConfig, shape: tuple[int, int, int], batch: int) -> float:
    """Real updates of a fresh network on noise, for a moment."""
    device, precision = prepare_device(config)
    method, classes = METHODS[config.method], config.class_batch
    net = IncrementalNet(config.backbone, shape[0], method.auxiliary, 0).to(device).train()
    net.grow_heads(classes, 1)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    targets = torch.zeros(2, batch, classes, device=device)
    images = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, device=device)

    def objective(logits, auxiliary_logits, main_targets, auxiliary_targets, labels):
        main = method.main_loss(logits, main_targets, classes)
        if auxiliary_logits is None:
            return main
        return losses.total_loss(main, method.auxiliary_loss(auxiliary_logits, auxiliary_targets, labels, config.alpha, classes), 1.0)

    update = Update(net, TrainingData(images, labels, targets, targets[:, :, :0]), objective, batch_size=batch, frozen={},
                    momenta={name: torch.zeros_like(weight) for name, weight in net.named_parameters()},
                    loss_sum=torch.zeros((), dtype=torch.float64, device=device), momentum=config.momentum, weight_decay=0.0,
                    precision=precision)
    rows = torch.arange(batch, device=device)
    updates, begun = -1, time.monotonic()
    while updates < 1 or time.monotonic() - begun < MEASURED_SECONDS:
        update(rows, labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        updates += 1
        if updates == 0:                # the first one sets things up
            begun = time.monotonic()
    return (time.monotonic() - begun) / updates / batch


def disk_bytes(cell: Cell) -> int:
    """About how much a finished cell holds: every model whole, or one of them and a mask, before packing."""
    method = METHODS[cell.config.method]
    net = IncrementalNet(cell.config.backbone, cell.image_shape[0], method.auxiliary, 0)
    weights = sum(weight.numel() for weight in net.parameters()) * _BYTES
    shared = sum(weight.numel() for weight in net.convolutions().values()) * _BYTES if method.prunes else 0
    heads = net.backbone.final_width * max(cell.config.class_batch, cell.config.first_class_batch or 0) * cell.steps * _BYTES
    return NOTEBOOK_BYTES + cell.steps * (weights - shared + heads) + 5 * shared // _BYTES


def count(cells: int) -> str:
    """"1 cell", "2 cells"."""
    return f"{cells} cell" + ("s" if cells != 1 else "")


def announce(plan: Plan, todo: Sequence[Cell], estimates: Mapping[str, float] | None, workers: int | None) -> str:
    """One line: how many cells there are and are to be run, about how many bytes, about how long.

    `workers` is None for a cluster, whose size is not known.
    """
    same = f" ({plan.same} more would be the same)" if plan.same else ""
    there = len(plan.cells) - len(todo)
    told = f"{count(len(plan.cells))}{same}" + (f", {there} of them finished already" if there else "")
    if not todo:
        return told
    told += f"; to run: {len(todo)}, about {max(1, round(sum(map(disk_bytes, todo)) / 1e6)):,} MB"
    if estimates is None:
        return f"{told}; no estimate of time, for their device is not here"
    times = [estimates[cell.key] for cell in todo]
    if workers is None:
        return f"{told}, about {in_words(sum(times))} of one worker as fast as a core of this machine"
    return f"{told}, about {in_words(max(sum(times) / workers, max(times)))} with {workers} at once"

"""What teachers cost: nothing at a training step, however many they are, because their answers are computed once a step.

The reference asks every teacher again for every batch. Both loops share the network, the losses, the optimizer and the
memory layout; only the teachers differ. A whole run is put together from batches timed at each incremental step: so many
images of CIFAR-100 in so many epochs, and for our loop one filling of the target matrix. `--whole` runs one for real.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch

from benchmarks import table, work
from benchmarks.table import Row
from benchmarks.work import CLASSES, EPOCHS
from m2kd_lite.config import RunConfig
from m2kd_lite.method import targets
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.training.device import prepare_device
from m2kd_lite.training.loop import TrainingData, Update

BATCH, PER_CLASS = 128, 500


class AskingUpdate(Update):
    """The same update, but the soft targets of a batch come from the teachers, asked there and then."""

    def __init__(self, *arguments, teachers: list[tuple[IncrementalNet, range]], **options):
        self._teachers = teachers
        super().__init__(*arguments, **options)

    def _targets(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        main, auxiliary = super()._targets(images)
        with torch.no_grad():
            for teacher, columns in self._teachers:
                own = slice(columns.start, columns.stop)
                logits, auxiliary_logits = teacher(images)
                main[:, own] = torch.sigmoid(logits[:, own])
                auxiliary[:, own] = torch.sigmoid(auxiliary_logits[:, own])
        return main, auxiliary


def columns_of(step: int, class_batch: int) -> list[range]:
    """The columns of steps 1..step."""
    return [range(start, start + class_batch) for start in range(0, step * class_batch, class_batch)]


def past(step: int, class_batch: int) -> list[tuple[IncrementalNet, range]]:
    """The models of steps 1..step-1, each with the columns it fills."""
    return [(work.new_net("resnet32", columns.stop, auxiliary=True, seed=k).eval().requires_grad_(False), columns)
            for k, columns in enumerate(columns_of(step, class_batch)[:-1], 1)]


def fill(data: TrainingData, teachers: list[tuple[IncrementalNet, range]], classes: int) -> None:
    """One filling of the target matrices, as `train.py` does it."""
    plan = [(k, columns) for k, (_, columns) in enumerate(teachers, 1)]
    targets.target_matrix(plan, lambda k: teachers[k - 1][0], data.images, data.labels, classes)


def options_of(net: IncrementalNet) -> dict:
    """What an update is given beside the network, the data and the objective."""
    return dict(batch_size=BATCH, frozen={}, momenta={n: torch.zeros_like(p) for n, p in net.named_parameters()},
                loss_sum=torch.zeros((), dtype=torch.float64), momentum=0.9, weight_decay=0.0, precision="fp32")


def seconds_at(step: int, class_batch: int, times: int) -> tuple[float, float, float]:
    """Seconds an image at an incremental step: of our update, of the asking one, and of filling the targets once."""
    classes = step * class_batch
    data = work.training_data(2 * BATCH, classes, classes - class_batch)
    teachers = past(step, class_batch)
    net = work.new_net("resnet32", classes, auxiliary=True)
    ours = Update(net, data, work.objective, **options_of(net))
    theirs = AskingUpdate(net, data, work.objective, teachers=teachers, **options_of(net))
    took = [work.seconds_of(work.batches(update, 2 * BATCH, BATCH), times) / BATCH for update in (ours, theirs)]
    begun = time.perf_counter()
    fill(data, teachers, classes)
    return *took, (time.perf_counter() - begun) / (2 * BATCH)


def whole_run(class_batch: int, times: int = 2) -> float:
    """The reference's seconds over ours, a run of CIFAR-100's size, put together from what each step takes."""
    ours = theirs = 0.0
    images = class_batch * PER_CLASS
    for step in range(1, CLASSES // class_batch + 1):
        update, asking, filling = seconds_at(step, class_batch, times)
        ours += images * (EPOCHS * update + filling)
        theirs += images * EPOCHS * asking
    return theirs / ours


def whole_run_for_real(class_batch: int) -> tuple[float, float]:
    """Seconds of both loops over all steps and epochs, one batch an epoch, nothing put together."""
    took = {Update: 0.0, AskingUpdate: 0.0}
    for step in range(1, CLASSES // class_batch + 1):
        classes, teachers = step * class_batch, past(step, class_batch)
        for kind in took:
            data, net = work.training_data(BATCH, classes, classes - class_batch), work.new_net("resnet32", classes, auxiliary=True)
            extra = {"teachers": teachers} if kind is AskingUpdate else {}
            begun = time.perf_counter()
            if kind is Update:
                fill(data, teachers, classes)
            one = work.batches(kind(net, data, work.objective, **options_of(net), **extra), BATCH, BATCH)
            for epoch in range(EPOCHS):
                one(epoch)
            took[kind] += time.perf_counter() - begun
    return took[Update], took[AskingUpdate]


def rows() -> Iterator[Row]:
    """The price of 19 teachers at a training step, then whole runs."""
    prepare_device(RunConfig.make({"device": "cpu"}))
    first, last = [], []
    for _ in range(3):                      # by turns
        first.append(seconds_at(1, 5, 8)[0])
        last.append(seconds_at(20, 5, 8)[0])
    yield Row("an image at step 20 (19 teachers) over one at step 1", min(last) / min(first), "x", "<= 1.05", "ResNet-32, batch 128")
    for class_batch, goal in ((5, ">= 3.5"), (10, ">= 2.2"), (20, ">= 1.5")):
        yield Row(f"teachers in every batch over ours, {class_batch}-class batches", whole_run(class_batch), "x", goal,
                  f"{EPOCHS} epochs of {PER_CLASS} images a class, from batches timed at each step")
    if "--whole" in sys.argv:
        ours, theirs = whole_run_for_real(20)
        yield Row("the same, 20-class batches, run to the end", theirs / ours, "x", ">= 1.5",
                  f"one batch an epoch; {theirs:.0f} s and {ours:.0f} s")


if __name__ == "__main__":
    table.main(rows)

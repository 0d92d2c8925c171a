"""What the speed benchmarks train: images of CIFAR-100's geometry, targets, and the library's own update on them."""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from m2kd_lite.method import losses
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.training.loop import TrainingData, Update

CLASSES = 100           # of the whole stream
EPOCHS = 95             # section 4.1: 80, and 15 after the prune


def new_net(backbone: str, classes: int, auxiliary: bool, device: str = "cpu", seed: int = 0) -> IncrementalNet:
    """A network with heads for `classes`, in train mode."""
    net = IncrementalNet(backbone, 3, auxiliary, seed)
    net.grow_heads(classes, 1)
    return net.to(device).train()


def training_data(count: int, classes: int, old: int, size: int = 32, device: str = "cpu") -> TrainingData:
    """Noise of the right shapes: what is in the images does not change what they cost."""
    draws = torch.Generator().manual_seed(0)
    return TrainingData(*(part.to(device) for part in (
        torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draws),
        torch.randint(old, classes, (count,), generator=draws),
        torch.rand(2, count, classes, generator=draws), torch.rand(2, count, old, generator=draws))))


def objective(logits: Tensor, auxiliary_logits: Tensor | None, main_targets: Tensor, auxiliary_targets: Tensor,
              labels: Tensor) -> Tensor:
    """Eq. 4, as `train.py` puts it together."""
    main = losses.distillation_loss(logits, main_targets, CLASSES)
    if auxiliary_logits is None:
        return main
    return losses.total_loss(main, losses.auxiliary_loss(auxiliary_logits, auxiliary_targets, labels, 0.5, CLASSES), 1.0)


def new_update(net: IncrementalNet, data: TrainingData, batch_size: int, frozen: dict[str, Tensor] | None = None,
               precision: str = "fp32", rate: float = 0.01) -> Update:
    """The library's update, ready to be called."""
    update = Update(net, data, objective, batch_size=batch_size, frozen=frozen or {},
                    momenta={name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()},
                    loss_sum=torch.zeros((), dtype=torch.float64, device=data.images.device), momentum=0.9, weight_decay=0.0,
                    precision=precision)
    update.set_rate(rate)
    return update


def seconds_of(work: Callable[[int], None], times: int, device: str = "cpu") -> float:
    """Seconds a call, over `times` calls after two that are not counted."""
    for number in (0, 1):
        work(number)
    synchronize(device)
    begun = time.perf_counter()
    for number in range(times):
        work(number)
    synchronize(device)
    return (time.perf_counter() - begun) / times


def synchronize(device: str) -> None:
    """Wait for what a GPU was asked to do."""
    if device != "cpu":
        torch.cuda.synchronize()


def batches(update: Update, count: int, batch_size: int, device: str = "cpu") -> Callable[[int], None]:
    """Calls `update` on one batch after another, drawn as the library draws them."""
    draws = torch.Generator().manual_seed(0)
    order = torch.randperm(count, generator=draws).to(device)
    flips = torch.randint(0, 2, (count,), generator=draws).to(device)

    def one(number: int) -> None:
        start = number % (count // batch_size) * batch_size
        update(order[start:start + batch_size], flips[start:start + batch_size])
    return one


def in_fresh_processes(module: str, ways: list[str], rounds: int, environments: dict[str, dict[str, str]]) -> dict[str, float]:
    """Median of what `python -m MODULE --way WAY` prints, the ways taken in turns so that all meet the same weather.

    `environments` has what a way adds to the environment; the C library's own settings reach no other.
    """
    said: dict[str, list[float]] = {way: [] for way in ways}
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    for _ in range(rounds):
        for way in ways:
            run = subprocess.run([sys.executable, "-m", module, "--way", way], capture_output=True, text=True,
                                 env=plain | environments.get(way, {}))
            if run.returncode:
                raise SystemExit(f"{module} --way {way}: {run.stderr}")
            said[way].append(float(run.stdout.split()[-1]))
    return {way: statistics.median(values) for way, values in said.items()}

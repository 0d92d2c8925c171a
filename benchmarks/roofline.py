"""How near the training of ResNet-32 comes to what this processor can do at all.

Two ceilings are measured: multiplications a second (a large matrix product) and bytes a second (a sum of arrays too large for
the nearest caches). Each operation of a training step needs a known number of both; the larger of the two times is its floor. The sum of
the floors is the floor of a step whose operations run one after the other, each touching its operands in memory once.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import table, work
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.training.device import prepare_device

BATCH = 128
# (name in the table, the profiler's names of it)
KINDS = {"convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
         "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
         "ReLU": ("aten::clamp_min_", "aten::threshold_backward", "aten::relu_"),
         "shortcuts": ("aten::add", "aten::add_")}


@dataclass(frozen=True)
class Ceilings:
    """Of this machine: multiply-and-add operations (2 flops each) and bytes, a second."""

    flops: float
    bytes: float

    def floor(self, flops: float, moved: float) -> float:
        """Seconds that an operation takes at least."""
        return max(flops / self.flops, moved / self.bytes)


def best_of(work_once, times: int) -> float:
    """The shortest of some tries, in seconds: a ceiling is what the machine can do when left alone."""
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        work_once()
        best = min(best, time.perf_counter() - begun)
    return best


def measured_ceilings() -> Ceilings:
    """A 3072 x 3072 product; and c = a + b on arrays of 8 MB, the size of ResNet-32's larger feature maps."""
    size = 3072
    a, b = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)
    flops = 2 * size**3 / best_of(lambda: torch.mm(a, b, out=product), 6)
    # Sixteen triples in turn, 400 MB in all, so that none is still in a nearby cache when its turn comes again.
    triples = [[torch.randn(2 * 2**20) for _ in range(3)] for _ in range(16)]

    def add_all() -> None:
        for x, y, out in triples:
            torch.add(x, y, out=out)
    return Ceilings(flops, 16 * 3 * 8 * 2**20 / best_of(add_all, 6))


def floors(ceilings: Ceilings) -> dict[str, float]:
    """Seconds a training step of ResNet-32 takes at least, by kind of operation.

    Reads and writes of a feature map of m bytes: batch norm forward 3m (read twice: for the statistics, to normalise),
    backward 5m (x and dy twice, dx); ReLU in place 2m, backward 3m; a shortcut 3m, and 3m where its gradient is added.
    A convolution moves what it reads and writes, in each of its three products.
    """
    spent = dict.fromkeys(KINDS, 0.0)
    net = work.new_net("resnet32", 20, auxiliary=False)
    shapes = []
    hooks = [module.register_forward_hook(lambda module, inputs, output: shapes.append((module, inputs[0].shape, output.shape)))
             for module in net.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d))]
    net(torch.zeros(BATCH, 3, 32, 32, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    for module, came, went in shapes:
        size_in, size_out = 4 * came.numel(), 4 * went.numel()
        if isinstance(module, torch.nn.BatchNorm2d):
            spent["batch norm"] += ceilings.floor(0, 8 * size_out)
            spent["ReLU"] += ceilings.floor(0, 5 * size_out)                # one ReLU a batch norm; in half the cases after the sum
            spent["shortcuts"] += ceilings.floor(0, 6 * size_out) / 2       # one shortcut to two batch norms
        else:
            flops = 2 * went.numel() * module.weight[0].numel()
            products = 2 if came[1] == 3 else 3                             # no gradient for the images themselves
            spent["convolutions"] += products * ceilings.floor(flops, size_in + size_out)
    return spent


os.environ.setdefault("KINETO_LOG_LEVEL", "5")         # the profiler speaks to those who debug it


def profiled(update, times: int = 6) -> dict[str, float]:
    """Seconds a step spends on each kind of operation, as the profiler sees it, and on everything."""
    one = work.batches(update, 20 * BATCH, BATCH)
    for number in range(3):
        one(number)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for number in range(times):
            one(number)
    averages = {entry.key: entry.self_cpu_time_total / times / 1e6 for entry in seen.key_averages()}
    spent = {kind: sum(averages.get(name, 0.0) for name in names) for kind, names in KINDS.items()}
    return spent | {"everything": sum(averages.values())}


def rows() -> Iterator[Row]:
    """The ceilings, the floor, where we stand, and what stands between."""
    prepare_device(RunConfig.make({"device": "cpu"}))
    before = measured_ceilings()
    update = work.new_update(work.new_net("resnet32", 20, auxiliary=False), work.training_data(20 * BATCH, 20, 0), BATCH)
    one = work.batches(update, 20 * BATCH, BATCH)
    step = min(work.seconds_of(one, 8) for _ in range(4))
    after = measured_ceilings()             # the machine is shared: take the better of before and after
    ceilings = Ceilings(max(before.flops, after.flops), max(before.bytes, after.bytes))
    least = floors(ceilings)
    floor = sum(least.values())
    yield Row("matrix product, fp32", ceilings.flops / 1e9, "GFLOP/s", "", f"{torch.get_num_threads()} threads")
    yield Row("sum of arrays", ceilings.bytes / 1e9, "GB/s")
    yield Row("ResNet-32 at the floor", BATCH / floor, "images/s", "", f"{1000 * floor:.0f} ms a batch of {BATCH}")
    yield Row("ResNet-32 as we train it", BATCH / step, "images/s", "", f"{1000 * step:.0f} ms")
    yield Row("our rate over the floor's", floor / step, "x", ">= 0.6", "fp32")
    spent = profiled(update)
    for kind in KINDS:
        yield Row(f"  {kind}: floor's time over ours", least[kind] / spent[kind], "x", "",
                  f"{1000 * spent[kind]:.0f} ms, {100 * spent[kind] / spent['everything']:.0f} % of a step")
    rest = spent["everything"] - sum(spent[kind] for kind in KINDS)
    yield Row("  everything else", 100 * rest / spent["everything"], "%", "", "gathering, losses, SGD, Python")


if __name__ == "__main__":
    table.main(rows)

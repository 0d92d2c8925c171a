"""Training on one GPU: the update as one CUDA graph, beside eager loops, in three precisions, and several runs packed.

    python -m benchmarks.gpu

Without a CUDA device it says so, and measures nothing.
"""
from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from benchmarks import table, work
from benchmarks.loop import PilImages
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.method import nets
from m2kd_lite.training.device import autocast, prepare_device
from m2kd_lite.training.loop import Update

BATCH, SEEN, OLD, PACKED = 128, 40, 20, 8
DEVICE = "cuda"


def rate_of_ours(backbone: str, size: int, precision: str, times: int, graph: bool = True) -> float:
    """Images a second of the library's update; without `graph`, the same lines eagerly."""
    prepare_device(RunConfig.make({"device": DEVICE, "precision": precision}))
    if not graph:
        real, Update._record = Update._record, lambda update: update._update
    count = 20 * BATCH
    data = work.training_data(count, SEEN, OLD, size, DEVICE)
    net = work.new_net(backbone, SEEN, auxiliary=True, device=DEVICE)
    frozen = {name: torch.rand(weight.shape, device=DEVICE) < 0.5 for name, weight in net.convolutions().items()}
    update = work.new_update(net, data, BATCH, frozen, precision)
    if not graph:
        Update._record = real
    return BATCH / work.seconds_of(work.batches(update, count, BATCH, DEVICE), times, DEVICE)


def rate_with_data_loader(times: int, precision: str) -> float:
    """A conventional loop: PIL transforms in 8 workers, one transfer a batch, everything eager."""
    prepare_device(RunConfig.make({"device": DEVICE, "precision": precision}))
    data = work.training_data(200 * BATCH, SEEN, OLD)
    net = work.new_net("resnet32", SEEN, auxiliary=True, device=DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def forever():
        loader = torch.utils.data.DataLoader(PilImages(data), BATCH, shuffle=True, drop_last=True, num_workers=8,
                                             persistent_workers=True, pin_memory=True)
        while True:
            yield from loader
    loader = forever()

    def one(_: int) -> None:
        images, labels = next(loader)
        images, labels = images.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
        with autocast(torch.device(DEVICE), precision):
            logits, auxiliary_logits = net(images)
        one_hot = F.one_hot(labels, SEEN).float()
        loss = work.objective(logits, auxiliary_logits, one_hot, one_hot[:, :OLD], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return BATCH / work.seconds_of(one, times, DEVICE)


def rate_together(precision: str, count: int) -> float:
    """Images a second of `count` processes on this GPU, added up."""
    start = str(time.time() + 45)       # all have started and recorded their graphs by then
    processes = [subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", "--packed", precision, start],
                                  stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def one_of_several(precision: str, start: float, seconds: float = 10) -> float:
    """The rate of this process, between a moment agreed upon and some seconds later."""
    prepare_device(RunConfig.make({"device": DEVICE, "precision": precision}))
    data = work.training_data(20 * BATCH, SEEN, OLD, device=DEVICE)
    update = work.new_update(work.new_net("resnet32", SEEN, auxiliary=True, device=DEVICE), data, BATCH, precision=precision)
    one = work.batches(update, 20 * BATCH, BATCH, DEVICE)
    one(0)
    work.synchronize(DEVICE)
    time.sleep(max(0.0, start - time.time()))
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for number in range(20):
            one(number)
        work.synchronize(DEVICE)
        done += 20
    return done * BATCH / (time.perf_counter() - begun)


def rows() -> Iterator[Row]:
    """ResNet-32 at 32 x 32, ResNet-18 at 224 x 224, packing."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here; nothing measured", file=sys.stderr)
        return
    name = torch.cuda.get_device_name()
    best, best_precision = 0.0, ""
    for precision in ("fp32", "tf32", "bf16"):
        for layout in (torch.channels_last, torch.contiguous_format):
            nets.MEMORY_FORMAT = layout
            rate = rate_of_ours("resnet32", 32, precision, 400)
            yield Row(f"ResNet-32, batch 128, one graph, {precision}, {str(layout).removeprefix('torch.')}", rate, "images/s", "", name)
            if layout == torch.channels_last and rate > best:
                best, best_precision = rate, precision
    nets.MEMORY_FORMAT = torch.channels_last
    yield Row(f"the best of them in channels last ({best_precision})", best, "images/s", ">= 100000")
    yield Row("  over an eager loop with a DataLoader", best / rate_with_data_loader(150, best_precision), "x", ">= 3", "8 workers")
    yield Row("  over an eager loop with the data on the GPU",
              best / rate_of_ours("resnet32", 32, best_precision, 150, graph=False), "x", ">= 2")
    for precision in ("tf32", "bf16"):
        yield Row(f"ResNet-18, 224 x 224, batch 128, one graph, {precision}", rate_of_ours("resnet18", 224, precision, 40),
                  "images/s", ">= 9000" if precision == "bf16" else "")
    yield Row(f"{PACKED} runs on one GPU over one", rate_together(best_precision, PACKED) / rate_together(best_precision, 1), "x", ">= 2.5", best_precision)


if __name__ == "__main__":
    if "--packed" in sys.argv:
        print(one_of_several(sys.argv[-2], float(sys.argv[-1])))
    else:
        table.main(rows)

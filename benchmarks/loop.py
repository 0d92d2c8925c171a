"""Our training loop beside a conventional one, and each choice that makes it fast measured alone.

The conventional loop is what class-incremental toolboxes do: a DataLoader with two workers and PIL transforms, the teacher
run in every batch, channels-first memory, the default optimizer. Both train ResNet-32 on batches of 128 by LwF-MC.
Every way is measured in fresh processes, by turns.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from benchmarks import table, work
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.method import nets, targets
from m2kd_lite.training import loop
from m2kd_lite.training.device import bf16_here, prepare_device, processor_name

BATCH, IMAGES, OLD, SEEN = 128, 2560, 20, 40
PRECISIONS = ("bf16", "bf16-compiled")                          # beside fp32; the second needs a C++ compiler
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}       # as in the Makefile


class PilImages(torch.utils.data.Dataset):
    """Images as they come from a folder, but already decoded: only the transforms are paid for."""

    def __init__(self, data: work.TrainingData):
        from PIL import Image
        from torchvision import transforms
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data.images]
        self.labels = data.labels.tolist()
        self.transform = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                                             transforms.Normalize((0.5,) * 3, (0.25,) * 3)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), self.labels[index]


def conventional(data: work.TrainingData, times: int) -> float:
    """Seconds a batch of the conventional loop."""
    def logits(net, images):
        return net.main(net.backbone(images)[1].mean((2, 3)))

    def forever():
        while True:
            yield from torch.utils.data.DataLoader(PilImages(data), BATCH, shuffle=True, drop_last=True, num_workers=2)

    nets.MEMORY_FORMAT = torch.contiguous_format
    net, teacher = work.new_net("resnet32", SEEN, auxiliary=False), work.new_net("resnet32", OLD, auxiliary=False).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loader = forever()

    def one(_: int) -> None:
        images, labels = next(loader)
        wanted = F.one_hot(labels, SEEN).float()
        with torch.no_grad():
            wanted[:, :OLD] = torch.sigmoid(logits(teacher, images))
        loss = F.binary_cross_entropy_with_logits(logits(net, images), wanted, reduction="sum") / (BATCH * work.CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return work.seconds_of(one, times)


def ours(data: work.TrainingData, times: int, precision: str = "fp32") -> float:
    """Seconds a batch of our loop; each image's share of one filling of the targets in EPOCHS epochs included."""
    net = work.new_net("resnet32", SEEN, auxiliary=False)
    teacher = work.new_net("resnet32", OLD, auxiliary=False).eval()
    some = slice(0, 512)

    def fill(_: int) -> None:
        targets.target_matrix([(1, range(OLD))], lambda step: teacher, data.images[some], data.labels[some], SEEN)
    filling = work.seconds_of(fill, 2) * BATCH / 512
    update = work.new_update(net, data, BATCH, precision=precision)
    return work.seconds_of(work.batches(update, IMAGES, BATCH), times) + filling / work.EPOCHS


def separate_optimizer(kind: str) -> None:
    """Have `Update` use another kind of SGD, which reads its rate as a number."""
    real = loop.sgd

    def other(*tensors, lr, **options):
        real(*tensors, lr=float(lr), **(options | {"fused": False, "foreach": kind == "foreach"}))
    loop.sgd = other


def seconds(way: str, times: int = 12) -> float:
    """Seconds a batch in this process, one thing changed."""
    data = work.training_data(IMAGES, SEEN, OLD)
    precision = way if way in PRECISIONS else "fp32"
    if way == "conventional":
        return conventional(data, times)
    if way == "kept denormals":
        torch.set_flush_denormal(False)
    else:
        prepare_device(RunConfig.make({"device": "cpu", "precision": precision}))
    if way == "channels first":
        nets.MEMORY_FORMAT = torch.contiguous_format
    if way == "one thread":
        torch.set_num_threads(1)
    if way in ("foreach", "one by one"):
        separate_optimizer(way)
    return ours(data, times, precision)


def rows() -> Iterator[Row]:
    """The ratio that counts, then what each choice is worth."""
    alone = ["channels first", "one thread", "foreach", "one by one", "kept denormals", "huge pages"]
    took = work.in_fresh_processes("benchmarks.loop", ["conventional", "ours", *PRECISIONS, *alone], rounds=3,
                                   environments={"huge pages": HUGE_PAGES})
    rate = {way: BATCH / value for way, value in took.items()}
    yield Row("conventional loop, LwF-MC, ResNet-32, batch 128", rate["conventional"], "images/s")
    yield Row("our loop, the same", rate["ours"], "images/s", "", f"{torch.get_num_threads()} threads, fp32")
    yield Row("our loop over the conventional one", rate["ours"] / rate["conventional"], "x", ">= 2.2")
    yield Row("  the same under make (huge pages)", rate["huge pages"] / rate["conventional"], "x", ">= 2.2")
    picks, why = bf16_here()
    yield Row("  the same in bf16", rate["bf16"] / rate["conventional"], "x")
    yield Row("our loop in bf16", rate["bf16"], "images/s", "", processor_name())
    yield Row("our loop in bf16 over fp32", rate["bf16"] / rate["ours"], "x", "", f"--precision auto takes {'bf16' if picks else 'fp32'}: {why}")
    yield Row("our loop in bf16-compiled over bf16", rate["bf16-compiled"] / rate["bf16"], "x")
    yield Row("channels last over channels first", rate["ours"] / rate["channels first"], "x")
    yield Row("all threads over one", rate["ours"] / rate["one thread"], "x")
    yield Row("fused SGD over foreach", rate["ours"] / rate["foreach"], "x")
    yield Row("fused SGD over one parameter at a time", rate["ours"] / rate["one by one"], "x")
    yield Row("flushed denormals over kept ones, fresh weights", rate["ours"] / rate["kept denormals"], "x")
    yield Row("huge pages over small ones", rate["huge pages"] / rate["ours"], "x", "", HUGE_PAGES["GLIBC_TUNABLES"])
    yield from slow_creep()


def slow_creep() -> Iterator[Row]:
    """Whether denormals creep in: the rate after 2000 updates over the rate after 50, nine weights in ten frozen."""
    prepare_device(RunConfig.make({"device": "cpu"}))
    batch, data = 16, work.training_data(512, SEEN, OLD)
    net = work.new_net("resnet32", SEEN, auxiliary=True)
    draws = torch.Generator().manual_seed(0)
    frozen = {name: torch.rand(weight.shape, generator=draws) < 0.9 for name, weight in net.convolutions().items()}
    one = work.batches(work.new_update(net, data, batch, frozen, rate=0.1), 512, batch)
    for number in range(50):
        one(number)
    early = work.seconds_of(one, 100)
    for number in range(2000 - 152):
        one(number)
    late = work.seconds_of(one, 100)
    yield Row("rate at update 2000 over that at 50, 90 % frozen", early / late, "x", ">= 0.95", "ResNet-32, batch 16")


if __name__ == "__main__":
    if "--way" in sys.argv:
        print(seconds(sys.argv[-1]))
    else:
        table.main(rows)

"""What waiting threads cost others: runs beside each other on one machine, by how long an OpenMP thread spins before it sleeps.

ResNet-8 in batches of 32, whose parallel pieces are so short that threads wait often. GNU's OpenMP takes the number of turns from
GOMP_SPINCOUNT; m2kd_lite sets it to 1000 unless somebody has said something else.
"""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks import table, work
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.training.device import prepare_device, processor_name

BATCH, IMAGES, SEEN = 32, 640, 20
# 300,000 is what GNU's OpenMP does if nothing is said.
WAYS = {"as OpenMP has it": {"GOMP_SPINCOUNT": "300000"}, "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
        "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"}, "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"}}
ROUNDS, UPDATES = 2, 300


def images_per_second() -> float:
    """Of one training in this process."""
    prepare_device(RunConfig.make({"device": "cpu"}))
    data = work.training_data(IMAGES, SEEN, 0)
    update = work.new_update(work.new_net("resnet8", SEEN, auxiliary=True), data, BATCH)
    return BATCH / work.seconds_of(work.batches(update, IMAGES, BATCH), UPDATES)


def together(count: int, environment: dict[str, str]) -> float:
    """Images a second of `count` trainings at once, added up."""
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.sharing", "--one"]
    running = [subprocess.Popen(command, env=plain | environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(process.communicate()[0]) for process in running)


def rows() -> Iterator[Row]:
    """Alone and two at once, the ways by turns."""
    best = {(way, count): 0.0 for way in WAYS for count in (1, 2)}
    for _ in range(ROUNDS):
        for way, count in best:
            best[way, count] = max(best[way, count], together(count, WAYS[way]))
    for (way, count), rate in best.items():
        yield Row(f"{'one training' if count == 1 else 'two at once'}, {way}", rate, "images/s", "", f"{torch.get_num_threads()} cores, {processor_name()}")
    yield Row("two at once, GOMP_SPINCOUNT=1000 over as OpenMP has it",
              best["GOMP_SPINCOUNT=1000", 2] / best["as OpenMP has it", 2], "x")
    yield Row("one alone, GOMP_SPINCOUNT=1000 over as OpenMP has it", best["GOMP_SPINCOUNT=1000", 1] / best["as OpenMP has it", 1], "x")


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(images_per_second())
    else:
        table.main(rows)

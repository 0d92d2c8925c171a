"""What starting costs: imports in fresh interpreters, and the command line's help.

The imports are timed inside the interpreter, without its own start, and compared pair by pair in turn with `import torch`.
"""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks import table
from benchmarks.table import Row

PAIRS = 7


def seconds_to_import(module: str) -> tuple[float, set[str]]:
    """(seconds, the modules loaded by it) of an import in a fresh interpreter."""
    code = (f"import sys, time; had = set(sys.modules); began = time.perf_counter(); import {module}; "
            "print(time.perf_counter() - began, *(set(sys.modules) - had))")
    seconds, *loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), set(loaded)


def over_torch(module: str, goal: str) -> Row:
    """The ratio to `import torch`: the median over pairs taken one after the other."""
    torch_seconds, seconds = [], []
    for _ in range(PAIRS):
        torch_seconds.append(seconds_to_import("torch")[0])
        taken, loaded = seconds_to_import(module)
        seconds.append(taken)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds, torch_seconds, strict=True))
    note = (f"median of {PAIRS} pairs, {statistics.median(seconds):.2g} s and {statistics.median(torch_seconds):.2g} s; "
            f"loads {len(loaded)} modules, torch {'' if 'torch' in loaded else 'not '}among them")
    return Row(f"import {module} over import torch", ratio, "x", goal, note)


RUN = """
{first}
import os, tempfile
from m2kd_lite.config import RunConfig
from m2kd_lite.training import train
with tempfile.TemporaryDirectory() as folder:
    train.run(RunConfig.make(dict(method="m2kd", dataset="digits", class_batch=5, profile="smoke")), folder)
print(os.times().user + os.times().system)
"""
SPARED = "import torch._dynamo, torchvision, sklearn.datasets"


def cpu_seconds_of_a_run(first: str = "") -> float:
    """CPU time of a process that trains for a second or two on one thread, after the imports `first`."""
    done = subprocess.run([sys.executable, "-c", RUN.format(first=first)], check=True, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    return float(done.stdout.split()[-1])


def help_seconds() -> float:
    """Wall clock of `m2kd-lite --help`, the interpreter's start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "m2kd_lite.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def rows() -> Iterator[Row]:
    """Importing the package, importing what trains, a run of seconds, and the help."""
    seconds_to_import("torch"), seconds_to_import("m2kd_lite.training.train")          # the files once from the disk, not timed
    yield over_torch("m2kd_lite", "<= 1.2")
    yield over_torch("m2kd_lite.training.train", "")
    pairs = [(cpu_seconds_of_a_run(), cpu_seconds_of_a_run(SPARED)) for _ in range(PAIRS)]
    yield Row("a run of seconds over one that loads what it does not use", statistics.median(ours / all_of_it for ours, all_of_it in pairs), "x", "",
              f"CPU time of a process, {statistics.median(ours for ours, _ in pairs):.2g} s; {SPARED.removeprefix('import ')}")
    help_seconds()
    yield Row("m2kd-lite --help", statistics.median(help_seconds() for _ in range(PAIRS)), "s", "<= 1", f"median of {PAIRS}")


if __name__ == "__main__":
    table.main(rows)

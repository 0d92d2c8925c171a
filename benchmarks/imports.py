"""What starting costs: imports in fresh interpreters, and the command line's help.

The imports are timed inside the interpreter, without its own start, and compared pair by pair in turn with `import torch`.
"""
from __future__ import annotations

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


def help_seconds() -> float:
    """Wall clock of `m2kd-lite --help`, the interpreter's start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "m2kd_lite.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def rows() -> Iterator[Row]:
    """Importing the package, importing what trains, and the help."""
    seconds_to_import("torch"), seconds_to_import("m2kd_lite.training.train")          # the files once from the disk, not timed
    yield over_torch("m2kd_lite", "<= 1.2")
    yield over_torch("m2kd_lite.training.train", "")
    help_seconds()
    yield Row("m2kd-lite --help", statistics.median(help_seconds() for _ in range(PAIRS)), "s", "<= 1", f"median of {PAIRS}")


if __name__ == "__main__":
    table.main(rows)

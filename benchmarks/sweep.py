"""What several workers gain: the same cells of a sweep with one worker a core, and with one worker."""
from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import joblib

from benchmarks import table
from benchmarks.table import Row
from m2kd_lite.sweeps import sweep
from m2kd_lite.sweeps.spec import Plan, plan

# A cell takes some 20 s on one core, a third of it the kernel's start and the notebook's figures.
SPEC = "base: {{dataset: digits, class_batch: 5, profile: quick, method: finetune}}\ngrid: {{seed: {seeds}}}\n"


def rows() -> Iterator[Row]:
    """Two cells a core: with one worker a core; with one of one thread; with one of as many threads as cores."""
    cores = joblib.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC.format(seeds=list(range(2 * cores))))
        cells = plan(spec)
        many = _seconds(cells, Path(folder) / "many", workers=cores, threads=1)
        single = _seconds(cells, Path(folder) / "single", workers=1, threads=1)
        wide = _seconds(cells, Path(folder) / "wide", workers=1, threads=cores)
    note = f"{len(cells.cells)} cells, {cores} cores; {many:.0f} s against "
    yield Row("a sweep: one worker a core over one worker of one thread", single / many, "x", ">= 1.8" if cores == 2 else "",
              f"{note}{single:.0f} s")
    yield Row("a sweep: one worker a core over one worker with all threads", wide / many, "x", "", f"{note}{wide:.0f} s")


def _seconds(cells: Plan, out: Path, workers: int, threads: int) -> float:
    begun = time.monotonic()
    sweep.run(cells, out, sweep.Place(functools.partial(sweep.processes, workers, threads)))
    return time.monotonic() - begun


if __name__ == "__main__":
    table.main(rows)

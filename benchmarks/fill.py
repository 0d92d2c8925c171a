"""Fills the results banks by real runs: `python -m benchmarks.fill BANK [--workers N]`.

A bank is a list of runs and a table, data/results/BANK.csv. What is in the table is left; what is missing is trained, one
thread a run, as many runs at once as there are cores, and written after each run. It can be stopped and called again.
Run it from a clean checkout: each row names the revision that made it.
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from m2kd_lite import bank
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import LayerExhausted

SEEDS = (0, 1, 2)
M2KD = "m2kd-no-pruning"

# As in lessons 01 to 04: four steps of 25 drawn characters, 7 epochs each, ResNet-8.
LESSON = dict(class_batch=25, epochs=7)
# The demonstration of lesson 00: two steps of five digits.
DEMONSTRATION = dict(dataset="digits", class_batch=5)

# (variant, settings), where a variant other than "" is no plain row of methods.py; see `method_of`.
LESSONS = (
    ("", LESSON | dict(method="finetune")),
    ("all classes at once", LESSON | dict(method="finetune", class_batch=100)),
    ("", LESSON | dict(method="lwf-mc")),
    ("", LESSON | dict(method=M2KD)),
    ("no auxiliary head", LESSON | dict(method=M2KD)),
    ("", LESSON | dict(method=M2KD, alpha=0.0)),
    ("", LESSON | dict(method=M2KD, alpha=2.0)),
    ("", LESSON | dict(method=M2KD, lambda_aux=0.3)),
    ("", DEMONSTRATION | dict(method="finetune")),
    ("", DEMONSTRATION | dict(method="lwf-mc")),
)
# Every method, class batch and pruning ratio with the profile `quick`, to be looked at together. Not every ratio lasts for
# every number of steps: the first layer of ResNet-8 has 432 weights for images in colour.
GRID = (
    *(("", dict(method="m2kd", class_batch=20, pruning_ratio=ratio)) for ratio in (0.8, 0.6, 0.7, 0.75, 0.9)),
    *(("", dict(method=method, class_batch=20)) for method in ("finetune", "lwf-mc", M2KD)),
    *(("", dict(method=method, class_batch=batch)) for batch in (50, 10, 5) for method in ("finetune", "lwf-mc", M2KD)),
    *(("", dict(method="m2kd", class_batch=batch, pruning_ratio=ratio))
      for batch in (50, 10, 5) for ratio in (0.8, 0.6, 0.7, 0.75, 0.9)),
    *(("", dict(method="joint", class_batch=batch)) for batch in (50, 20, 10, 5)),
)
BANKS = {"lessons": LESSONS, "glyphs_grid": GRID}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", choices=BANKS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    path = Path("data") / "results" / f"{asked.bank}.csv"
    table = bank.load(path) if path.exists() else None
    rows = [] if table is None else table.to_dict("records")
    there = {bank.key(row) for row in rows}
    wanted = [(variant, RunConfig.make(settings | {"seed": seed})) for seed in SEEDS for variant, settings in BANKS[asked.bank]]
    wanted.sort(key=lambda run: run[1].method == "joint")           # the dearest last
    missing = [run for run in wanted if bank.key({"variant": run[0], **run[1].model_dump()}) not in there]
    print(f"{asked.bank}: {len(wanted) - len(missing)} of {len(wanted)} runs are there", flush=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}       # read by the workers when they load torch
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(measure, *run) for run in missing]), 1):
            try:
                new = future.result()
            except LayerExhausted as error:
                print(f"{done}/{len(missing)} cannot be run: {error}", flush=True)
                continue
            rows += new
            bank.save(sorted(rows, key=order), path)
            print(f"{done}/{len(missing)} {' '.join(map(str, bank.key(new[0])))}: "
                  f"average {new[0]['average_incremental_accuracy']:.1f} %", flush=True)


def measure(variant: str, config: RunConfig) -> list[dict]:
    """One run in a temporary folder, as rows."""
    from m2kd_lite import train
    with tempfile.TemporaryDirectory() as folder:
        return bank.rows(train.run(config, Path(folder) / "run", method=method_of(variant, config.method)), variant)


def method_of(variant: str, name: str):
    """The row of methods.py, changed as the variant says."""
    from m2kd_lite.methods import METHODS
    return replace(METHODS[name], auxiliary=False) if variant == "no auxiliary head" else METHODS[name]


def order(row: dict) -> tuple:
    """Rows of a table as a reader looks for them."""
    return (row["dataset"], row["precision"], row["class_batch"], row["method"], row["variant"], row["pruning_ratio"],
            row["alpha"], row["lambda_aux"], row["seed"], row["step"])


if __name__ == "__main__":
    sys.exit(main())

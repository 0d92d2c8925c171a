"""The results bank of the lessons' own setting: every run that a lesson speaks of, with three seeds.

`python -m benchmarks.lessons` trains what is missing under runs/lessons/ and writes data/results/lessons.csv. About half
an hour on two idle cores. What the lessons say about "each seed" is read from that file.
"""
from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from m2kd_lite import bank, train
from m2kd_lite.config import RunConfig
from m2kd_lite.methods import METHODS, Method

FOLDER, TABLE = Path("runs/lessons"), Path("data/results/lessons.csv")
SEEDS = (0, 1, 2)
# As in lessons 01 to 04: four steps of 25 drawn characters, 7 epochs each, ResNet-8.
SETTING = dict(class_batch=25, epochs=7)
M2KD = METHODS["m2kd-no-pruning"]

# Name of the variant ("" for a plain row of methods.py): settings, method.
RUNS: tuple[tuple[str, dict, Method], ...] = (
    ("", dict(method="finetune"), METHODS["finetune"]),
    ("all classes at once", dict(method="finetune", class_batch=100), METHODS["finetune"]),
    ("", dict(method="lwf-mc"), METHODS["lwf-mc"]),
    ("", dict(method="m2kd-no-pruning"), M2KD),
    ("no auxiliary head", dict(method="m2kd-no-pruning"), replace(M2KD, auxiliary=False)),
    ("", dict(method="m2kd-no-pruning", alpha=0.0), M2KD),
    ("", dict(method="m2kd-no-pruning", alpha=2.0), M2KD),
    ("", dict(method="m2kd-no-pruning", lambda_aux=0.3), M2KD),
    # The demonstration of lesson 00: two steps of five digits.
    ("", dict(method="finetune", dataset="digits", class_batch=5, epochs=10), METHODS["finetune"]),
    ("", dict(method="lwf-mc", dataset="digits", class_batch=5, epochs=10), METHODS["lwf-mc"]),
)


def main() -> None:
    """Train what is missing, then write the table."""
    seeds = [int(seed) for seed in sys.argv[1:]] or list(SEEDS)
    rows = []
    for seed in seeds:
        for variant, settings, method in RUNS:
            config = RunConfig.make(SETTING | settings | {"seed": seed})
            name = "-".join([*map(str, settings.values()), *variant.split(), f"seed{seed}"])
            metrics = train.run(config, FOLDER / name, resume=True, method=method)
            print(f"{name}: average {metrics['average_incremental_accuracy']:.1f} %", flush=True)
            rows += bank.rows(metrics, variant)
    if seeds == list(SEEDS):
        bank.save(rows, TABLE)


if __name__ == "__main__":
    main()

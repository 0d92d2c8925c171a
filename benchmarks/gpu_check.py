"""Before a borrowed GPU is trusted: does it learn what the CPU learns, and how many runs at once does it serve best?

    python -m benchmarks.gpu_check [--device cuda] [--workers]

The same runs, seconds long, are made on the CPU and on the device, where the whole update is one recorded graph. Sums in another order
differ in their last bits, and training carries that on: so losses are compared closely in step 1, accuracies loosely at the end.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import joblib

from m2kd_lite.config import RunConfig
from m2kd_lite.training import train

METHODS = ("finetune", "m2kd", "icarl", "rwalk", "scaled")      # every kind of row that the update has a branch for
LOSS, POINTS = 0.05, 12.0               # how far apart: of the loss after step 1, relative; of the average accuracy of ten images a class
PACKED = (1, 2, 4, 8)
HELPS = 1.15                            # a larger number at once is worth it if the rate grows by this much


def differences(method: str, device: str, folder: Path) -> tuple[float, float]:
    """How far the device is from the CPU: relative, of the loss of step 1; in points, of the average accuracy."""
    settings = dict(method=method, dataset="digits", class_batch=4, profile="smoke", epochs=6, train_per_class=40, test_per_class=20, batch_size=16)
    cpu, here = (train.run(RunConfig.make(settings | {"device": kind}), folder / f"{method}-{i}") for i, kind in enumerate(("cpu", device)))
    first = [content["steps"][0]["loss"] for content in (cpu, here)]
    averages = [content["average_incremental_accuracy"] for content in (cpu, here)]
    return abs(first[1] / first[0] - 1), abs(averages[1] - averages[0])


def workers_that_help(device: str) -> int:
    """One a core on a CPU; on a GPU the smallest number beyond which the rate of all together hardly grows."""
    if device == "cpu":
        return joblib.cpu_count()
    from benchmarks.gpu import rate_together
    best, rate = 1, rate_together("bf16", 1)
    for count in PACKED[1:]:
        wider = rate_together("bf16", count)
        if wider < HELPS * rate:
            break
        best, rate = count, wider
    return best


def main() -> int:
    """Print the comparison, or the number of workers; 1 where the device is too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", action="store_true", help="print how many runs at once help, and nothing else")
    asked = parser.parse_args()
    if asked.workers:
        print(workers_that_help(asked.device))
        return 0
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            loss, points = differences(method, asked.device, Path(folder))
            fine = loss <= LOSS and points <= POINTS
            wrong += not fine
            print(f"{method:10} loss of step 1 {100 * loss:.2g} % apart, average accuracy {points:.1f} points: {'fine' if fine else 'TOO FAR'}", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

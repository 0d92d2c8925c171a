"""What an implementation of iCaRL can get wrong without noticing: each mistake by itself, made on purpose.

`python -m benchmarks.fill traps` measures what each is worth on CIFAR-100 at the size of a lesson; `python -m benchmarks.traps RUN`
asks a finished run of iCaRL again, with the mistakes that need no training.
"""
from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import exemplars, metrics, targets
from m2kd_lite.method.table import METHODS
from m2kd_lite.results import bank
from m2kd_lite.training import recompute
from m2kd_lite.training.rundir import FinishedRun, read_run

UNSEEN = "means of unseen classes take part"
UPRIGHT = "class means without mirror images"
TRAIN_MODE = "teachers in train mode"
DECIDED = (UNSEEN, UPRIGHT)             # after training; a finished run can be asked again
TEACHER_BATCH = 32                      # images whose statistics a teacher in train mode takes: the batch of the profile `quick`


def asked_again(run: FinishedRun, variant: str) -> list[dict]:
    """The rows of a bank that a finished run would have with one of `DECIDED`, or as it is with "". Without the confusion: with
    `UNSEEN`, an image may be taken for a class that nobody has seen.
    """
    with decision(variant):
        found = recompute.again(run, ClassStream.of_run(run.config))
    return [row | {bank.CONFUSION: ""} for row in bank.rows(found, variant)]


@contextlib.contextmanager
def decision(variant: str) -> Iterator[None]:
    """The nearest class mean, decided as the variant says."""
    with contextlib.ExitStack() as stack:
        if variant == UPRIGHT:
            stack.enter_context(mock.patch.object(exemplars, "class_means", lambda net, images, labels, classes: exemplars.means_of(
                exemplars.normalised_features(net, images), labels, classes)))
        elif variant == UNSEEN:
            stack.enter_context(mock.patch.object(exemplars, "nearest", nearest_with_the_origin))
            stack.enter_context(mock.patch.object(metrics, "step_results", results_without_unseen(metrics.step_results)))
        yield


def nearest_with_the_origin(features: Tensor, means: Tensor, top: int = 5) -> Tensor:
    """`exemplars.nearest` with a mean at the origin for a class to come, whose number is the next: at distance 1 from all features, which
    have length 1, it is as near as a mean at a cosine of one half."""
    with torch.autocast(features.device.type, enabled=False):
        cosines = torch.cat([features @ means.T, features.new_full((len(features), 1), 0.5)], dim=1)
    return cosines.topk(min(top, len(means)), dim=1).indices


def results_without_unseen(real):
    """`metrics.step_results`, for which a class to come counts as a wrong one of those seen."""
    def results(best: Tensor, labels: Tensor, columns) -> dict:
        wrong = (labels[:, None] + 1) % columns[-1].stop
        return real(torch.where(best == columns[-1].stop, wrong, best), labels, columns)
    return results


def teachers_in_train_mode(plan, teacher_of, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """`targets.target_matrix` by teachers whose batch norm takes the statistics of the images it is asked about, in random batches."""
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    with mock.patch.object(targets, "BATCH", TEACHER_BATCH):
        main, auxiliary = targets.target_matrix(plan, lambda step: teacher_of(step).train(), images[drawn], labels[drawn], classes)
    back = drawn.argsort()
    return main[:, back], auxiliary[:, back]


def main() -> None:
    """Print what a finished run of iCaRL would have had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = read_run(parser.parse_args().run)
    if METHODS[run.config.method].decision != "nearest class mean":
        parser.error(f"{run.path}: not a run of iCaRL, but of {run.config.method}")
    for variant in ("", *DECIDED):
        rows = asked_again(run, variant)
        steps = " ".join(f"{row['top1']:5.1f}" for row in rows)
        print(f"{variant or 'as it is':36} {steps}   average {rows[0]['average_incremental_accuracy']:.1f} %")


if __name__ == "__main__":
    sys.exit(main())

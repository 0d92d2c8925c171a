"""Exercises on what a whole run amounts to: average incremental accuracy, and forgetting (`metrics.py`).

The numbers are chosen so that each known mistake gives a result of its own: the best accuracy is neither the first nor
the last one, and one step's classes got better.
"""
from __future__ import annotations

import statistics
from collections.abc import Callable

from m2kd_lite.checks.engine import Case, Exercise, Mistake, Outcome
from m2kd_lite.method import metrics

METRIC = "section 4 of iCaRL (Rebuffi et al. 2017), whose metric this is; the paper shows accuracies by step instead"
FORGETTING = "Eq. 3 of Chaudhry et al. (2018), Riemannian Walk, where the measure comes from"


def _given(*arguments) -> Callable[[], tuple]:
    return lambda: arguments


AVERAGE = Exercise(
    name="average_incremental_accuracy", reference=metrics.average_incremental_accuracy,
    returns="one Python number, in per cent", look=METRIC, tolerance=1e-5,
    cases=(
        Case("five steps", _given([70.0, 82.0, 55.0, 41.0, 47.5])),
        Case("two steps", _given([90.0, 61.0])),
        Case("a single step", _given([88.0])),
    ),
    mistakes=(
        Mistake("this is the last accuracy: what a run ends with, not what it was like on the way", METRIC,
                lambda top1: top1[-1]),
        Mistake("this is the first accuracy, from before anything could be forgotten", METRIC, lambda top1: top1[0]),
        Mistake("this is the best accuracy of the run; every step counts, the poor ones too", METRIC, max),
        Mistake("the accuracies are added up, but not shared out over the steps", METRIC, sum),
        Mistake("the first step is left out. Some later papers do that; iCaRL, which this paper follows, does not",
                METRIC, lambda top1: sum(top1[1:]) / len(top1[1:])),
        Mistake("shared out over one step too few", METRIC, lambda top1: sum(top1) / (len(top1) - 1)),
        Mistake("this is a fraction between 0 and 1; accuracies here are percentages and stay so", METRIC,
                lambda top1: sum(top1) / len(top1) / 100),
        Mistake("later steps weigh more than earlier ones, as if by their number of classes; each step counts once",
                METRIC, lambda top1: sum(k * a for k, a in enumerate(top1, 1)) / sum(range(1, len(top1) + 1))),
        Mistake("this is the median, which does not notice how far the other steps are off", METRIC, statistics.median),
        Mistake("the decimals are gone: was the division one of whole numbers, or the result rounded?", METRIC,
                lambda top1: sum(top1) // len(top1)),
    ))


def _falls(rows: list[list[float]], earlier: Callable[[list[float]], float]) -> list[float]:
    """Per earlier step: what `earlier` makes of its accuracies before the last row, less the last one."""
    return [earlier([row[j] for row in rows[j:-1]]) - rows[-1][j] for j in range(len(rows) - 1)]


def _breaks_off(got: Outcome) -> bool:
    """An average over nothing: Python raises, numpy and torch give NaN."""
    return isinstance(got.error, (ZeroDivisionError, ValueError)) or got.value != got.value


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


FORGET = Exercise(
    name="forgetting", reference=metrics.forgetting, returns="one Python number, in percentage points",
    look=FORGETTING, tolerance=1e-5,
    cases=(
        Case("four steps, each forgotten in part",
             _given([[80.0], [84.0, 90.0], [75.0, 60.0, 85.0], [60.0, 56.0, 70.0, 88.0]])),
        Case("a step whose classes got better", _given([[80.0], [86.0, 64.0], [50.0, 71.0, 90.0]])),
        Case("a single step, which can have forgotten nothing", _given([[91.0]])),
    ),
    mistakes=(
        Mistake("measured from the first accuracy of each step's classes; they may have been better later on", FORGETTING,
                lambda rows: _mean(_falls(rows, lambda before: before[0]))),
        Mistake("measured from the step just before the last; what was lost earlier goes unseen", FORGETTING,
                lambda rows: _mean(_falls(rows, lambda before: before[-1]))),
        Mistake("measured from the average of the earlier accuracies; forgetting asks how good it has ever been", FORGETTING,
                lambda rows: _mean(_falls(rows, _mean))),
        Mistake("a step that got better counts as 0. Its forgetting is negative: is the last row among those that the best "
                "is taken from, or is the fall cut off at 0?", FORGETTING,
                lambda rows: _mean([max(fall, 0.0) for fall in _falls(rows, max)])),
        Mistake("shared out over all steps; the last step's own classes cannot have been forgotten yet, and do not count",
                FORGETTING, lambda rows: sum(_falls(rows, max)) / len(rows)),
        Mistake("the last step counts twice over: its row is among those that the best is taken from, and its own classes "
                "are among the steps that are averaged", FORGETTING,
                lambda rows: sum(max(fall, 0.0) for fall in _falls(rows, max)) / len(rows)),
        Mistake("the sign is turned round: forgetting is positive when accuracy has fallen", FORGETTING,
                lambda rows: -_mean(_falls(rows, max))),
        Mistake("the falls are added up, but not averaged over the earlier steps", FORGETTING,
                lambda rows: sum(_falls(rows, max))),
        Mistake("this is the worst fall of all; forgetting is the average one", FORGETTING,
                lambda rows: max(_falls(rows, max), default=0.0)),
        Mistake("this is what the first step's classes have lost; the other earlier steps count too", FORGETTING,
                lambda rows: _mean(_falls(rows, max)[:1])),
        Mistake("this is a fraction; accuracies here are percentages, and falls are percentage points", FORGETTING,
                lambda rows: _mean(_falls(rows, max)) / 100),
        Mistake("a single step has no earlier one to average over, and the function breaks off there", FORGETTING,
                sign=lambda got, expected: expected.value == 0 and _breaks_off(got)),
    ))

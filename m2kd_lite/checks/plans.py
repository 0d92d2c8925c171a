"""Exercises on the plan of a step: which model fills which columns (`targets.py`, Eq. 1 and Eq. 2).

Steps have unequal numbers of classes, so that a plan that assumes one number shows. A plan is read column by column:
the order of its pairs, and how a model's columns are cut into ranges, are free.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from m2kd_lite.checks.engine import Case, Exercise, Mistake
from m2kd_lite.method import targets

EQ_1 = "Eq. 1, section 3.1"
EQ_2 = "Eq. 2, section 3.1"
COLUMNS = (range(0, 3), range(3, 5), range(5, 10), range(10, 11))


def _who_fills(plan: Any, arguments: tuple) -> Any:
    """Per column the models that fill it: plans that come to the same are the same, in whatever order they are written."""
    try:
        filled = {"models asked": ", ".join(map(str, sorted({int(step) for step, _ in plan})))}
        for step, columns in plan:
            if not (isinstance(plan, (list, tuple)) and isinstance(step, Integral) and isinstance(columns, range)):
                return plan
            for column in columns:
                before = f"{filled[f'column {column}']} and " if f"column {column}" in filled else ""
                filled[f"column {column}"] = f"{before}model {step}"
    except (TypeError, ValueError):
        return plan
    return filled


def _first_steps(count: int) -> Callable[[], tuple]:
    return lambda: (COLUMNS[:count],)


PLAN_CASES = tuple(Case(what, _first_steps(count), _who_fills) for what, count in (
    ("step 4, with class batches of 3, 2, 5 and 1", 4), ("step 2, with one earlier model", 2),
    ("step 1, where there is no earlier model", 1)))
PLAN = "a list of pairs (step of the teacher, range of the columns it fills)"


def _shifted(plan: targets.TeacherPlan, model: int = 0, start: int = 0, stop: int = 0) -> targets.TeacherPlan:
    """A plan with every model number, and both ends of every range, off by so much."""
    return lambda columns: [(step + model, range(own.start + start, own.stop + stop)) for step, own in plan(columns)]


def _evenly(plan: targets.TeacherPlan) -> targets.TeacherPlan:
    """A plan for class batches that are all as large as the first."""
    def wrong(columns):
        width = len(columns[0])
        return plan([range(i * width, (i + 1) * width) for i in range(len(columns))])
    return wrong


def _for_later_steps(plan: Callable[[Sequence[range]], list]) -> targets.TeacherPlan:
    return lambda columns: plan(columns) if len(columns) > 1 else []


SEQUENTIAL = Exercise(
    name="sequential_plan", reference=targets.penultimate, returns=PLAN, look=EQ_1, cases=PLAN_CASES,
    mistakes=(
        Mistake("this is the plan of Eq. 2, own step by own step; Eq. 1 has a single teacher", EQ_1, targets.own_step),
        Mistake("the teacher is the model that is about to be trained; distillation asks the one before it", EQ_1,
                _shifted(targets.penultimate, model=1)),
        Mistake("the model number counts from 0, like a Python index; steps count from 1", EQ_1,
                _shifted(targets.penultimate, model=-1)),
        Mistake("the teacher is the first model, whatever the step; Eq. 1 asks the latest one", EQ_1,
                _for_later_steps(lambda columns: [(1, range(0, columns[-2].stop))])),
        Mistake("the teacher fills the new classes' columns too, which it has never seen: they belong to the labels", EQ_1,
                _for_later_steps(lambda columns: [(len(columns) - 1, range(0, columns[-1].stop))])),
        Mistake("the teacher fills its own step's columns only; the second sum of Eq. 1 starts after all old classes", EQ_1,
                _for_later_steps(lambda columns: [(len(columns) - 1, columns[-2])])),
        Mistake("the last old column is left out: a range stops before its end",
                EQ_1, _shifted(targets.penultimate, stop=-1)),
        Mistake("columns counted from 1, as in the paper's sums; here the first column is 0", EQ_1,
                _shifted(targets.penultimate, start=1, stop=1)),
        Mistake("the first column is left out: the paper counts from 1, Python from 0", EQ_1,
                _shifted(targets.penultimate, start=1)),
        Mistake("all class batches are taken to be as large as the first", EQ_1, _evenly(targets.penultimate)),
        Mistake("in step 1 it asks for model 0, which does not exist", EQ_1,
                lambda columns: targets.penultimate(columns) or [(0, range(0, 0))]),
        Mistake("in step 1 it looks for a step before the first", EQ_1,
                lambda columns: [(len(columns) - 1, range(0, columns[-2].stop))]),
    ))

MULTI_MODEL = Exercise(
    name="multi_model_plan", reference=targets.own_step, returns=PLAN, look=EQ_2, cases=PLAN_CASES,
    mistakes=(
        Mistake("this is the plan of Eq. 1: the penultimate model fills everything. In Eq. 2 each class has the model of "
                "its own step", EQ_2, targets.penultimate),
        Mistake("each model fills every column it knows, over the ones before it: the last one wins, which is Eq. 1 again",
                EQ_2,
                lambda columns: [(j, range(0, columns[j - 1].stop)) for j in range(1, len(columns))]),
        Mistake("the step about to be trained is in the plan too; its columns belong to the labels", EQ_2,
                lambda columns: list(enumerate(columns, 1))),
        Mistake("the model numbers count from 0, like Python indices; steps count from 1", EQ_2,
                _shifted(targets.own_step, model=-1)),
        Mistake("each model fills the columns of the step after its own, which it has never seen", EQ_2,
                lambda columns: [(j, columns[j]) for j in range(1, len(columns))]),
        Mistake("each model is one too late: the columns of step j are filled by model j + 1", EQ_2,
                _shifted(targets.own_step, model=1)),
        Mistake("the penultimate model is left out; k in Eq. 2 runs up to P - 1, that one included", EQ_2,
                lambda columns: targets.own_step(columns)[:-1]),
        Mistake("the first model is left out; k in Eq. 2 starts at 1", EQ_2, lambda columns: targets.own_step(columns)[1:]),
        Mistake("the models come in reverse: the latest one fills the columns of the first step", EQ_2,
                lambda columns: [(len(columns) - j, own) for j, own in targets.own_step(columns)]),
        Mistake("the last column of each step is left out: a range stops before its end", EQ_2,
                _shifted(targets.own_step, stop=-1)),
        Mistake("columns counted from 1, as in the paper's sums; here the first column is 0", EQ_2,
                _shifted(targets.own_step, start=1, stop=1)),
        Mistake("the first column of each step is left out: the paper counts from 1, Python from 0", EQ_2,
                _shifted(targets.own_step, start=1)),
        Mistake("all class batches are taken to be as large as the first", EQ_2, _evenly(targets.own_step)),
        Mistake("in step 1 it asks for model 0, which does not exist", EQ_2,
                lambda columns: targets.own_step(columns) or [(0, range(0, 0))]),
    ))

"""What the slides share: figures large enough for a wall, and what their speaker has from the banks and from the checks.

The slides train nothing. `show` ends a cell with a figure, `tell` and `mistakes` end a cell of notes. The other functions take runs out
of a bank and bring them into the form that `m2kd_lite.pictures` draws.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from m2kd_lite.files import places
from m2kd_lite.pictures import plots
from m2kd_lite.results import bank

DPI = 200


def show(figure):
    """A figure as a picture with its alternative text, sharp at 1280 pixels across."""
    from IPython.display import Image
    return Image(plots.png(figure, dpi=DPI), alt=plots.alt_text(figure), format="png")


def tell(text: str):
    """Notes with numbers in them: measured ones are never typed, for the banks change."""
    from IPython.display import Markdown
    return Markdown(f"**Measured**: {text}")


def mistakes(exercise: str, *beginnings: str):
    """Notes that name mistakes of students in the words of the check that finds them.

    Raises
    ------
    ValueError : the check knows no mistake, or more than one, whose sentence begins so.
    """
    from IPython.display import Markdown

    from m2kd_lite import checks
    sentences = [mistake.message for mistake in checks.EXERCISES[exercise].mistakes]
    found = [[sentence for sentence in sentences if sentence.startswith(beginning)] for beginning in beginnings]
    if wrong := [beginning for beginning, hits in zip(beginnings, found, strict=True) if len(hits) != 1]:
        raise ValueError(f"{exercise}: one mistake each should begin with {wrong}")
    return Markdown(f"**They get wrong**, as the check of `{exercise}` says it:\n\n" + "\n".join(f"- {hit}" for (hit,) in found))


def runs(name: str, **settings) -> pd.DataFrame:
    """The rows of a bank in which every setting has this value: one row a run and step, steps in order.

    Raises
    ------
    ValueError : there is none, or a step comes twice with one seed: then these settings name more than one experiment.
    """
    table = bank.load(places.find(f"data/results/{name}.csv"))
    for setting, value in settings.items():
        table = table[table[setting] == value]
    if table.empty:
        raise ValueError(f"{name}.csv has no run with {settings}")
    if table.duplicated(["seed", "step"]).any():
        raise ValueError(f"{name}.csv has several experiments with {settings}")
    return table.sort_values(["seed", "step"])


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of each run, by seed."""
    return table.groupby("seed").last()


def left(table: pd.DataFrame) -> list[float]:
    """Accuracy on each step's own classes when the run has ended, in per cent: mean over the seeds."""
    return pd.DataFrame(ends(table).accuracy_by_step.tolist()).mean().tolist()


def by_step(table: pd.DataFrame, measure: Callable = lambda row: row.top1) -> list[float]:
    """A number after each step: mean over the seeds."""
    return [sum(map(measure, rows.itertuples())) / len(rows) for _, rows in table.groupby("step")]


def curve(table: pd.DataFrame) -> tuple[list[int], list[float]]:
    """(classes seen, accuracy on all of them in per cent) after each step: mean over the seeds."""
    return sorted(set(table.classes_seen)), by_step(table)


def counts(table: pd.DataFrame) -> list[list[int]]:
    """The confusion matrix after the last step, summed over the seeds."""
    return sum(map(bank.confusion_matrix, ends(table).confusion)).tolist()


def span(values: Iterable[float], unit: str = " %") -> str:
    """The least and the most of some numbers: "20.1 to 21.0 %"."""
    low, *_, high = [f"{value:.1f}" for value in sorted([*values] * 2)]
    return (f"{low} to {high}" if low != high else low) + unit

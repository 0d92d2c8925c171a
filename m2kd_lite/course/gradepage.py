"""The page beside a table of grades: totals by exercise, what is worth a look, and every row. Written by `grade.py`."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

OUTCOMES = ("passed", "mistake", "not answered", "timed out", "crashed")


def render(rows: Sequence[Mapping[str, str]], submitted: int) -> str:
    """The page as text. `submitted` says how many submissions there are, graded yet or not."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("m2kd_lite"), autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    graded = [row for row in rows if row["exercise"]]
    notebooks: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        notebooks.setdefault(row["notebook"], []).append(row)
    return environment.get_template("grades.html.j2").render(
        outcomes=OUTCOMES, totals=_totals(graded), notebooks=notebooks, submitted=submitted, marked=len({row["notebook"] for row in graded}),
        ungraded=[row for row in rows if not row["exercise"]], remarked=[row for row in graded if row["answer"] or row["check"]],
        points={name: _points(group) for name, group in notebooks.items()})


def _totals(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Per exercise: how many came to which outcome, and the mistake that most made."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["lesson"], row["exercise"]), []).append(row)
    totals = []
    for (lesson, exercise), group in sorted(groups.items(), key=lambda item: item[0][0]):
        mistakes = Counter(row["said"].partition(". Look at ")[0] for row in group if row["outcome"] == "mistake").most_common(1)
        totals.append({"lesson": lesson, "exercise": exercise, "submissions": len(group), "counts": Counter(row["outcome"] for row in group),
                       "own": sum(bool(row["answer"]) for row in group), "often": mistakes[0] if mistakes else None})
    return totals


def _points(rows: Sequence[Mapping[str, str]]) -> str:
    return f"{sum(float(row['points']) for row in rows):g} of {sum(float(row['of']) for row in rows):g}"

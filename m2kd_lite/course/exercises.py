"""What the lessons ask, as data, and which lesson a submitted notebook comes from.

A lesson's exercises are read from its nbgrader metadata: the cell of the answer, the cell of the check, the points. A submission is told by
the cells that it shares with a lesson, by id or by text; its file's name says nothing. Used by `grade.py` and `attempt.py`.
"""
from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from m2kd_lite.course.student import NOT_GRADED
from m2kd_lite.files import places

SHARED = 3              # cells that a notebook has to have in common with a lesson, at least
TRAINING = "train.run("  # a cell with this in it would train for minutes


@dataclass(frozen=True)
class Task:
    """One exercise as a lesson asks it.

    Attributes
    ----------
    name : of its check, as "prune".
    function : what the student writes, as "my_prune".
    answer, check : ids of the two cells: nbgrader's, and the notebook's own.
    source : the text of the released check cell.
    solution : the text of the cell that the lesson answers it with.
    """

    name: str
    function: str
    points: float
    answer: tuple[str, str]
    check: tuple[str, str]
    source: str
    solution: str


@dataclass(frozen=True)
class Lesson:
    """A lesson: the imports of its first code cell; its exercises, in order; the text of each cell by its id; and which cells train."""

    name: str
    imports: str
    tasks: tuple[Task, ...]
    cells: Mapping[str, str]
    training: frozenset[str]


@dataclass(frozen=True)
class Piece:
    """A code cell of a submission: its text, its role ("answer", "check" or "own"), and the exercise it belongs to, if any."""

    role: str
    source: str
    task: str = ""


@cache
def lessons() -> tuple[Lesson, ...]:
    """All lessons that come with the package, by name."""
    import nbformat
    return tuple(_lesson(path.stem, nbformat.read(path, as_version=4).cells) for path in sorted((places.shipped() / "notebooks").glob("*.ipynb")))


def lesson_of(cells: Sequence[Any], lessons: Sequence[Lesson]) -> Lesson | None:
    """The lesson that most cells of a notebook come from; None if fewer than `SHARED` come from any."""
    ids, texts = {cell.get("id") for cell in cells}, {cell.source.strip() for cell in cells}

    def shared(lesson: Lesson) -> int:
        return sum(name in ids or bool(text) and text in texts for name, text in lesson.cells.items())

    best = max(lessons, key=shared)
    return best if shared(best) >= SHARED else None


def pieces(cells: Sequence[Any], lesson: Lesson) -> list[Piece]:
    """What is run of a submission: answers, the places of the checks, and what the student added or changed.

    Left out are the lesson's own demonstrations, and whatever trains: no check needs them.
    """
    found, given = [], set(lesson.cells.values())
    for cell in cells:
        task, role = _belongs(cell, lesson)
        if task is not None:
            found.append(Piece(role, cell.source if cell.cell_type == "code" else "", task.name))
        elif (cell.cell_type == "code" and cell.source.strip() not in given and cell.get("id") not in lesson.training
              and TRAINING not in cell.source):
            found.append(Piece("own", cell.source))
    return found


def altered(found: Sequence[Piece], task: Task) -> str:
    """What happened to the check cell of an exercise: "altered", "removed", or nothing."""
    there = [piece.source.strip() for piece in found if piece.role == "check" and piece.task == task.name]
    if not there:
        return "removed"
    return "" if there == [task.source.strip()] else "altered"


def _lesson(name: str, cells: Sequence[Any]) -> Lesson:
    code = [cell for cell in cells if cell.cell_type == "code"]
    answers = {_grade_id(cell): cell for cell in code if cell.metadata.get("nbgrader", {}).get("solution")}
    tasks = []
    for cell in code:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            grade_id = _grade_id(cell)
            answer = answers[grade_id.removeprefix("check-")]
            (exercise,) = re.findall(r"^checks\.(\w+)\(", cell.source, re.M)
            (call,) = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            tasks.append(Task(exercise, ast.unparse(call.args[0]), cell.metadata.nbgrader.points, (_grade_id(answer), answer.id),
                              (grade_id, cell.id), cell.source, answer.source))
    imports = [ast.unparse(node) for node in ast.parse(code[0].source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return Lesson(name, "\n".join(imports), tuple(tasks), {cell.id: cell.source.strip() for cell in cells},
                  frozenset(cell.id for cell in code if NOT_GRADED in cell.metadata.get("tags", ())))


def _grade_id(cell: Any) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def _belongs(cell: Any, lesson: Lesson) -> tuple[Task | None, str]:
    """The exercise that a cell is the answer or the check of, if it is; nbgrader's id counts before the notebook's own."""
    marked, own = _grade_id(cell), cell.get("id")
    for at in (0, 1):
        for task in lesson.tasks:
            for role, ids in (("answer", task.answer), ("check", task.check)):
                if ids[at] == (marked, own)[at]:
                    return task, role
    return None, ""

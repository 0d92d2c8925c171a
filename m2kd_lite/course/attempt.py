"""What happens in a process that grades: a submission is looked at, or one exercise of it is tried.

`look` reads and runs nothing; its remarks cannot be influenced. `attempt` runs the student's cells and then the lesson's own check, in a process
restricted by `sandbox.py` that is used for nothing else. Each writes what it found as JSON to a file. Called by `grade.py`.
"""
from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from m2kd_lite import checks
from m2kd_lite.course import exercises, remarks, sandbox
from m2kd_lite.course.exercises import Lesson, Piece, Task
from m2kd_lite.course.sandbox import Limits

PASSED, MISTAKE, UNANSWERED, TIMED_OUT, CRASHED, UNREADABLE = "passed", "mistake", "not answered", "timed out", "crashed", "not graded"
LARGEST = 32 << 20          # bytes of a notebook
WATCHED = ("builtins", "copy", "inspect", "math", "torch", "torch.nn.functional")      # besides the library, what a check relies on


class Shell(InteractiveShell):
    """IPython without a screen: cells may have its magics, and `%matplotlib` finds nothing to open a window with."""

    def enable_gui(self, gui=None):
        """There is none."""


def look(notebook: Path, lessons: Sequence[Lesson], folder: Path, limits: Limits, said: Path) -> None:
    """Write which lesson a notebook comes from, its pieces, and the remarks on it; or why it is no submission."""
    sandbox.confine(folder, limits)
    _write(said, _looked_at(notebook, lessons))


def attempt(lesson: Lesson, task: Task, found: Sequence[Piece], folder: Path, limits: Limits, said: Path) -> None:
    """Run a submission up to one of its checks; write the outcome, and what of the library was seen at work in it."""
    sandbox.confine(folder, limits)
    torch.set_num_threads(1)
    shell = Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    before, called = _originals(), set[str]()
    failed = _run_cells(shell, lesson, task, found, limits)
    replaced = _put_back(before)
    answer = shell.user_ns.get(task.function)
    if answer is None:
        report: dict[str, Any] = {"outcome": MISTAKE, "said": f"its cell ends in an error: {failed}"} if failed else \
            {"outcome": UNANSWERED, "said": f"{task.function} is not there"}
    else:
        solving = _solving(lesson, task)
        with _seen(solving, shell.user_ns, called):
            report = _checked(task, answer)
        called |= {remarks.name_of(one) for one in solving if inspect.unwrap(answer) is inspect.unwrap(one)} if callable(answer) else set()
        meanwhile = _put_back(before)
        if meanwhile:
            report = {"outcome": MISTAKE, "said": f"it replaces {meanwhile[0]} while it is checked"}
        report["called"] = sorted(called)
    _write(said, report | {"replaced": replaced})


def _looked_at(path: Path, lessons: Sequence[Lesson]) -> dict[str, Any]:
    if not path.is_file():
        return {"unreadable": "not a file"}
    if path.stat().st_size > LARGEST:
        return {"unreadable": f"larger than {LARGEST >> 20} MB"}
    try:
        cells = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
        lesson = exercises.lesson_of(cells, lessons)
    except Exception as error:          # whatever a file of somebody's provokes, it is the file's fault
        return {"unreadable": f"not a notebook ({type(error).__name__})"}
    if lesson is None:
        return {"unreadable": "no lesson of this course"}
    if not lesson.tasks:
        return {"unreadable": f"{lesson.name} has no exercise that is checked"}
    found = exercises.pieces(cells, lesson)
    sources = [lesson.imports, *(piece.source for piece in found if piece.role != "check")]
    return {"lesson": lesson.name, "pieces": [vars(piece) for piece in found],
            "answer": {task.name: _remark(sources, task, lesson) for task in lesson.tasks},
            "check": {task.name: exercises.altered(found, task) for task in lesson.tasks}}


def _remark(sources: Sequence[str], task: Task, lesson: Lesson) -> str:
    try:
        return remarks.remark(sources, task.function, _solving(lesson, task))
    except RecursionError:
        return "too deeply nested to be looked at"


def _solving(lesson: Lesson, task: Task) -> list[Callable]:
    return remarks.solves(task.solution, lesson.imports, checks.EXERCISES[task.name].reference)


def _run_cells(shell: InteractiveShell, lesson: Lesson, task: Task, found: Sequence[Piece], limits: Limits) -> str:
    """Run the lesson's imports and the cells before a check; returns the error of the answer's own cell, if it has one.

    Whatever else fails or takes too long does no harm: an experiment of the student's is no answer.
    """
    failed = ""
    place = next((at for at, piece in enumerate(found) if (piece.role, piece.task) == ("check", task.name)), len(found))
    shell.run_cell(lesson.imports, store_history=False, silent=True)
    for piece in found[:place]:
        if piece.role == "check":
            continue
        its_own = piece.role == "answer" and piece.task == task.name
        with contextlib.suppress(KeyboardInterrupt), contextlib.nullcontext() if its_own else sandbox.at_most(limits.seconds / 4):
            ended = shell.run_cell(piece.source, store_history=False, silent=True)
            error = ended.error_before_exec or ended.error_in_exec
            if its_own and error is not None:
                failed = f"{type(error).__name__}: {error}".splitlines()[0]
    return failed


def _checked(task: Task, answer: Any) -> dict[str, Any]:
    """What the check says to an answer: the call that is the lesson's check cell, as it was released."""
    try:
        getattr(checks, task.name)(answer)
    except checks.NotYet as problem:
        said = str(problem).removeprefix(f"{task.name}: ")
        if said.startswith("not written yet"):
            return {"outcome": UNANSWERED, "said": "it still raises NotImplementedError"}
        return {"outcome": MISTAKE, "said": said}
    except BaseException as error:      # as KeyboardInterrupt, which a check lets pass
        return {"outcome": CRASHED, "said": f"it raised {type(error).__name__}"}
    return {"outcome": PASSED, "said": ""}


@contextlib.contextmanager
def _seen(functions: Sequence[Callable], namespace: dict, called: set[str]) -> Iterator[None]:
    """Note which functions run on behalf of code of the student's, by whatever name they are called."""
    names = {inspect.unwrap(function).__code__: remarks.name_of(function) for function in functions}    # type: ignore[attr-defined]

    def profile(frame, event, argument):
        if event == "call" and frame.f_code in names and names[frame.f_code] not in called:
            caller = frame.f_back
            while caller is not None and caller.f_globals is not namespace:
                caller = caller.f_back
            if caller is not None:
                called.add(names[frame.f_code])

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def _originals() -> dict[str, tuple[Any, str, Any, Any]]:
    """What a check relies on: full name to (where it is, its name, the thing, its code)."""
    places: list[Any] = [module for name, module in sys.modules.items() if name in WATCHED or name.partition(".")[0] == remarks.PACKAGE]
    places += [thing for module in places for thing in vars(module).values()
               if inspect.isclass(thing) and thing.__module__.partition(".")[0] == remarks.PACKAGE]
    return {f"{place.__name__}.{name}": (place, name, thing, getattr(thing, "__code__", None))
            for place in (*places, torch.Tensor) for name, thing in vars(place).items() if callable(thing)}


def _put_back(before: dict[str, tuple[Any, str, Any, Any]]) -> list[str]:
    """Undo what was replaced since; returns the names, sorted."""
    replaced = []
    for full, (place, name, thing, code) in before.items():
        if vars(place).get(name) is not thing:
            setattr(place, name, thing)
            replaced.append(full)
        if code is not None and thing.__code__ is not code:
            thing.__code__ = code
            replaced.append(full)
    return sorted(replaced)


def _write(said: Path, report: dict[str, Any]) -> None:
    """Write a report and end at once: threads and exit handlers of the student's shall not go on."""
    said.write_text(json.dumps(report), encoding="utf-8")
    os._exit(0)

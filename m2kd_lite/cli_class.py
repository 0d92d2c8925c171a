"""What whoever holds a course asks of the command line: grades, and a leaderboard. `cli.py` makes commands of these functions.

Like its commands, these load torch only when they compute.
"""
from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from m2kd_lite.errors import BadInput

DataRoot = Annotated[str | None, typer.Option("--data-root", metavar="DIR", help="folder of the data set")]


def leaderboard(folders: Annotated[list[str] | None, typer.Argument(metavar="FOLDER...", help="folders with run folders at any depth")] = None,
                out: Annotated[str | None, typer.Option("--out", metavar="PAGE.html", help="output page (required)")] = None,
                data_root: DataRoot = None) -> None:
    """Merge the runs of a class on one page: accuracy against bytes carried, and the frontier.

    Every model is rebuilt and tested again. A run whose results, settings or images do not agree with its models is left out and named with
    the reason. The first folder below FOLDER names whoever handed a run in.
    """
    if not folders:
        raise BadInput("FOLDER: missing; give one or more folders with finished runs")
    from m2kd_lite.results import leaderboard as boards
    from m2kd_lite.training import progress
    out = required("--out", out)
    with progress.terminal() as on_event:
        verified, refused = boards.write([Path(folder) for folder in folders], Path(out), data_root, on_event)
    print(f"{out}: {verified} verified, {refused} refused")


def grade(folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help="submitted notebooks: a folder for each student, as nbgrader's "
                                                      "submitted/, or files named STUDENT_LESSON.ipynb")] = None,
          out: Annotated[str | None, typer.Option("--out", metavar="TABLE.csv", help="the table; a page is written beside it (required)")] = None,
          workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="submissions at once [default: one per core]")] = None,
          seconds: Annotated[str, typer.Option("--seconds", metavar="S", help="for one exercise, by the clock and of a processor")] = "30",
          memory: Annotated[str, typer.Option("--memory", metavar="GB", help="for one exercise, beyond the library's own")] = "2") -> None:
    """Grade submitted notebooks: one row a submission and exercise, with the mistake that the check named.

    The lesson's own checks run, each in a process of its own with limits and without network. That is no prison: a submission is a program and has
    your rights (docs/instructors.md). Two remarks say where to look: an answer that is or calls the library's own, and a check that was changed.

    Exit status: 0, all is graded, whatever the marks; 2, bad input; 1, the table cannot be written; 130, stopped. What was graded by then is in
    TABLE.csv, and the same command goes on from there.

    Example: m2kd-lite grade submitted --out grades.csv
    """
    folder, out = required("FOLDER", folder), required("--out", out)
    if workers is not None and (not workers.isdecimal() or int(workers) < 1):
        raise BadInput(f"--workers {workers}: not allowed; give a whole number from 1")
    if os.name != "posix":
        raise BadInput("grade: not possible on this system; it needs the limits for processes that Linux and macOS have")
    from m2kd_lite.course import grade as grading
    from m2kd_lite.training import progress
    limits = grading.Limits(positive("--seconds", seconds), int(positive("--memory", memory) * 2**30))
    with progress.terminal() as on_event:
        rows = grading.grade(Path(folder), Path(out), int(workers or os.cpu_count() or 1), limits, on_event)
    passed = [row["outcome"] == "passed" for row in rows if row["exercise"]]
    print(f"{out}: {len({row['notebook'] for row in rows})} submissions, {sum(passed)} of {len(passed)} exercises passed; page: {Path(out).with_suffix('.html')}")


def required(option: str, value: str | None) -> str:
    """What was given. Raises BadInput where nothing was."""
    if not value:
        raise BadInput(f"{option}: missing; see --help")
    return value


def positive(option: str, value: str, kind: str = "number") -> float:
    """A number above 0 from its text. Raises BadInput."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e9:
        raise BadInput(f"{option} {value}: not allowed; give a {kind} above 0")
    return number

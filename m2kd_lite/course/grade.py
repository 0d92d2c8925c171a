"""Grading: a folder of submitted notebooks becomes a table, and a page beside it.

Each notebook is matched to its lesson, and each of its exercises is tried in a process of its own, in a copy of the notebook's folder
(`attempt.py`, `sandbox.py`). The table is written anew after each submission and says of which bytes; what is in it already is not graded again.
`docs/instructors.md` says what the columns mean, and what is not promised.
"""
from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2kd_lite import __version__
from m2kd_lite.course import exercises
from m2kd_lite.course.exercises import Lesson, Piece
from m2kd_lite.course.sandbox import Limits
from m2kd_lite.errors import BadInput, Interrupted, printable
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.files import storage

COLUMNS = ("student", "notebook", "lesson", "exercise", "outcome", "said", "points", "of", "answer", "check", "digest")
COPIED = 10 << 20               # bytes: a larger file beside a notebook is no part of an answer
LONGEST = 400                   # characters of what a check said
DEFAULT = Limits()
LOADING = 60                    # seconds more for the first look, which waits for the library to be loaded
STARTS = 3                      # where what starts the processes is lost, those that it had started begin again
STARTER_LOST = 255
OUT_OF_TIME = 128 + signal.SIGXCPU
Row = dict[str, str]


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in; `notebook` is its path in the folder. `path` is None for a student's folder without any."""

    student: str
    notebook: str
    path: Path | None
    alone: bool


def grade(folder: Path, out: Path, workers: int = 1, limits: Limits = DEFAULT, on_event: OnEvent = ignore) -> list[Row]:
    """Grade all notebooks in a folder, write the table, and a page of the same name beside it.

    Parameters
    ----------
    folder : with a folder for each student, or with notebooks named after students; see `submissions`.
    out : a .csv file. One that an earlier call wrote is gone on with: rows of unchanged submissions stay as they are.
    workers : submissions at once.

    Returns
    -------
    the rows of the table: one a submission and exercise.

    Raises
    ------
    BadInput : no such folder, nothing in it, or `out` is another file than a table of grades.
    CannotWrite : the table cannot be written.
    Interrupted : by Ctrl-C.
    """
    from m2kd_lite.course import gradepage
    folder, out = Path(folder).absolute(), Path(out)       # whoever looks at a submission does so from another folder
    storage.check_local(out)
    if out.suffix.lower() != ".csv":
        raise BadInput(f"--out {out}: not allowed; give a file that ends in .csv")
    asked = submissions(folder)
    known = _read(out)
    rows: dict[str, list[Row]] = {}
    stop = threading.Event()
    context = _processes()

    def one(submission: Submission) -> tuple[list[Row], bool, float]:
        begun, digest = time.monotonic(), _digest(submission, limits)
        there = known.get(submission.notebook, [])
        if there and all(row["digest"] == digest for row in there):
            return there, True, 0.0
        found = _grade_one(submission, digest, limits, _runner(context, limits, stop))
        return found, False, time.monotonic() - begun

    def write() -> list[Row]:
        table = [row for submission in asked for row in rows.get(submission.notebook, ())]
        storage.write_bytes(out, _as_csv(table))
        storage.write_bytes(out.with_suffix(".html"), gradepage.render(table, len(asked)).encode())
        return table

    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting = {pool.submit(one, submission): submission for submission in asked}
        try:
            for future in as_completed(waiting):
                submission, (found, reused, seconds) = waiting[future], future.result()
                rows[submission.notebook] = found
                write()
                on_event({"event": "notice", "text": f"[{len(rows)}/{len(asked)}] {submission.notebook}: {_in_short(found)}, "
                          + ("graded before" if reused else f"{seconds:.1f} s")})
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {len(rows)} of {len(asked)} submissions are graded, and the same command goes on from there") from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return write()


def submissions(folder: Path) -> list[Submission]:
    """What a folder holds, sorted: the student is the first folder on the way to a notebook, as in nbgrader's `submitted/`.

    Of a notebook that lies directly in the folder, the student is its name, less the lesson's at its end: ada_05_pruning.ipynb. A folder without a
    notebook is a submission too. Hidden files and folders are none.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: not a folder; give the one with the submitted notebooks")
    found, students = [], set()
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        students.add(parts[0])
        found.append(Submission(parts[0] if len(parts) > 1 else _student(path.stem), "/".join(parts), path, len(parts) == 1))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in students and not path.name.startswith("."):
            found.append(Submission(path.name, path.name, None, False))
    if not found:
        raise BadInput(f"{folder}: no notebook in it; it should hold a folder for each student, or notebooks named after them")
    return sorted(found, key=lambda one: one.notebook)


def _student(stem: str) -> str:
    ends = [f"_{lesson.name}" for lesson in exercises.lessons() if stem.endswith(f"_{lesson.name}")]
    return stem.removesuffix(ends[0]) if ends else stem


def _grade_one(submission: Submission, digest: str, limits: Limits, run: Callable[..., dict]) -> list[Row]:
    """The rows of one submission."""
    def row(**more: Any) -> Row:
        given = {"student": submission.student, "notebook": submission.notebook, "digest": digest, "points": 0, "of": 0} | more
        return {name: printable(str(given.get(name, "")), lines=False) for name in COLUMNS}

    if submission.path is None:
        return [row(outcome="not graded", said="no notebook in this folder")]
    seen = run(submission, "look", submission.path, exercises.lessons())
    if "lesson" not in seen:
        return [row(outcome="not graded", said=seen.get("unreadable", "it cannot be read within the limits"))]
    (lesson,) = [lesson for lesson in exercises.lessons() if lesson.name == seen["lesson"]]
    found, rows = [Piece(**piece) for piece in seen["pieces"]], []
    for task in lesson.tasks:
        report = run(submission, "attempt", lesson, task, found)
        called = [f"calls {', '.join(names)} when it runs"] if (names := report.get("called")) else []
        replaced = [f"replaces {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")] if (names := report.get("replaced")) else []
        rows.append(row(lesson=lesson.name, exercise=task.name, outcome=report["outcome"], said=report["said"][:LONGEST], of=task.points,
                        points=task.points if report["outcome"] == "passed" else 0, answer=seen["answer"][task.name] or "; ".join(called),
                        check="; ".join(filter(None, [seen["check"][task.name], *replaced]))))
    return rows


def _runner(context, limits: Limits, stop: threading.Event) -> Callable[..., dict]:
    """A function that does one thing of `attempt.py` in a process of its own and returns what that wrote, or how it ended."""
    def run(submission: Submission, what: str, *arguments: Any) -> dict:
        for _ in range(STARTS):
            if stop.is_set():
                raise CancelledError
            with contextlib.suppress(OSError, EOFError), tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as beside:
                work, said = Path(beside).resolve() / "work", Path(beside).resolve() / "said.json"
                _copy(submission, work)
                process = context.Process(target=_in_the_child, args=(what, *arguments, work, limits, said), daemon=True)
                process.start()
                late = _wait(process, limits.seconds + (LOADING if what == "look" else 0), stop)
                if late or process.exitcode != STARTER_LOST:
                    return _ended(late, process.exitcode, limits) if late or not said.exists() else _read_report(said)
        return {"outcome": "crashed", "said": "its process was lost, several times"}
    return run


def _wait(process, seconds: float, stop: threading.Event) -> bool:
    """Wait for the end of a process, or make it; returns whether it had to be made."""
    ends = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < ends and not stop.is_set():
        process.join(0.1)
    late = process.is_alive()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)          # and whatever it has started
    process.kill()
    process.join()
    return late


def _read_report(said: Path) -> dict:
    try:
        report = json.loads(said.read_bytes())
    except ValueError:
        report = None
    return report if isinstance(report, dict) else {"outcome": "crashed", "said": "what it left is no report"}


def _in_the_child(what: str, *arguments: Any) -> None:
    from m2kd_lite.course import attempt            # has torch loaded, which this module does not need
    getattr(attempt, what)(*arguments)


def _ended(late: bool, code: int, limits: Limits) -> dict:
    if late or code in (OUT_OF_TIME, -signal.SIGXCPU):
        return {"outcome": "timed out", "said": f"it took longer than {limits.seconds:g} s"}
    number = code - 128 if code > 128 else -code
    names = {member.value: member.name for member in signal.Signals}
    return {"outcome": "crashed", "said": f"its process was ended by {names[number]}" if number in names else f"its process ended with status {code}"}


def _processes():
    """Processes that begin with the library loaded: they are forked from one that has loaded it and done nothing else."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["m2kd_lite.course.grade", "m2kd_lite.course.attempt", *_imported(exercises.lessons())])
    return context


def _imported(lessons: Sequence[Lesson]) -> list[str]:
    """Modules of the library that the lessons' first cells import, to be loaded once rather than with each exercise."""
    import ast
    nodes = [node for lesson in lessons if lesson.tasks for node in ast.walk(ast.parse(lesson.imports)) if isinstance(node, ast.ImportFrom)]
    return sorted({f"{node.module}.{alias.name}" for node in nodes for alias in node.names if str(node.module).startswith("m2kd_lite")
                   and alias.name.islower()} | {str(node.module) for node in nodes})


def _copy(submission: Submission, target: Path) -> None:
    """A copy of the notebook's folder to work in; of a notebook that lies beside those of others, itself alone."""
    target.mkdir()
    if submission.path is None or submission.alone:
        return
    for path in _beside(submission.path):
        to = target / path.relative_to(submission.path.parent)
        with contextlib.suppress(OSError):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def _beside(notebook: Path) -> list[Path]:
    """The files of a submission's folder that it may read: no links, nothing hidden, nothing large, no notebook."""
    return [path for path in sorted(notebook.parent.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.suffix != ".ipynb" and path.stat().st_size <= COPIED
            and not any(part.startswith(".") for part in path.relative_to(notebook.parent).parts)]


def _digest(submission: Submission, limits: Limits) -> str:
    """SHA-256 of what a grade depends on: the notebook, what lies beside it, the limits and the version."""
    digest = hashlib.sha256(f"{__version__} {limits}".encode())
    if submission.path is not None and submission.path.is_file():
        for path in [submission.path, *([] if submission.alone else _beside(submission.path))]:
            digest.update(f"\n{path.name}\n".encode(errors="surrogateescape"))
            with contextlib.suppress(OSError):          # what cannot be read is told when it is looked at
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _in_short(rows: Sequence[Row]) -> str:
    if not rows[0]["exercise"]:
        return rows[0]["said"]
    return f"{rows[0]['lesson']}, {sum(float(row['points']) for row in rows):g} of {sum(float(row['of']) for row in rows):g} points"


def _as_csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:            # a spreadsheet would take these signs for the beginning of a formula
        writer.writerow({name: f"'{value}" if value.startswith(("=", "+", "-", "@", "\t")) else value for name, value in row.items()})
    return text.getvalue().encode()


def _read(out: Path) -> dict[str, list[Row]]:
    """The rows of an earlier table, by notebook."""
    if not out.exists():
        return {}
    try:
        with out.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            rows = list(table)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise ValueError
    except (OSError, ValueError, csv.Error):
        raise BadInput(f"--out {out}: exists already and is no table of grades; give another file") from None
    known: dict[str, list[Row]] = {}
    for row in rows:
        clean = {name: value[1:] if value[:1] == "'" and value[1:2] in tuple("=+-@\t") else value for name, value in row.items()}
        known.setdefault(clean["notebook"], []).append(clean)
    return known

"""How a check works: the student's function and the library's meet the same small inputs, and a mistake gets its name.

An exercise is data: the library's own function, a few cases, and a table of known mistakes. Each mistake is a wrong
function, or a sign to look for; where the student's results are those of a wrong function, that is the mistake. This
is the one module of the library that prints: it talks to a student.
"""
from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from m2kd_lite.checks.compare import describe, differs, same, unlike
from m2kd_lite.errors import M2KDError


TORCH = str(Path(torch.__file__).parent)


class NotYet(M2KDError):
    """An exercise is not solved yet. The message names the exercise and the mistake; Jupyter shows that line alone."""


@dataclass(frozen=True)
class Outcome:
    """What one call came to: a value, or an error; and the name of an argument that it changed and should not have."""

    value: Any = None
    error: Exception | None = None
    changed: str = ""


def as_returned(returned: Any, arguments: tuple) -> Any:
    """The plainest reading of a call: what it returned."""
    return returned


@dataclass(frozen=True)
class Case:
    """One call that the student's function has to get right.

    Attributes
    ----------
    what : the line that is printed for it.
    arguments : makes the arguments anew for each call.
    read : (what was returned, the arguments after the call) to what is compared. It returns an odd result as it is.
    """

    what: str
    arguments: Callable[[], tuple]
    read: Callable[[Any, tuple], Any] = as_returned


@dataclass(frozen=True)
class Mistake:
    """A known mistake, by `wrong`, a function that makes it, or by `sign`, which sees it in (outcome, expected outcome)."""

    message: str
    look: str
    wrong: Callable | None = None
    sign: Callable[[Outcome, Outcome], bool] | None = None


@dataclass(frozen=True)
class Exercise:
    """One function to write.

    Attributes
    ----------
    name : of the function, and of its check.
    reference : the library's own.
    returns : what it returns, in words.
    look : where the paper says it.
    cases, mistakes : see above. Signs are looked for first, in the order of the table.
    tolerance : relative and absolute; 0 asks for equality.
    in_place : names of the arguments that the function is meant to change.
    """

    name: str
    reference: Callable
    returns: str
    look: str
    cases: tuple[Case, ...]
    mistakes: tuple[Mistake, ...]
    tolerance: float = 0.0
    in_place: tuple[str, ...] = ()

    @property
    def parameters(self) -> list[str]:
        """Names of the arguments that the function has to take."""
        found = inspect.signature(self.reference).parameters.values()
        return [parameter.name for parameter in found if parameter.default is parameter.empty]


def check(exercise: Exercise, function: Callable) -> None:
    """Try a student's function; print a line for each case.

    Raises
    ------
    NotYet : it is not right yet; says which mistake it is and where to look.
    """
    complaint = _uncallable(exercise, function)
    if complaint:
        raise NotYet(f"{exercise.name}: {complaint}.")
    with _one_thread():
        _try(exercise, function)


def _try(exercise: Exercise, function: Callable) -> None:
    expected = outcomes(exercise, exercise.reference)
    got = outcomes(exercise, function)
    verdicts = [_right(exercise, *pair) for pair in zip(got, expected, strict=True)]
    for case, right in zip(exercise.cases, verdicts, strict=True):
        print(f"  {'passed ' if right else 'not yet'}  {case.what}")
    if not all(verdicts):
        raise NotYet(f"{exercise.name}: {diagnose(exercise, got, expected, verdicts.index(False))}")
    print(f"{exercise.name}: all {len(verdicts)} passed.")


@contextmanager
def _one_thread() -> Iterator[None]:
    """The inputs are tiny: more threads would wait for each other longer than they work, above all on a shared machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def outcomes(exercise: Exercise, function: Callable) -> list[Outcome]:
    """What a function comes to in each case."""
    return [_outcome(exercise, case, function) for case in exercise.cases]


def diagnose(exercise: Exercise, got: list[Outcome], expected: list[Outcome], first: int) -> str:
    """The mistake, and where to look. `first` is the first case that is not right."""
    mistake = _known_mistake(exercise, got, expected, first)
    if mistake:
        said, look = mistake.message, mistake.look
    else:
        said, look = _generic(exercise, exercise.cases[first], got[first], expected[first]), exercise.look
    return f"{said}{'' if said.endswith('?') else '.'} Look at {look}."


def _outcome(exercise: Exercise, case: Case, function: Callable) -> Outcome:
    arguments = case.arguments()
    before = copy.deepcopy(arguments)
    try:
        with torch.enable_grad():
            returned = function(*arguments)
    except Exception as error:      # whatever a student's code raises is reported, never passed on
        return Outcome(error=error)
    changed = [name for name, now, was in zip(exercise.parameters, arguments, before, strict=True)
               if name not in exercise.in_place and not same(now, was)]
    return Outcome(case.read(returned, arguments), changed=changed[0] if changed else "")


def _right(exercise: Exercise, got: Outcome, expected: Outcome) -> bool:
    return not got.error and not got.changed and same(got.value, expected.value, exercise.tolerance)


def _alike(exercise: Exercise, one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes show one mistake. The dtype is left aside: it is a mistake of its own."""
    if one.error or other.error:
        return type(one.error) is type(other.error)
    return same(one.value, other.value, exercise.tolerance, dtypes=False)


def _known_mistake(exercise: Exercise, got: list[Outcome], expected: list[Outcome], first: int) -> Mistake | None:
    if _is_stub(got[first].error):
        return None
    for mistake in exercise.mistakes:
        if mistake.sign and mistake.sign(got[first], expected[first]):
            return mistake
    best, most = None, 0
    for mistake in exercise.mistakes:
        if mistake.wrong:
            agreeing = _agreement(exercise, mistake.wrong, got, expected, first)
            if agreeing > most:
                best, most = mistake, agreeing
    return best


def _agreement(exercise: Exercise, wrong: Callable, got: list[Outcome], expected: list[Outcome], first: int) -> int:
    """In how many cases a wrong function does what the student's does; 0 if it does not explain the first wrong case."""
    there = _outcome(exercise, exercise.cases[first], wrong)
    if _alike(exercise, there, expected[first]) or not _alike(exercise, there, got[first]):
        return 0
    agreeing = sum(_alike(exercise, *pair) for pair in zip(outcomes(exercise, wrong), got, strict=True))
    # One kind of error has many causes: only agreement throughout says that it is this one.
    return 0 if got[first].error and agreeing < len(got) else agreeing


def _generic(exercise: Exercise, case: Case, got: Outcome, expected: Outcome) -> str:
    """What can be said of a mistake that is not in the table."""
    if _is_stub(got.error):
        return "not written yet: it still raises NotImplementedError"
    if got.error:
        raised = f"{type(got.error).__name__}: {got.error}".splitlines()[0].rstrip(".: ")
        line = _students_line(got.error)
        where = f", at line {line.lineno}: `{line.line}`" if line else ""
        return f"it raised {raised}{where} (in \"{case.what}\")"
    if got.value is None:
        return "it returned None: is there a `return` at the end?"
    build = unlike(got.value, expected.value)
    if build and type(got.value) is not type(expected.value):
        return f"it returned {describe(got.value)}; what is wanted is {exercise.returns}"
    if build:
        return f"in \"{case.what}\", {build}"
    if got.changed:
        return f"it changed its argument `{got.changed}`, which its caller still needs as it was: work on a copy"
    return f"in \"{case.what}\", {differs(got.value, expected.value, exercise.tolerance)}"


def _students_line(error: Exception) -> traceback.FrameSummary | None:
    """The last line of the student's own file or cell that the error passed through."""
    frames = traceback.extract_tb(error.__traceback__)[1:]          # the first is the call in this module
    while frames and frames[0].filename.startswith(TORCH):          # a decorator, as `@torch.no_grad()`
        frames = frames[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return own[-1] if own else None


def _is_stub(error: Exception | None) -> bool:
    """Whether a student's line raised NotImplementedError. PyTorch has other uses for it."""
    line = _students_line(error) if isinstance(error, NotImplementedError) else None
    return line is not None and (not line.line or "NotImplementedError" in line.line)


def _uncallable(exercise: Exercise, function: Callable) -> str:
    """Why a thing cannot be tried at all; empty if it can."""
    wanted = f"{exercise.name}({', '.join(exercise.parameters)})"
    if not callable(function):
        return f"give the check the function itself, without calling it; this is {describe(function)}"
    try:
        inspect.signature(function).bind(*exercise.parameters)
    except TypeError:
        return f"it takes other arguments than {wanted}"
    except ValueError:              # some functions written in C do not tell
        pass
    return ""

"""How a check works: the student's function and the library's meet the same small inputs, and a mistake gets its name.

An exercise is data: the library's own function, a few cases, and a table of known mistakes. Each mistake is a wrong
function, or a sign to look for; where the student's results are those of a wrong function, that is the mistake. This
is the one module of the library that prints: it talks to a student.
"""
from __future__ import annotations

import copy
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from m2kd_lite.checks import kinds
from m2kd_lite.checks.compare import differs, marks, same, unlike
from m2kd_lite.errors import M2KDError


class NotYet(M2KDError):
    """An exercise is not solved yet. The message names the exercise and the mistake; Jupyter shows that line alone."""


@dataclass(frozen=True)
class Outcome:
    """What one call came to.

    Attributes
    ----------
    value : what is compared, made from what was returned; or what was returned, where nothing could be made of it.
    returned : what was returned.
    error : what was raised, by the call or, where that came first, by reading what it returned.
    changed : name of an argument that it changed and should not have.
    printed : whether it wrote to the standard output.
    """

    value: Any = None
    returned: Any = None
    error: BaseException | None = None
    changed: str = ""
    printed: bool = False


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
    complaint = kinds.uncallable(exercise.name, exercise.parameters, function)
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
    before = case.arguments()
    arguments = copy.deepcopy(before)           # what a function does to them is gone with the call
    heard, marked = _Heard(), [marks(argument) for argument in arguments]
    try:
        with torch.enable_grad(), redirect_stdout(heard):
            returned = function(*arguments)
    except (Exception, SystemExit) as error:    # whatever a student's code raises is reported, never passed on
        return Outcome(error=error, printed=heard.something)
    changed = [name for name, now, was, mark in zip(exercise.parameters, arguments, before, marked, strict=True)
               if name not in exercise.in_place and (marks(now) != mark or not _holds(same, now, was))]
    value, unread = returned, None
    if not isinstance(returned, Iterator):      # which can be read once only
        try:
            value = case.read(returned, arguments)
        except Exception as error:              # backpropagation begins here, and finds what was done to its tensors
            unread = error
    return Outcome(value, returned, unread, changed[0] if changed else "", heard.something)


class _Heard(io.TextIOBase):
    """Hands on what is printed, and knows that something was."""

    def __init__(self) -> None:
        self.out, self.something = sys.stdout, False

    def write(self, text: str) -> int:
        self.something = True
        return self.out.write(text)

    def flush(self) -> None:
        self.out.flush()


def _holds(test: Callable[..., bool], *arguments: Any) -> bool:
    """Whether something is so. Of a result so odd that the question itself fails, it is not."""
    try:
        return bool(test(*arguments))
    except Exception:
        return False


def _right(exercise: Exercise, got: Outcome, expected: Outcome) -> bool:
    return not got.error and not got.changed and _holds(same, got.value, expected.value, exercise.tolerance)


def _alike(exercise: Exercise, one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes show one mistake. The dtype is left aside: it is a mistake of its own."""
    if one.error or other.error:
        return type(one.error) is type(other.error)
    return _holds(same, one.value, other.value, exercise.tolerance, False)


def _known_mistake(exercise: Exercise, got: list[Outcome], expected: list[Outcome], first: int) -> Mistake | None:
    if kinds.is_stub(got[first].error):
        return None
    for mistake in exercise.mistakes:
        if mistake.sign and _holds(mistake.sign, got[first], expected[first]):
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
    changed = f"it changed its argument `{got.changed}`, which its caller still needs as it was: work on a copy" if got.changed else ""
    if got.error:
        odd = unlike(got.returned, expected.returned, place="what it returned") if got.returned is not None else ""
        return changed or (f"in \"{case.what}\", {odd}" if odd else kinds.raised(got.error, case.what))
    build = unlike(got.value, expected.value)
    if got.value is None or build and type(got.value) is not type(expected.value):
        return kinds.returned(got.returned, expected.returned, exercise.returns, got.printed)
    if build:
        return f"in \"{case.what}\", {build}"
    return changed or f"in \"{case.what}\", {differs(got.value, expected.value, exercise.tolerance)}"

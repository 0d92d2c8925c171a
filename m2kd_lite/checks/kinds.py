"""Mistakes of no exercise in particular: what any function may raise, return or ask for, and what is said of it.

`engine.py` asks here where an exercise's own table has no name for what it sees. What a student's code raises is told with the
student's own line, never with a traceback of the library.
"""
from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from m2kd_lite.checks.compare import describe

# Whose lines are not a student's. PyTorch's and our own folder may lie anywhere; Python's own has what `functools` wraps.
LIBRARIES = (str(Path(str(torch.__file__)).parent), str(Path(__file__).parents[1]),
             *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))

IN_PLACE = "(`x += 1`, `x[0] = 1` and `x.clamp_()` do that): make a new tensor"
DEVICE = "tensors lie on different devices: make yours where the arguments are, as `device=argument.device` does"
# (type, a part of its message, what is said). The first that fits; all others are told in their own words.
RAISED: tuple[tuple[type[BaseException], str, str], ...] = (
    (RecursionError, "", "it calls itself without end: is there a case in which it does not?"),
    (SystemExit, "", "it ends the whole program, as `exit` does; `return` ends a function"),
    (RuntimeError, "leaf Variable that requires grad", f"it changes in place a tensor whose gradient is wanted {IN_PLACE}"),
    (RuntimeError, "modified by an inplace operation", f"it changes in place a tensor that backpropagation still needs {IN_PLACE}"),
    (RuntimeError, "backward through the graph a second time",
     "it calls `backward` itself, which uses the graph up: give back the loss, training does the rest"),
    (RuntimeError, "be on the same device", DEVICE),
    (RuntimeError, "meta tensor", DEVICE),
    (RuntimeError, "NVIDIA driver", "it asks for a GPU, and there is none: stay on the device of the arguments"),
    (AssertionError, "not compiled with CUDA", "it asks for a GPU, and there is none: stay on the device of the arguments"),
    (RuntimeError, "can't allocate memory", "it asks for more memory than there is: what are the shapes of what it works with?"),
)


def raised(error: BaseException, case: str) -> str:
    """What is said of an error. `case` is what was tried."""
    if is_stub(error):
        return "not written yet: it still raises NotImplementedError"
    line = _students_line(error)
    where = f"at line {line.lineno}: `{line.line}`" if line else ""
    text = str(error)
    said = next((said for kind, part, said in RAISED if isinstance(error, kind) and part in text), "")
    if said:
        return f"{said} ({where})" if where else said
    message = f"{type(error).__name__}: {text}".strip().splitlines()[0].rstrip(".: ")
    return f"it raised {message}{f', {where}' if where else ''} (in \"{case}\")"


def returned(got: Any, expected: Any, wanted: str, printed: bool) -> str:
    """What is said of a result that is of another kind than it should be.

    Parameters
    ----------
    got, expected : what the student's function returned, and the library's.
    wanted : what is to be returned, in words.
    printed : whether the function wrote something as well.
    """
    if got is None:
        return "it returned None: is there a `return` at the end?" + (" What it printed is seen, but not handed back" if printed else "")
    hint = _hint(got, expected)
    return f"it returned {describe(got)}; what is wanted is {wanted}{f'. {hint}' if hint else ''}"


def uncallable(name: str, parameters: list[str], function: Any) -> str:
    """Why a thing cannot be tried at all; empty if it can."""
    wanted = f"{name}({', '.join(parameters)})"
    if isinstance(function, type):
        return f"give the check a function; this is the class {function.__name__}"
    if not callable(function):
        return f"give the check the function itself, without calling it; this is {describe(function)}"
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):         # some functions written in C do not tell
        return ""
    try:
        signature.bind(*parameters)
    except TypeError:
        return f"it takes other arguments than {wanted}: yours has {signature}"
    return ""


def is_stub(error: BaseException | None) -> bool:
    """Whether a student's line raised NotImplementedError. PyTorch has other uses for it."""
    line = _students_line(error) if isinstance(error, NotImplementedError) else None
    return line is not None and (not line.line or "NotImplementedError" in line.line)


def _students_line(error: BaseException) -> traceback.FrameSummary | None:
    """The last line of the student's own file or cell that the error passed through."""
    frames = list(traceback.extract_tb(error.__traceback__))
    while frames and any(Path(frames[0].filename).is_relative_to(folder) for folder in LIBRARIES):      # the check; then a decorator, as `@torch.no_grad()`
        frames = frames[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return own[-1] if own else None


def _hint(got: Any, expected: Any) -> str:
    """How a result of that kind may have come about. Empty where nobody can tell."""
    tensors = [part for part in _parts(expected) if isinstance(part, Tensor)]
    cut_off = any(tensor.requires_grad for tensor in tensors)
    if isinstance(got, Iterator):
        return "Was `yield` written for `return`, or round brackets for square ones?"
    if inspect.isroutine(got):
        return "Are the brackets of a call missing?"
    if isinstance(got, tuple) and len(got) == 1 and not isinstance(expected, (tuple, list)):
        return "Is there a comma too many behind it?"
    if tensors and any(isinstance(part, (np.ndarray, np.generic)) for part in _parts(got)):
        return "There is numpy in it, where no gradient passes: stay with tensors" if cut_off else "`torch.from_numpy` makes a tensor of numpy's array"
    if isinstance(expected, Tensor) and isinstance(got, (int, float)):
        return "No gradient passes through a Python number: was it made by `item` or `float`?" if cut_off else "One number stands for all of them"
    if tensors and not any(isinstance(part, Tensor) for part in _parts(got)) and isinstance(got, (list, tuple, Mapping)):
        return "`torch.tensor` makes a tensor of numbers"
    if isinstance(expected, float) and isinstance(got, Tensor):
        return "`item` makes a Python number of a tensor with one" if got.numel() == 1 else "There are several numbers where one is wanted"
    if isinstance(expected, Tensor) and isinstance(got, Tensor) and got.dim() and not expected.dim():
        return "There are several numbers where one is wanted: what is left to add up?" if got.numel() > 1 else "It has a dimension too many"
    return ""


def _parts(thing: Any) -> Iterator[Any]:
    """What a result is made of: entries of dictionaries and sequences, at any depth."""
    if isinstance(thing, Mapping):
        thing = list(thing.values())
    if isinstance(thing, (list, tuple)):
        for entry in thing:
            yield from _parts(entry)
    else:
        yield thing

"""Where two results differ: in kind, in shape, in dtype or in value, said in words.

Results are what exercises return: numbers, tensors, and dictionaries or sequences of them. `unlike` looks at their
build, `differs` at their values; both give the first difference as a sentence, or nothing. Called by `engine.py`.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def describe(thing: Any) -> str:
    """What a thing is, as a student would say it."""
    if thing is None:
        return "None"
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)} and dtype {thing.dtype}".replace("torch.", "")
    if isinstance(thing, np.ndarray):
        return f"a numpy array of shape {thing.shape}"
    name = type(thing).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return f"{article} {name} of {len(thing)}" if isinstance(thing, (Mapping, list, tuple)) else f"{article} {name}"


def unlike(got: Any, expected: Any, dtypes: bool = True, place: str = "the result") -> str:
    """The first difference in build: kind, names, length, shape and, where asked for, dtype. Empty if there is none."""
    if _kind(got) != _kind(expected):
        return f"{place} is {describe(got)} and should be {describe(expected)}"
    if isinstance(expected, Tensor):
        if got.shape != expected.shape:
            few = "" if got.dim() or not expected.dim() else ": one number stands for all of them. Does a sum run over too much?"
            return f"{place} has shape {tuple(got.shape)} and should have {tuple(expected.shape)}{few}"
        if got.device != expected.device:
            return f"{place} is on the device {got.device} and should be on {expected.device}, where the arguments are"
        if got.layout != expected.layout:
            return f"{place} has layout {got.layout} and should have {expected.layout}".replace("torch.", "")
        if dtypes and got.dtype != expected.dtype:
            return f"{place} has dtype {got.dtype} and should have {expected.dtype}".replace("torch.", "")
    if isinstance(expected, Mapping):
        for name in [*expected, *got]:
            if name not in got:
                return f"{place} has no entry {name!r}"
            if name not in expected:
                return f"{place} has an entry {name!r} that does not belong there"
    elif isinstance(expected, (list, tuple)) and len(got) != len(expected):
        return f"{place} has {len(got)} entries and should have {len(expected)}"
    return next(filter(None, (unlike(a, b, dtypes, where) for a, b, where in _members(got, expected, place))), "")


def differs(got: Any, expected: Any, tolerance: float, place: str = "the result") -> str:
    """The first difference in value between two results of one build. Empty if there is none.

    Parameters
    ----------
    tolerance : relative and absolute; 0 asks for equality. NaN equals NaN.
    """
    if isinstance(expected, Tensor):
        return _differing_tensor(got, expected, tolerance, place)
    if isinstance(expected, (Mapping, list, tuple)) or dataclasses.is_dataclass(expected):
        return next(filter(None, (differs(a, b, tolerance, where) for a, b, where in _members(got, expected, place))), "")
    if _kind(expected) == "number":
        if math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance) or (got != got and expected != expected):
            return ""
        return f"{place}: yours is {_short(got)}, which is {_direction(got, expected)}"
    return "" if callable(expected) or got == expected else f"{place}: yours is {got}"


def same(got: Any, expected: Any, tolerance: float = 0.0, dtypes: bool = True) -> bool:
    """Whether two results have one build and, within the tolerance, the same values."""
    return not unlike(got, expected, dtypes) and not differs(got, expected, tolerance)


def marks(thing: Any) -> list[tuple[int, bool, bool]]:
    """Per tensor in a thing: how often it was written to, and whether a gradient of it is wanted, and there.

    Writing shows here even where it leaves every value as it was.
    """
    if isinstance(thing, Tensor):
        return [(thing._version, thing.requires_grad, thing.is_leaf and thing.grad is not None)]
    if dataclasses.is_dataclass(thing):
        thing = vars(thing)
    if isinstance(thing, Mapping):
        thing = list(thing.values())
    return [mark for part in thing for mark in marks(part)] if isinstance(thing, (list, tuple)) else []


def _kind(thing: Any) -> str:
    kinds: dict[str, Any] = {"tensor": Tensor, "bool": bool, "number": Real, "dictionary": Mapping, "sequence": (list, tuple)}
    return next((name for name, types in kinds.items() if isinstance(thing, types)), type(thing).__name__)


def _members(got: Any, expected: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    if dataclasses.is_dataclass(expected):
        got, expected = vars(got), vars(expected)
    if isinstance(expected, Mapping):
        yield from ((got[name], expected[name], str(name)) for name in expected)
    elif isinstance(expected, (list, tuple)):
        yield from ((a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(got, expected, strict=True)))


def _differing_tensor(got: Tensor, expected: Tensor, tolerance: float, place: str) -> str:
    got, expected = got.detach(), expected.detach()
    if got.dtype == expected.dtype and torch.equal(got, expected):       # the common case, and quick
        return ""
    got, expected = got.double(), expected.double()
    wrong = ~torch.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return ""
    first = tuple(wrong.nonzero()[0].tolist())
    where = f" at {int(wrong.sum())} of {wrong.numel()} places, first at {list(first)}" if first else ""
    yours = got[first].item()
    return f"{place} differs{where}: yours is {_short(yours)}, which is {_direction(yours, expected[first].item())}"


def _short(number: float) -> str:
    return f"{number:.4g}"


def _direction(got: float, expected: float) -> str:
    if not math.isfinite(got):
        return "not a finite number"
    return "too large" if got > expected else "too small"

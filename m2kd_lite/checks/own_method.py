"""Exercises of the capstone: what nothing beats, and the rows of a head made alike in length (`metrics.py`, `aligning.py`)."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from m2kd_lite.checks.engine import Case, Exercise, Mistake
from m2kd_lite.method import aligning, metrics

DOCSTRING = "the docstring"
DERIVATION = "the lesson's derivation"
EQ_10 = "Zhao et al. 2020, Eq. 9 and 10"


# ---- the frontier ---------------------------------------------------------------------------------------------------

def _beats(beats: Callable[[tuple, tuple], bool], then: Callable[[list[int], Sequence, Sequence], list] = lambda found, carried, _: sorted(
        found, key=lambda i: carried[i])) -> Callable:
    """The frontier with another notion of what beats what, (bytes, per cent) against (bytes, per cent), or another order."""
    def wrong(carried, accuracy):
        points = list(zip(carried, accuracy, strict=True))
        found = [i for i, own in enumerate(points) if not any(j != i and beats(other, own) for j, other in enumerate(points))]
        return then(found, carried, accuracy)
    return wrong


def _right(other: tuple, own: tuple) -> bool:
    return other[0] <= own[0] and other[1] >= own[1] and other != own


def _numbers(carried: tuple, accuracy: tuple) -> Callable[[], tuple]:
    return lambda: (list(carried), list(accuracy))


FRONTIER = Exercise(
    name="frontier", reference=metrics.frontier, returns="a list of positions, by bytes, ascending", look=DERIVATION,
    cases=(
        Case("six settings", _numbers((300, 100, 900, 200, 250, 950), (50.0, 30.0, 80.0, 20.0, 55.0, 70.0))),
        Case("two with the same bytes", _numbers((200, 100, 200), (40.0, 30.0, 45.0))),
        Case("two of the same accuracy", _numbers((300, 200, 100), (50.0, 50.0, 10.0))),
        Case("two that are equal in both", _numbers((200, 100, 200), (60.0, 20.0, 60.0))),
        Case("a single one", _numbers((7,), (3.0,))),
    ),
    mistakes=(
        Mistake("of two settings that are equal in both, each beats the other, and both are gone: being as good is not being better",
                DERIVATION, _beats(lambda other, own: other[0] <= own[0] and other[1] >= own[1])),
        Mistake("a setting with the same bytes and more accuracy does not beat the other here: one of the two comparisons may be a tie",
                DERIVATION, _beats(lambda other, own: other[0] < own[0] and other[1] >= own[1])),
        Mistake("a setting with fewer bytes and the same accuracy does not beat the other here: one of the two comparisons may be a tie",
                DERIVATION, _beats(lambda other, own: other[0] <= own[0] and other[1] > own[1])),
        Mistake("only what is better in both beats here: one of the two comparisons may be a tie", DERIVATION,
                _beats(lambda other, own: other[0] < own[0] and other[1] > own[1])),
        Mistake("better in one of the two is enough here to beat: it has to be at least as good in the other as well", DERIVATION,
                _beats(lambda other, own: other[0] < own[0] or other[1] > own[1])),
        Mistake("more bytes count as better here", DERIVATION,
                _beats(lambda other, own: other[0] >= own[0] and other[1] >= own[1] and other != own)),
        Mistake("less accuracy counts as better here", DERIVATION,
                _beats(lambda other, own: other[0] <= own[0] and other[1] <= own[1] and other != own)),
        Mistake("the positions are right, and not in the order of bytes", DOCSTRING, _beats(_right, lambda found, *_: found)),
        Mistake("the positions are right, and come by bytes, descending", DOCSTRING,
                _beats(_right, lambda found, carried, _: sorted(found, key=lambda i: -carried[i]))),
        Mistake("positions count from 1 here; they count from 0", DOCSTRING,
                _beats(_right, lambda found, carried, _: [i + 1 for i in sorted(found, key=lambda i: carried[i])])),
        Mistake("these are the bytes themselves; their positions are wanted", DOCSTRING,
                _beats(_right, lambda found, carried, _: sorted(carried[i] for i in found))),
        Mistake("these are all settings, by bytes: nothing is beaten here", DERIVATION,
                lambda carried, accuracy: sorted(range(len(carried)), key=lambda i: carried[i])),
        Mistake("these are the settings that are beaten", DERIVATION,
                lambda carried, accuracy: sorted(set(range(len(carried))) - set(metrics.frontier(carried, accuracy)), key=lambda i: carried[i])),
    ))


# ---- aligned rows ---------------------------------------------------------------------------------------------------

def _head(classes: int, old: int, seed: int) -> Callable[[], tuple]:
    """Rows that differ in length, new ones longer."""
    def arguments():
        weight = torch.randn(classes, 5, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.5, 2, classes)[:, None]
        weight[old:] *= 3
        return weight, old
    return arguments


def _scaled(scale: Callable[[Tensor, int], Tensor]) -> Callable:
    """Rows times a factor a row: `scale(weight, old)`, (classes,)."""
    return lambda weight, old: weight * scale(weight, old)[:, None]


def _new_alone(factor: Callable[[Tensor, Tensor], Tensor], on_old: bool = False) -> Callable:
    """One factor, from the old and the new rows, for the new ones; or for the old."""
    def scale(weight, old):
        factors = torch.ones(len(weight))
        if old:
            factors[slice(old) if on_old else slice(old, None)] = factor(weight[:old], weight[old:])
        return factors
    return _scaled(scale)


def _mean(rows: Tensor) -> Tensor:
    return rows.norm(dim=1).mean()


def _in_place(weight: Tensor, old: int) -> Tensor:
    if old:
        weight[old:] *= _mean(weight[:old]) / _mean(weight[old:])
    return weight


ALIGNED = Exercise(
    name="aligned_rows", reference=aligning.aligned_rows, returns="a (classes, features) tensor", look=EQ_10, tolerance=1e-5,
    cases=(
        Case("seven classes, four of them old", _head(7, 4, seed=1)), Case("one new class", _head(5, 4, seed=2)),
        Case("step 1: nothing is old", _head(4, 0, seed=3)),
    ),
    mistakes=(
        Mistake("the ratio is upside down: the new rows get longer still", EQ_10, _new_alone(lambda old, new: _mean(new) / _mean(old))),
        Mistake("the old rows are scaled; they stay as they are", EQ_10, _new_alone(lambda old, new: _mean(new) / _mean(old), on_old=True)),
        Mistake("the old rows are scaled, by the ratio that is meant for the new ones", EQ_10,
                _new_alone(lambda old, new: _mean(old) / _mean(new), on_old=True)),
        Mistake("all rows are scaled, old ones too: between them nothing changes", EQ_10,
                _scaled(lambda weight, old: (_mean(weight[:old]) / _mean(weight[old:]) if old else torch.ones(())).expand(len(weight)))),
        Mistake("each new row has its own factor, so that all have the same length: one factor for all keeps what they differ in", EQ_10,
                _scaled(lambda weight, old: torch.cat([torch.ones(old), _mean(weight[:old]) / weight[old:].norm(dim=1)]) if old
                        else torch.ones(len(weight)))),
        Mistake("every row is scaled to length 1", EQ_10, _scaled(lambda weight, old: 1 / weight.norm(dim=1))),
        Mistake("these are sums of the lengths; with unequal numbers of classes their means are something else", EQ_10,
                _new_alone(lambda old, new: old.norm(dim=1).sum() / new.norm(dim=1).sum())),
        Mistake("this is the length of the mean row; the mean of the lengths is meant", EQ_10,
                _new_alone(lambda old, new: old.mean(0).norm() / new.mean(0).norm())),
        Mistake("these are norms of whole blocks of rows; the mean of the rows' lengths is meant", EQ_10,
                _new_alone(lambda old, new: old.norm() / new.norm())),
        Mistake("these are squared lengths", EQ_10, _new_alone(lambda old, new: (old**2).sum(1).mean() / (new**2).sum(1).mean())),
        Mistake("these are sums of absolute values; lengths are Euclidean", EQ_10,
                _new_alone(lambda old, new: old.abs().sum(1).mean() / new.abs().sum(1).mean())),
        Mistake("these are lengths of columns, the features; a class is a row", EQ_10,
                _new_alone(lambda old, new: old.norm(dim=0).mean() / new.norm(dim=0).mean())),
        Mistake("in step 1 no row is old, and the mean of nothing is not a number: leave the rows as they are", DOCSTRING,
                _scaled(lambda weight, old: torch.cat([torch.ones(old), (_mean(weight[:old]) / _mean(weight[old:])).expand(len(weight) - old)]))),
        Mistake("only the new rows are returned", DOCSTRING, lambda weight, old: aligning.aligned_rows(weight, old)[old:]),
    ))

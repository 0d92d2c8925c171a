"""Exercises on a painter's masks: how steep they are, what they say, what is taken and what may still move (`method/reserving.py`)."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from m2kd_lite.checks.engine import Case, Exercise, Mistake
from m2kd_lite.method import reserving

DERIVATION = "the lesson's derivation"
DOCSTRING = "the docstring"
ANNEALING = "the lesson's derivation, and HAT, section 2.4"


# ---- steepness ------------------------------------------------------------------------------------------------------

def _steepness(top: Callable[[float, int, int], float] = lambda most, epoch, epochs: reserving.annealed(epoch, epochs, 0, 1, most),
               share: Callable[[int, int], float] = lambda batch, batches: batch / (batches - 1) if batches > 1 else 1.0,
               low: Callable[[float], float] = lambda top: min(top, 1 / top)) -> Callable:
    """The schedule with one part exchanged: the largest s of an epoch, how far the epoch is, and where it begins."""
    def wrong(epoch, epochs, batch, batches, most):
        reached = top(most, epoch, epochs)
        return low(reached) + (reached - low(reached)) * share(batch, batches)
    return wrong


def _line(most: float, share: float) -> float:
    return 1 / most + (most - 1 / most) * share


def _place(*where: float) -> Callable[[], tuple]:
    return lambda: where


STEEPNESS = Exercise(
    name="annealed", reference=reserving.annealed, returns="a number", look=ANNEALING, tolerance=1e-6,
    cases=(
        Case("the middle of the third of five epochs", _place(2, 5, 3, 7, 1000.0)),
        Case("its first batch", _place(2, 5, 0, 7, 1000.0)),
        Case("the last batch of the last epoch", _place(4, 5, 6, 7, 1000.0)),
        Case("the first epoch, whose largest s is below 1", _place(0, 5, 2, 7, 1000.0)),
        Case("a single epoch", _place(0, 1, 3, 7, 1000.0)),
        Case("epochs of a single batch", _place(1, 5, 0, 1, 1000.0)),
    ),
    mistakes=(
        Mistake("every epoch reaches the largest steepness; that is HAT's, where s starts over in each epoch. Here the largest s of an epoch "
                "rises as well", DERIVATION, _steepness(top=lambda most, epoch, epochs: most)),
        Mistake("s stays the same within an epoch: it rises from batch to batch", DERIVATION, _steepness(share=lambda batch, batches: 1.0)),
        Mistake("the last epoch does not reach the largest steepness: of E epochs, counted from 0, the last is E - 1", DOCSTRING,
                _steepness(top=lambda most, epoch, epochs: _line(most, epoch / epochs))),
        Mistake("the epochs are counted from 1 here, and s is too large by a step: the first one is number 0", DOCSTRING,
                _steepness(top=lambda most, epoch, epochs: _line(most, (epoch + 1) / epochs))),
        Mistake("the last batch of an epoch does not reach the epoch's steepness: of B batches, counted from 0, the last is B - 1", DOCSTRING,
                _steepness(share=lambda batch, batches: batch / batches)),
        Mistake("the batches are counted from 1 here: the first one is number 0", DOCSTRING,
                _steepness(share=lambda batch, batches: (batch + 1) / batches)),
        Mistake("an epoch begins at 0 here, where every weight is half there whatever its embedding: it begins at 1 over its steepness", DERIVATION,
                _steepness(low=lambda top: 0.0)),
        Mistake("an epoch begins at the smallest s of all here: it begins at 1 over its own steepness", DERIVATION,
                lambda epoch, epochs, batch, batches, most: 1 / most + (reserving.annealed(epoch, epochs, 0, 1, most) - 1 / most)
                * (batch / (batches - 1) if batches > 1 else 1.0)),
        Mistake("in the first epoch s falls here: its largest s is below 1, and 1 over that is above. Begin at the smaller of the two", DERIVATION,
                _steepness(low=lambda top: 1 / top)),
        Mistake("with a single epoch it is the last one, and reaches the largest steepness", DOCSTRING,
                _steepness(top=lambda most, epoch, epochs: _line(most, epoch / (epochs - 1) if epochs > 1 else 0.0))),
        Mistake("with a single batch it is the last one of its epoch, and reaches the epoch's steepness", DOCSTRING,
                _steepness(share=lambda batch, batches: batch / (batches - 1) if batches > 1 else 0.0)),
        Mistake("with a single epoch this divides by zero: it is the last one, and reaches the largest steepness", DOCSTRING,
                _steepness(top=lambda most, epoch, epochs: _line(most, epoch / (epochs - 1)))),
        Mistake("with a single batch this divides by zero: it is the last one of its epoch", DOCSTRING,
                _steepness(share=lambda batch, batches: batch / (batches - 1))),
    ))


# ---- a mask ---------------------------------------------------------------------------------------------------------

def _embeddings(scale: float, steepness: float, *shape: int) -> Callable[[], tuple]:
    return lambda: (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0)), steepness)


SOFT = Exercise(
    name="soft_mask", reference=reserving.soft_mask, returns="a tensor, the shape of the embedding", look=DERIVATION, tolerance=1e-5,
    cases=(
        Case("s = 1", _embeddings(1.0, 1.0, 3, 2, 4, 4)),
        Case("s = 20", _embeddings(0.1, 20.0, 5)),
        Case("a tiny s: one half everywhere", _embeddings(1.0, 1e-5, 5)),
        Case("a huge s: 0 or 1", _embeddings(1.0, 1e5, 5)),
    ),
    mistakes=(
        Mistake("the steepness is not used", DERIVATION, lambda embedding, s: torch.sigmoid(embedding)),
        Mistake("the embedding is divided by s: a larger s makes the mask flatter here, and it has to make it steeper", DERIVATION,
                lambda embedding, s: torch.sigmoid(embedding / s)),
        Mistake("s multiplies the sigmoid, not the embedding in it: such a mask is not between 0 and 1", DERIVATION,
                lambda embedding, s: s * torch.sigmoid(embedding)),
        Mistake("the mask is upside down: a large embedding means that the weight is taken", DERIVATION,
                lambda embedding, s: torch.sigmoid(-s * embedding)),
        Mistake("this mask is binary from the start, and no embedding gets a gradient: it is the sigmoid that is steep in the end", DERIVATION,
                lambda embedding, s: (embedding > 0).float()),
        Mistake("tanh runs from -1 to 1; a mask runs from 0 to 1", DERIVATION, lambda embedding, s: torch.tanh(s * embedding)),
        Mistake("the softmax makes the masks of all weights sum to 1; each weight is taken or left by itself", DERIVATION,
                lambda embedding, s: torch.softmax(s * embedding, -1)),
    ))


# ---- what is taken --------------------------------------------------------------------------------------------------

def _taken(*masks: tuple[int, int], now: tuple[int, int]) -> Callable[[], tuple]:
    """Masks of these sizes, (in, out), and a layer as it is now."""
    def make():
        draws = torch.Generator().manual_seed(0)
        return [torch.rand((*size, 2, 2), generator=draws) < 0.4 for size in masks], torch.randn((*now, 2, 2), generator=draws)
    return make


def _cumulated(join: Callable[[Tensor, Tensor], Tensor], masks: Sequence[Tensor], weight: Tensor, begin: bool = False) -> Tensor:
    out = torch.full_like(weight, begin, dtype=torch.bool)
    for mask in masks:
        part = out[:mask.shape[0], :mask.shape[1]]
        part.copy_(join(part, mask))
    return out


def _at_the_end(masks: Sequence[Tensor], weight: Tensor) -> Tensor:
    out = torch.zeros_like(weight, dtype=torch.bool)
    for mask in masks:
        out[len(out) - len(mask):, out.shape[1] - mask.shape[1]:] |= mask
    return out


CUMULATIVE = Exercise(
    name="cumulative_mask", reference=reserving.cumulative_mask, returns="a bool tensor, the shape of the weight", look=DERIVATION,
    cases=(
        Case("three steps", _taken((3, 4), (3, 4), (3, 4), now=(3, 4))),
        Case("two steps, and the layer has grown since the first", _taken((3, 4), (5, 6), now=(5, 6))),
        Case("a layer that has grown for the step under way", _taken((3, 4), now=(4, 7))),
        Case("step 1: nothing is taken", _taken(now=(3, 4))),
    ),
    mistakes=(
        Mistake("only the last step's mask counts here: what earlier steps took stays taken", DERIVATION,
                lambda masks, weight: reserving.cumulative_mask(masks[-1:], weight)),
        Mistake("only the first step's mask counts here", DERIVATION, lambda masks, weight: reserving.cumulative_mask(masks[:1], weight)),
        Mistake("only weights that every step took are reserved here: one step is enough", DERIVATION,
                lambda masks, weight: _cumulated(torch.logical_and, masks, weight, True)),
        Mistake("nothing is ever reserved: all of them and nothing is nothing. One step is enough to reserve a weight", DERIVATION,
                lambda masks, weight: _cumulated(torch.logical_and, masks, weight)),
        Mistake("a weight that two steps take is free here: taken twice is taken", DERIVATION,
                lambda masks, weight: _cumulated(torch.logical_xor, masks, weight)),
        Mistake("this is the other way round: True where a weight is reserved", DOCSTRING,
                lambda masks, weight: ~reserving.cumulative_mask(masks, weight)),
        Mistake("these are counts of steps: whether a weight is reserved is a bool, and `|` joins masks", DOCSTRING,
                lambda masks, weight: sum((reserving.cumulative_mask([mask], weight).long() for mask in masks), torch.zeros_like(weight).long())),
        Mistake("the result has the size of an old mask: it needs the layer's size as it is now, and what was added is free", DOCSTRING,
                lambda masks, weight: reserving.cumulative_mask(masks, masks[-1]) if masks else torch.zeros_like(weight, dtype=torch.bool)),
        Mistake("a layer grows at its end, so an old mask belongs to its beginning", DOCSTRING, _at_the_end),
        Mistake("the masks do not have the same size: a layer grows. Join each with the part of the layer that was there", DOCSTRING,
                lambda masks, weight: torch.stack(list(masks)).any(0) if masks else torch.zeros_like(weight, dtype=torch.bool)),
        Mistake("an old mask does not fit a layer that has grown: put it into the part of the layer that was there", DOCSTRING,
                lambda masks, weight: _whole(masks, weight)),
    ))


def _whole(masks: Sequence[Tensor], weight: Tensor) -> Tensor:
    out = torch.zeros_like(weight, dtype=torch.bool)
    for mask in masks:
        out = out | mask
    return out


# ---- what may move --------------------------------------------------------------------------------------------------

def _pulled(*shape: int, share: float = 0.5, odd: float | None = None) -> Callable[[], tuple]:
    """A gradient and what is reserved; `odd` stands in a reserved place."""
    def make():
        draws = torch.Generator().manual_seed(1)
        gradient, reserved = torch.randn(shape, generator=draws), torch.rand(shape, generator=draws) < share
        if odd is not None:
            reserved.view(-1)[0] = True
            gradient.view(-1)[0] = odd
        return gradient, reserved
    return make


GRADIENT = Exercise(
    name="free_gradient", reference=reserving.free_gradient, returns="a tensor, the shape of the gradient", look=DERIVATION,
    cases=(
        Case("half of a layer", _pulled(3, 4, 2, 2)),
        Case("nothing is reserved", _pulled(6, share=0.0)),
        Case("everything is reserved", _pulled(6, share=1.0)),
        Case("an infinite gradient at a reserved weight", _pulled(3, 4, odd=float("inf"))),
    ),
    mistakes=(
        Mistake("the free weights are held still, and the reserved ones move: it is the other way round", DERIVATION,
                lambda gradient, reserved: gradient * reserved),
        Mistake("infinity times 0 is not a number, and an update with it is none: put 0 in the place, with `torch.where` or `masked_fill`", DOCSTRING,
                lambda gradient, reserved: gradient * ~reserved),
        Mistake("nothing is held still: the gradient comes back as it was", DERIVATION, lambda gradient, reserved: gradient),
        Mistake("only the free part is returned: the shape has to stay, with 0 where a weight is reserved", DOCSTRING,
                lambda gradient, reserved: gradient[~reserved]),
        Mistake("the mask itself is returned, not the gradient", DOCSTRING, lambda gradient, reserved: (~reserved).float()),
        Mistake("a whole layer is held still as soon as one of its weights is reserved", DERIVATION,
                lambda gradient, reserved: torch.zeros_like(gradient) if reserved.any() else gradient),
    ))

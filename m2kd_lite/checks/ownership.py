"""Exercises on the mask: which weights a step keeps, and which a model uses (`masks.py`, section 3.3).

Layers have different sizes and scales, some weights belong to step 1, and counts round both up and down, so that each
rule that is left out shows. Wrong functions call the library's own with other arguments wherever that is possible.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from m2kd_lite.checks.engine import Case, Exercise, Mistake, Outcome
from m2kd_lite.method import masks

SECTION = "section 3.3"
RANKED = 'section 3.3, and docs/choices.md, "How are weights ranked?"'
EQ_7 = 'Eq. 7, section 3.3, and docs/choices.md, "Eq. 7\'s condition"'
RATIO = 0.7             # unlike 0.5, it tells the share that is kept from the share that is given back


# ---- prune ----------------------------------------------------------------------------------------------------------

class Lent(dict):
    """Weights by name that remember their tensors, because a network's weights have to change where they lie."""

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__(weights)
        self.tensors = dict(weights)


def _layers(step: int, **layers: tuple[list[float], list[int]]) -> Callable[[], tuple]:
    """Arguments of `prune`: per layer its weights and their owners."""
    def arguments():
        weights = {name: nn.Parameter(torch.tensor(values).view(-1, 1)) for name, (values, _) in layers.items()}
        owners = {name: torch.tensor(numbers, dtype=torch.uint8).view(-1, 1) for name, (_, numbers) in layers.items()}
        return Lent(weights), owners, step, RATIO
    return arguments


FIRST = ([0.9, -1.2, 0.3, 0.05, -0.7, 0.2, 1.5, -0.4], [0] * 8)                                         # keeps 2.4
WIDE = ([4.0, -9.0, 2.0, 7.5, -6.0, 1.0, 3.0, -8.0, 5.0], [0] * 9)                                      # keeps 2.7
LATER = ([2.2, -0.6, 0.1, -1.9, 0.8, -0.3, 2.5, 0.45, -1.1, 0.15, 1.8, -0.35], [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0])
WIDER = ([-5.0, 3.5, 9.5, -2.5, 6.5, 1.5, -7.0, 0.5, 4.5, 8.0], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
TIGHT = ([1.4, -0.8, 0.6], [1, 1, 0])                                                                   # keeps 0.3
TIES = ([0.5, -0.5, 0.1, 0.5, -0.9, 0.5, 0.2, -0.5], [0] * 8)


def _pruned(returned: Any, arguments: tuple) -> Any:
    if not isinstance(returned, Mapping):
        return returned
    lent = arguments[0]
    return {"masks": dict(returned), "weights": {name: tensor.detach().clone() for name, tensor in lent.tensors.items()},
            "in place": all(lent.get(name) is tensor for name, tensor in lent.tensors.items())}


def _replaced(got: Outcome, expected: Outcome) -> bool:
    return isinstance(got.value, dict) and not got.value["in place"]


def _watched(got: Outcome, expected: Outcome) -> bool:
    return isinstance(got.error, RuntimeError) and "in-place operation" in str(got.error)


def _other_of_equals(got: Outcome, expected: Outcome) -> bool:
    """The right number kept, of the right magnitudes, but at other positions."""
    if not (isinstance(got.value, dict) and got.value["masks"].keys() == expected.value["masks"].keys()):
        return False

    def kept(outcome: Outcome) -> list[list[float]]:
        new, weights = outcome.value["masks"], outcome.value["weights"]
        return [sorted(weights[name][mask > 0].abs().tolist()) for name, mask in new.items()]

    try:
        return kept(got) == kept(expected) and any(
            bool(((mask > 0) != (expected.value["masks"][name] > 0)).any()) for name, mask in got.value["masks"].items())
    except (TypeError, AttributeError, IndexError, RuntimeError):       # masks of another kind: not this mistake
        return False


reference = masks.prune


def _copies(weights: Mapping[str, Tensor], change: Callable[[Tensor], Tensor] = lambda w: w) -> dict[str, Tensor]:
    return {name: change(weight.detach()).clone() for name, weight in weights.items()}


def _give_back(weights: Mapping[str, Tensor], owners: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the weights that no step owns to zero."""
    for name, weight in weights.items():
        weight.data[owners[name] == 0] = 0.0
    return dict(owners)


def _ranked(change: Callable[[Tensor], Tensor]) -> Callable:
    """Weights ranked by something else than their magnitude."""
    return lambda weights, owners, step, ratio: _give_back(weights, reference(_copies(weights, change), owners, step, ratio))


def _keeping(count: Callable[[Tensor, Tensor, float], float]) -> Callable:
    """Another number kept in each layer: `count(weight, mask, ratio)`."""
    def wrong(weights, owners, step, ratio):
        new = {}
        for name, mask in owners.items():
            other = 1 - count(weights[name], mask, ratio) / int((mask == 0).sum())
            new |= reference({name: weights[name]}, {name: mask}, step, other)
        return new
    return wrong


def _marked(change: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Callable:
    """Other masks made of the right ones: `change(weight, mask before, right mask, step)`; what is free then becomes 0."""
    def wrong(weights, owners, step, ratio):
        right = reference(_copies(weights), owners, step, ratio)
        return _give_back(weights, {name: change(weights[name].detach(), owners[name], right[name], step) for name in right})
    return wrong


def _threshold(at_least: bool) -> Callable:
    """All free weights from the smallest kept magnitude on, or all above it: ties come in or stay out together."""
    def change(weight, before, right, step):
        smallest = weight[right == step].abs().min()
        inside = weight.abs() >= smallest if at_least else weight.abs() > smallest
        return before.masked_fill((before == 0) & inside, step)
    return _marked(change)


def _all_layers_together(weights, owners, step, ratio):
    sizes = [weight.numel() for weight in weights.values()]
    together = {"all": torch.cat([weight.detach().flatten() for weight in weights.values()])}
    new = reference(together, {"all": torch.cat([mask.flatten() for mask in owners.values()])}, step, ratio)["all"]
    return _give_back(weights, {name: part.view_as(owners[name])
                                for name, part in zip(weights, new.split(sizes), strict=True)})


def _only_the_masks(weights, owners, step, ratio):
    return reference(_copies(weights), owners, step, ratio)


def _only_this_step_left(weights, owners, step, ratio):
    new = reference(weights, owners, step, ratio)
    for name, weight in weights.items():
        weight.data[new[name] != step] = 0.0
    return new


def _earlier_owners_overrun(weights, owners, step, ratio):
    new = reference(_copies(weights), {name: torch.zeros_like(mask) for name, mask in owners.items()}, step, ratio)
    return _give_back(weights, {name: torch.where(new[name] == step, new[name], owners[name]) for name in new})


def _nothing_kept_of_few(weights, owners, step, ratio):
    few = {name: round((1 - ratio) * int((mask == 0).sum())) == 0 for name, mask in owners.items()}
    new = reference(_copies(weights), owners, step, ratio)
    return _give_back(weights, {name: owners[name] if few[name] else new[name] for name in new})


def _free(mask: Tensor) -> int:
    return int((mask == 0).sum())


PRUNE = Exercise(
    name="prune", reference=reference, returns="a dictionary of uint8 masks, by the names of the layers", look=RANKED,
    in_place=("weights",),
    cases=(
        Case("step 1: all weights are free", _layers(1, conv1=FIRST, conv2=WIDE), _pruned),
        Case("step 2: some weights belong to step 1", _layers(2, conv1=LATER, conv2=WIDER), _pruned),
        Case("step 2: a layer with a single free weight", _layers(2, conv1=FIRST, conv2=TIGHT), _pruned),
        Case("step 1: equal magnitudes", _layers(1, conv1=TIES), _pruned),
    ),
    mistakes=(
        Mistake("the weights are parameters, which autograd watches: they may change only where gradients are switched off",
                "torch.no_grad in PyTorch's documentation", sign=_watched),
        Mistake("new tensors were put into the dictionary; the network goes on with its old ones, so change those", SECTION,
                sign=_replaced),
        Mistake("the right number is kept, but of equal magnitudes not the earlier position: two runs could then differ",
                RANKED, sign=_other_of_equals),
        Mistake("the ratio is the share that is kept here; the pruning ratio is the share that is given back", SECTION,
                lambda weights, owners, step, ratio: reference(weights, owners, step, 1 - ratio)),
        Mistake("the ratio is taken of all weights of a layer; it is a share of the free ones, or soon nothing is left",
                RANKED, _keeping(lambda weight, mask, ratio: min(_free(mask), round((1 - ratio) * mask.numel())))),
        Mistake("one threshold for all layers together: layers of small weights would lose everything", SECTION,
                _all_layers_together),
        Mistake("the masks are right, but the weights that are given back are not set to zero", SECTION, _only_the_masks),
        Mistake("the weights of earlier steps are set to zero too: their models could not be rebuilt", SECTION,
                _only_this_step_left),
        Mistake("weights of earlier steps get a new owner: only free ones may be taken", SECTION, _earlier_owners_overrun),
        Mistake("the new masks forget the earlier owners", SECTION,
                _marked(lambda weight, before, right, step: right.masked_fill(right != step, 0))),
        Mistake("large negative weights are given back: rank by magnitude, not by value", SECTION, _ranked(torch.exp)),
        Mistake("the smallest weights are kept, and the largest given back", SECTION,
                _ranked(lambda weight: 1 / weight.abs())),
        Mistake("the mask is inverted: the step owns what is given back, and what it needs is marked as free", SECTION,
                _marked(lambda weight, before, right, step: torch.where(
                    before > 0, before, torch.where(right == step, torch.zeros_like(right), torch.full_like(right, step))))),
        Mistake("the mask says only whether a weight is taken; it has to say by which step", SECTION,
                _marked(lambda weight, before, right, step: (right > 0).to(torch.uint8))),
        Mistake("too many are kept: of equal magnitudes at the threshold, all come in", RANKED, _threshold(at_least=True)),
        Mistake("too few are kept: the weight at the threshold itself stays out", RANKED, _threshold(at_least=False)),
        Mistake("the number that is kept is cut off; it is rounded to the nearest whole number", RANKED,
                _keeping(lambda weight, mask, ratio: math.floor((1 - ratio) * _free(mask) + 1e-9))),
        Mistake("the number that is kept is always rounded up; it is rounded to the nearest whole number", RANKED,
                _keeping(lambda weight, mask, ratio: math.ceil((1 - ratio) * _free(mask) - 1e-9))),
        Mistake("a layer with few free weights keeps none of them; each step needs at least one in each layer", RANKED,
                _nothing_kept_of_few),
    ))


# ---- active ---------------------------------------------------------------------------------------------------------

def _at(step: int, *rows: list[int]) -> Callable[[], tuple]:
    return lambda: (torch.tensor(rows, dtype=torch.uint8), step)


ACTIVE = Exercise(
    name="active", reference=masks.active, returns="a bool tensor of the mask's shape", look=EQ_7,
    cases=(
        Case("model 2 of 4", _at(2, [0, 1, 2, 3], [4, 0, 2, 1], [3, 3, 1, 0])),
        Case("model 1: its own weights alone", _at(1, [0, 1, 2], [1, 0, 3])),
        Case("the latest model: every weight that has an owner", _at(3, [0, 1, 2], [3, 0, 3])),
    ),
    mistakes=(
        Mistake("free weights (M = 0) count as active: Eq. 7 as printed lets them in",
                EQ_7, lambda mask, step: mask <= step),
        Mistake("the weights of the model's own step are left out: later steps build on earlier ones, and add their own",
                EQ_7,
                lambda mask, step: (mask != 0) & (mask < step)),
        Mistake("the weights of its own step are left out, and free ones are in: a strict comparison, and one end forgotten",
                EQ_7, lambda mask, step: mask < step),
        Mistake("the weights of its own step alone: a model uses those of all earlier steps too", EQ_7,
                lambda mask, step: mask == step),
        Mistake("the mask is inverted: True where the model does not use a weight", EQ_7,
                lambda mask, step: ~masks.active(mask, step)),
        Mistake("these are the weights of later steps, which the model has never seen",
                EQ_7, lambda mask, step: mask > step),
        Mistake("these are the weights of this step and later ones: the comparison is the wrong way round", EQ_7,
                lambda mask, step: mask >= step),
        Mistake("every weight that has an owner, whatever the step: later ones came after this model", EQ_7,
                lambda mask, step: mask > 0),
        Mistake("these are the free weights", EQ_7, lambda mask, step: mask == 0),
        Mistake("every weight is active: two conditions must hold at once. If both are there, look at the brackets: "
                "Python's `&` binds tighter than a comparison", EQ_7, lambda mask, step: mask >= 0),
        Mistake("these are the owners' numbers; what is asked for is yes or no", EQ_7,
                lambda mask, step: mask * masks.active(mask, step)),
    ))

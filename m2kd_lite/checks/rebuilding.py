"""Exercise on rebuilding a past model from one weight set and a mask (`snapshots.py`, Eq. 7-8, section 3.3).

The snapshots are those of a real network, filled with noise: every step has its own batch norm and heads, and the free
weights are not zero, as they would be in the middle of the next step's training.
"""
from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from m2kd_lite.checks.engine import Case, Exercise, Mistake
from m2kd_lite.method import masks
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import SHARED, Snapshots

STEPS, CLASSES = 3, 2
EQ_7 = 'Eq. 7, section 3.3, and docs/choices.md, "Eq. 7\'s condition"'
EQ_8 = "Eq. 8 and the sentence before it, section 3.3"
PARTS = "the docstring of `snapshots.Snapshots`"
AUXILIARY = ("auxiliary.weight", "auxiliary.bias")


def _is_early(name: str) -> bool:
    return "stage2" not in name and "stage3" not in name


@functools.cache
def _history() -> Snapshots:
    """Three models of two classes a step: as much of a ResNet-8 as lies before its second stage, and the heads."""
    generator = torch.Generator().manual_seed(11)
    net = IncrementalNet("resnet8", 3, True, seed=0)
    past = Snapshots("resnet8", 3, True)
    owners = {name: torch.randint(0, STEPS + 1, weight.shape, dtype=torch.uint8, generator=generator)
              for name, weight in net.convolutions().items() if _is_early(name)}
    for step in range(1, STEPS + 1):
        net.grow_heads(step * CLASSES, step)
        with torch.no_grad():
            for tensor in net.state_dict().values():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        past.add(net, owners)
        past.parts[-1] = {name: part for name, part in past.parts[-1].items() if _is_early(name)}
    return past


def reconstruct(snapshots: Snapshots, step: int) -> dict[str, Tensor]:
    """The state dictionary of model `step`, as the library rebuilds it."""
    return snapshots.state(step)


def _state(returned: Any, arguments: tuple) -> Any:
    """Of the auxiliary head only the rows of the step's own classes: no others are stored; how they are filled is free."""
    if not isinstance(returned, Mapping):
        return returned
    return {name: tensor[-CLASSES:] if name in AUXILIARY and isinstance(tensor, Tensor) else tensor
            for name, tensor in returned.items()}


def _model(step: int) -> Callable[[], tuple]:
    return lambda: (copy.deepcopy(_history()), step)


def _is_head(name: str) -> bool:
    return name.startswith(("main.", "auxiliary."))


def _using(choice: Callable[[Tensor, int], Tensor]) -> Callable:
    """The library's state with other weights active: `choice(mask, step)`."""
    def wrong(snapshots, step):
        chosen = {name: weight.masked_fill(~choice(snapshots.masks[name], step), 0.0)
                  for name, weight in snapshots.weights.items()}
        return snapshots.state(step) | chosen
    return wrong


def _parts_of(other: Callable[[Snapshots, int], dict], which: Callable[[str], bool]) -> Callable:
    """The library's state with some parts of another step: those whose names are among `which`."""
    def wrong(snapshots, step):
        return snapshots.state(step) | {name: part for name, part in other(snapshots, step).items() if which(name)}
    return wrong


def _without(which: Callable[[str], bool]) -> Callable:
    return lambda snapshots, step: {name: part for name, part in snapshots.state(step).items() if not which(name)}


def _active_alone(snapshots: Snapshots, step: int) -> dict[str, Tensor]:
    return snapshots.state(step) | {name: weight[masks.active(snapshots.masks[name], step)]
                                    for name, weight in snapshots.weights.items()}


def _latest(snapshots: Snapshots, step: int) -> dict[str, Tensor]:
    return snapshots.parts[-1]


def _next(snapshots: Snapshots, step: int) -> dict[str, Tensor]:
    return snapshots.parts[step]


def _is_weight(name: str) -> bool:
    return name in _history().weights


def _is_norm(name: str) -> bool:
    return not (_is_head(name) or _is_weight(name) or name in SHARED)


RECONSTRUCT = Exercise(
    name="reconstruct", reference=reconstruct, returns="a state dictionary: tensors by their names in the network",
    look=f"Eq. 7 and Eq. 8, section 3.3, and {PARTS}",
    cases=tuple(Case(f"model {step} of {STEPS}, bit for bit", _model(step), _state) for step in (1, 2, STEPS)),
    mistakes=(
        Mistake("it changed the snapshots themselves, from which other models are still to be rebuilt: work on copies",
                PARTS,
                sign=lambda got, expected: got.changed == "snapshots"),
        Mistake("all weights are active: those of later steps, which this model never saw, and the free ones", EQ_7,
                _using(lambda mask, step: mask >= 0)),
        Mistake("every weight with an owner is active, those of later steps too", EQ_7, _using(lambda mask, step: mask > 0)),
        Mistake("free weights are active: M = 0 is no step's number, though Eq. 7 as printed lets it in", EQ_7,
                _using(lambda mask, step: mask <= step)),
        Mistake("the weights of the model's own step are missing", EQ_7,
                _using(lambda mask, step: (mask != 0) & (mask < step))),
        Mistake("the weights of earlier steps are missing; this model was built on them", EQ_7,
                _using(lambda mask, step: mask == step)),
        Mistake("the weights that should be zero are kept, and those that should be kept are zero", EQ_7,
                _using(lambda mask, step: ~masks.active(mask, step))),
        Mistake("the weights that are not active are cut out; they stay in their places, as zeros", EQ_7, _active_alone),
        Mistake("batch norm and heads are those of the latest step; each model has its own", EQ_8,
                _parts_of(_latest, lambda name: True)),
        Mistake("the heads are right, but batch norm is that of the latest step: saved per model, statistics included", EQ_8,
                _parts_of(_latest, _is_norm)),
        Mistake("the heads are those of the latest step, with classes that this model does not know", EQ_8,
                _parts_of(_latest, _is_head)),
        Mistake("batch norm and heads are those of the step after: steps count from 1, lists from 0", PARTS,
                _parts_of(_next, lambda name: True)),
        Mistake("batch norm of this step is missing from the state", EQ_8, _without(_is_norm)),
        Mistake("the heads of this step are missing from the state", EQ_8, _without(_is_head)),
        Mistake("batch norm and heads of this step are missing: the weights alone make no model", EQ_8,
                _without(lambda name: _is_norm(name) or _is_head(name))),
        Mistake("the pixel statistics that all models share are missing from the state", PARTS,
                _without(lambda name: name in SHARED)),
        Mistake("the convolution weights are missing: these are the parts that only this step has",
                EQ_7, _without(_is_weight)),
        Mistake("the weights and the pixel statistics that all models share are missing: these are this step's parts alone",
                PARTS, _without(lambda name: _is_weight(name) or name in SHARED)),
    ))

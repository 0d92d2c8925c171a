"""Pruning and ownership (section 3.3): which step owns each weight, which are active in model k, which may still move.

The mask `M` has one entry a weight: the number of the step that owns it, 0 while it is free. After a step, each layer
keeps its largest free weights for that step and gives the rest back, set to zero, for the steps to come. The rule is
PackNet's (Mallya & Lazebnik 2017), on magnitudes, layer by layer. Called by `train.py` and `snapshots.py`.
"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from m2kd_lite.errors import LayerExhausted


def new_masks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights free: uint8 zeros, one mask a convolution."""
    return {name: torch.zeros_like(weight, dtype=torch.uint8) for name, weight in weights.items()}


def kept_count(free: int, ratio: float) -> int:
    """How many of `free` weights a step keeps: round((1 - ratio) x free), at least 1."""
    return min(free, max(1, round((1 - ratio) * free)))


def check_lasting(sizes: Mapping[str, int], steps: int, ratio: float) -> None:
    """Raise LayerExhausted if a layer would have no free weight left before the last step: said before anything is trained.

    Parameters
    ----------
    sizes : weights of each layer by name.
    steps, ratio : of the run.
    """
    for name, size in sizes.items():
        left = size
        for step in range(1, steps + 1):
            if not left:
                raise LayerExhausted(f"{name} has no free weight left for step {step}: its {size} weights, at pruning ratio {ratio}, "
                                     f"last for {step - 1} of {steps} steps; a larger pruning ratio or class batch is needed")
            left -= kept_count(left, ratio)


@torch.no_grad()
def prune(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], step: int, ratio: float) -> dict[str, Tensor]:
    """Give each layer's largest free weights to `step`, and the rest back.

    Parameters
    ----------
    weights : convolution weights by name. Changed in place: free weights that are not kept become 0.
    masks : uint8, the same shapes. Not changed.
    step : the owner of what is kept, from 1.
    ratio : the pruning ratio, the share of the *free* weights that is given back.

    Returns
    -------
    the new masks. Every layer keeps exactly `kept_count` weights; of equal magnitudes the earlier position is kept.

    Raises
    ------
    LayerExhausted : a layer has no free weight; no weight has been changed.
    """
    for name, mask in masks.items():
        if not bool((mask == 0).any()):
            raise LayerExhausted(f"{name} has no free weight left for step {step}: {mask.numel()} weights are owned by "
                                 f"earlier steps; a larger pruning ratio than {ratio} leaves more for later steps")
    pruned = {}
    for name, weight in weights.items():
        owners = masks[name].reshape(-1).clone()
        free = (owners == 0).nonzero().squeeze(1)
        # A stable sort leaves ties in the order of their positions.
        largest_first = weight.reshape(-1)[free].abs().sort(descending=True, stable=True).indices
        kept = free[largest_first[:kept_count(len(free), ratio)]]
        owners[kept] = step
        pruned[name] = owners.view_as(weight)
        weight.masked_fill_(pruned[name] == 0, 0.0)
    return pruned


def active(mask: Tensor, step: int) -> Tensor:
    """Eq. 7: the weights that model `step` uses, (M > 0) & (M <= step). Bool, the shape of `mask`.

    The paper prints M <= k alone, which would count the free weights (M = 0) too.
    """
    return (mask > 0) & (mask <= step)


def free(mask: Tensor) -> Tensor:
    """The weights that no step owns yet. Bool, the shape of `mask`."""
    return mask == 0

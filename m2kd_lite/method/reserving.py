"""Which weights of a painter a step takes, and what it may not move: the masks of DGM (Ostapenko et al. 2019, section 3.2).

A mask begins soft, one half everywhere, and grows steep while it is learnt, as in Serrà et al. 2018 (HAT). In the end each weight is taken
or left. What is taken is reserved. `Masking` holds the functions that a notebook may exchange; `painter.py` and `replay.py` use them.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

S_MAX = 1e5                 # the steepest sigmoid of a mask: the paper's value but for SVHN


def annealed(epoch: int, epochs: int, batch: int, batches: int, most: float) -> float:
    """The steepness s of the masks: it rises over the epochs from 1/most to `most`, and in each epoch from 1/s to s.

    As in Serrà et al. 2018 (HAT), section 2.4: with a small s all embeddings get a gradient, with a large one masks are binary.

    Parameters
    ----------
    epoch, batch : which, from 0, of `epochs` and of the `batches` of an epoch.
    most : the largest steepness, see `S_MAX`.
    """
    top = 1 / most + (most - 1 / most) * (epoch / (epochs - 1) if epochs > 1 else 1.0)
    low = min(top, 1 / top)
    return low + (top - low) * (batch / (batches - 1) if batches > 1 else 1.0)


def soft_mask(embedding: Tensor, s: float) -> Tensor:
    """m = sigmoid(s e): one half everywhere at first, in the end 0 or 1."""
    return torch.sigmoid(s * embedding)


def compensation(embedding: Tensor, s: float, most: float = S_MAX) -> Tensor:
    """What the gradient of an embedding is multiplied by, so that it does not depend on the steepness (HAT, section 2.5)."""
    return (most / s) * (torch.cosh((s * embedding).clamp(-50, 50)) + 1) / (torch.cosh(embedding) + 1)


def cumulative_mask(masks: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Which weights of a layer the steps so far have taken, one or several: nobody may move them again.

    Parameters
    ----------
    masks : of finished steps, the oldest first: bool, (in, out, height, width) as the layer was in that step. A layer only grows, at its end.
    weight : of the layer as it is now, float32, at least as large.

    Returns
    -------
    bool, the shape of `weight`.
    """
    taken = torch.zeros_like(weight, dtype=torch.bool)
    for mask in masks:
        taken[:mask.shape[0], :mask.shape[1]] |= mask
    return taken


def free_gradient(gradient: Tensor, reserved: Tensor) -> Tensor:
    """The gradient where a weight is free, and 0 where it is reserved, whatever stands there.

    Parameters
    ----------
    gradient : float32 of any shape. Not changed.
    reserved : bool, the same shape.
    """
    return gradient.masked_fill(reserved, 0.0)


def newly_taken(masks: Sequence[Tensor], reserved: Sequence[Tensor]) -> Tensor:
    """The share of the free weights that masks take: sum of m (1 - reserved) over sum of (1 - reserved), a scalar."""
    taken = sum((mask * ~before).sum() for mask, before in zip(masks, reserved, strict=True))
    free = sum((~before).sum() for before in reserved)
    return torch.as_tensor(taken / free)


def grown(widths: Sequence[int], first: Sequence[int], reserved: Sequence[int], kernel: int) -> list[int]:
    """Output channels of each shared layer in the next step, so that as many weights are free as in step 1.

    Parameters
    ----------
    widths : in the last step: input of the first layer, then the output of each.
    first : the same in step 1.
    reserved : weights of each layer that are reserved.
    kernel : weights across a kernel.
    """
    out = [widths[0]]
    for layer, taken in enumerate(reserved):
        needed = taken + first[layer] * first[layer + 1] * kernel**2
        out.append(max(widths[layer + 1], math.ceil(needed / (out[layer] * kernel**2))))
    return out[1:]


@dataclass(frozen=True)
class Masking:
    """What a painter reserves by: the functions above, for a notebook to exchange."""

    steepness: Callable[..., float] = annealed
    soft: Callable[..., Tensor] = soft_mask
    cumulative: Callable[..., Tensor] = cumulative_mask
    gradient: Callable[..., Tensor] = free_gradient


MASKING = Masking()

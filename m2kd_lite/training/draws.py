"""Chance in training: the order of the images, who is mirrored and by how much each is shifted, from the run's seed alone.

Nothing is drawn before, so nothing needs to be remembered: a resumed run draws the same, and a method may ask after a step
what was drawn in it. Called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from m2kd_lite import seeds
from m2kd_lite.config import RunConfig

PADDING = 4             # pixels on each side of which a crop is cut: incremental_learning.pytorch and He et al. 2016, section 4.2


def batches(config: RunConfig, *kinds: int) -> tuple[int, int]:
    """The size and the number of the batches of an epoch over so many images; of several kinds, if they are kept `apart`.

    iCaRL's code drops an incomplete last batch; a step smaller than one batch is trained whole.
    """
    size = min(config.batch_size, *kinds)
    return size, sum(count // size for count in kinds)


def of_epoch(config: RunConfig, step: int, phase: str, epoch: int, count: int) -> tuple[Tensor, ...]:
    """The order of all images, and who is mirrored: (count,) int64 both. With crops, the pixels of each shift too: (count, 2)."""
    chance = seeds.generator(config.seed, step, phase, epoch)
    drawn = [chance.permutation(count), chance.integers(0, 2, count)]
    if config.augment == "crop":
        drawn.append(chance.integers(0, 2 * PADDING + 1, (count, 2)))
    return tuple(map(torch.from_numpy, drawn))


def apart(drawn: tuple[Tensor, ...], kinds: Sequence[int], size: int) -> tuple[Tensor, ...]:
    """The same draw, in whole batches of one kind of images each, in the order in which they would begin; one kind alone is left as it is.

    Parameters
    ----------
    drawn : see `of_epoch`.
    kinds : how many images there are of each kind, those of the first before those of the second.
    size : of a batch.
    """
    if len(kinds) == 1:
        return drawn
    first = drawn[0] < kinds[0]
    whole = [places for kind in (first, ~first) for places in kind.nonzero().squeeze(1).split(size) if len(places) == size]
    together = torch.cat(sorted(whole, key=lambda places: int(places[0])))
    return tuple(part[together] for part in drawn)


def of_training(config: RunConfig, step: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch of a step's training, the images of its whole batches, and which of them were mirrored."""
    size, number = batches(config, count)
    for epoch in range(config.epochs):
        order, flips = of_epoch(config, step, "train", epoch, count)[:2]
        yield order[:size * number], flips[:size * number]

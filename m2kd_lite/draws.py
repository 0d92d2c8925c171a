"""Chance in training: the order of the images and who is mirrored, in every epoch, from the run's seed alone.

Nothing is drawn before, so nothing needs to be remembered: a resumed run draws the same, and a method may ask after a step
what was drawn in it. Called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from m2kd_lite import seeds
from m2kd_lite.config import RunConfig


def batches(config: RunConfig, count: int) -> tuple[int, int]:
    """The size and the number of the batches of an epoch over `count` images.

    iCaRL's code drops an incomplete last batch; a step smaller than one batch is trained whole.
    """
    size = min(config.batch_size, count)
    return size, count // size


def of_epoch(config: RunConfig, step: int, phase: str, epoch: int, count: int) -> tuple[Tensor, Tensor]:
    """The order of all images, and who is mirrored: (count,) int64 both."""
    chance = seeds.generator(config.seed, step, phase, epoch)
    order, flips = chance.permutation(count), chance.integers(0, 2, count)
    return torch.from_numpy(order), torch.from_numpy(flips)


def of_training(config: RunConfig, step: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch of a step's training, the images of its whole batches, and which of them were mirrored."""
    size, number = batches(config, count)
    for epoch in range(config.epochs):
        yield tuple(drawn[:size * number] for drawn in of_epoch(config, step, "train", epoch, count))

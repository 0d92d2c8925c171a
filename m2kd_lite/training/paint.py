"""The painter's part in a run: its phase of a step, and the drawn images that a later step trains on (DGM).

What is drawn follows from the seed and the place in the run, so that a resumed run draws the same. Called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from m2kd_lite import seeds
from m2kd_lite.config import RunConfig
from m2kd_lite.data.shards import Images, blocks_of
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import painter as painters
from m2kd_lite.method.painter import Painter
from m2kd_lite.method.replay import RATE, Critic, Duel
from m2kd_lite.method.reserving import S_MAX, Masking

if TYPE_CHECKING:
    from m2kd_lite.training.state import State

LARGEST_BATCH = 64          # the authors have 64 to 70; smaller where the run's own is


def new_painter(config: RunConfig, stream: ClassStream, masking: Masking) -> Painter:
    """A painter that has learnt nothing."""
    return Painter(len(stream.class_names), stream.train_images.shape[1], config.generator_width, config.seed, masking)


def new_duel(painter: Painter, config: RunConfig, classes: int) -> Duel:
    """What trains the painter in the step that it has begun, with a critic of `classes` classes."""
    critic = Critic(painter.channels, painter.width, classes, config.seed, len(painter.parts)).to(painter.device)
    return Duel(painter, critic, config.mask_penalty)


def resumed(painter: Painter | None, tensors: Mapping[str, Tensor], config: RunConfig, stream: ClassStream, step: int) -> Duel | None:
    """Fill the painter from a checkpoint, and give the duel that was under way in `step`, if any.

    Raises
    ------
    KeyError, ValueError : what is there does not fit this run.
    """
    groups: dict[str, dict[str, Tensor]] = {"painter": {}, "duel": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor
    if painter is None:
        if tensors:
            raise ValueError("it has a painter, and this run has none")
        return None
    painter.load(groups["painter"])
    if len(painter.parts) != step - (not groups["duel"]):
        raise ValueError("its painter is of another step")
    if not groups["duel"]:
        return None
    duel = new_duel(painter, config, stream.columns[step - 1].stop)
    duel.load(groups["duel"])
    return duel


def drawn(painter: Painter, columns: Sequence[range], a_class: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Images of old classes, each step's by its own generator, and their labels.

    Parameters
    ----------
    columns : of the steps to draw.
    a_class : images of each class.
    seed, step : of the run, and of the step that asks: each asks for other images.
    """
    chance, images, labels = seeds.generator(seed, step, "draw"), [], []
    for of, classes in enumerate(columns, 1):
        own = torch.arange(classes.start, classes.stop).repeat_interleave(a_class)
        noise = _normal(chance, len(own), painter.draw_size)
        images.append(painter.paint(own.to(painter.device), noise.to(painter.device), of))
        labels.append(own)
    return torch.cat(images), torch.cat(labels)


def with_old(images: Images, labels: Tensor, painter: Painter | None, config: RunConfig, columns: Sequence[range]) -> tuple[Images, Tensor]:
    """The new images, then as many drawn ones of each old class as a new class has on average; without a painter, as they are.

    Parameters
    ----------
    columns : of all steps so far, this one's last.
    """
    if painter is None:
        return images, labels
    whole = images if isinstance(images, Tensor) else torch.cat(list(blocks_of(images)))
    if len(columns) == 1:
        return whole, labels
    old, old_labels = drawn(painter, columns[:-1], round(len(labels) / len(columns[-1])), config.seed, len(columns))
    return torch.cat([whole, old.to(whole.device)]), torch.cat([labels, old_labels.to(labels.device)])


def kinds(painter: Painter | None, labels: Tensor, columns: range) -> tuple[int, ...]:
    """How many of a step's images are real, and how many drawn; without a painter or drawn ones, how many there are.

    A batch has one kind only, so that batch norm sees each by itself. In mixed batches a classifier of digits told the kinds apart
    rather than the classes: after three steps it put 92 % of the first step's real images into classes of the other two.
    """
    real = int((labels >= columns.start).sum())
    return (len(labels),) if painter is None or real == len(labels) else (real, len(labels) - real)


class Lesson:
    """The painter's phase of a step: what it learns from, in which order.

    Parameters
    ----------
    state : its `duel` is made if this phase begins, and goes on if the run was resumed in it.
    images, labels : see `with_old`, on the device.
    columns : of this step.

    Attributes
    ----------
    size, batches : new images of an update; updates of an epoch.
    """

    def __init__(self, state: State, images: Images, labels: Tensor, config: RunConfig, columns: range):
        assert state.painter is not None and isinstance(images, Tensor)         # `with_old` made them so
        self._new, self._old = ((labels >= columns.start).nonzero().squeeze(1), (labels < columns.start).nonzero().squeeze(1))
        self._images, self._labels, self._config, self._loss_sum, self._step = images, labels, config, state.loss_sum, state.position.step
        self.size = min(config.batch_size, LARGEST_BATCH, len(self._new))
        self.batches = len(self._new) // self.size
        if state.duel is None:
            state.painter.to(images.device).begin_step()
            state.duel = new_duel(state.painter, config, columns.stop)
        self._duel = state.duel

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch: the same in all of them."""
        return RATE

    def epoch(self, epoch: int, done: int) -> Iterator[int]:
        """Make the updates of an epoch, from 0, of which `done` have been made. Yields how many have been, after each."""
        chance, device = seeds.generator(self._config.seed, self._step, "paint", epoch), self._images.device
        order, old = (torch.from_numpy(chance.permutation(len(rows))).to(device) for rows in (self._new, self._old))
        noise = _normal(chance, self.batches * self.size, self._duel.painter.draw_size).to(device)
        where = torch.from_numpy(chance.random(self.batches * self.size, dtype=np.float32)).to(device)
        for batch in range(done, self.batches):
            rows = slice(batch * self.size, (batch + 1) * self.size)
            new = self._new[order[rows]]
            before = self._old[old[batch * len(old) // self.batches:(batch + 1) * len(old) // self.batches]]
            s = self._duel.painter.masking.steepness(epoch, self._config.generator_epochs, batch, self.batches, S_MAX)
            self._loss_sum += self._duel.update(self._images[new], self._labels[new], self._images[before], self._labels[before],
                                                noise[rows], where[rows], s)
            yield batch + 1


def end_step(painter: Painter | None, config: RunConfig, columns: Sequence[range]) -> None:
    """Reserve what the step's masks take, and settle its batch norms. Without a painter there is nothing to do."""
    if painter is None:
        return
    painter.reserve()
    labels = torch.arange(painters.SETTLING, device=painter.device) % len(columns[-1]) + columns[-1].start
    noise = _normal(seeds.generator(config.seed, len(columns), "draw", 1), len(labels), painter.draw_size).to(painter.device)
    painter.settle(painter.draws(labels, noise))


def _normal(chance: np.random.Generator, rows: int, columns: int) -> Tensor:
    return torch.from_numpy(chance.standard_normal((rows, columns), dtype=np.float32))

"""The class stream: which classes arrive at which incremental step, and the images that come with them.

Section 3.1: "Samples from a batch of new classes are added at the k-th incremental step." Labels handed out here are
positions in the class order, so that the columns of step k are one range, and class names follow. Called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m2kd_lite import data, seeds
from m2kd_lite.config import RunConfig
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.masks import MAX_STEPS


def class_order(name: str, classes: int, seed: int) -> list[int]:
    """The classes in order of arrival.

    Two different orders are both called "1993" in the literature. `seed1993` is numpy's first shuffle from that seed
    (68, 56, 78, 8, 23 ... for 100 classes); `icarl` is the order of iCaRL's released code, which first draws 100
    permutations of 500 images from the same state (87, 0, 52, 58, 44 ...). `random` depends on the run's seed.
    """
    order = np.arange(classes)
    if name == "random":
        return seeds.generator(seed, 0, "order").permutation(classes).tolist()
    if name != "natural":
        state = np.random.RandomState(1993)
        if name == "icarl":
            for _ in range(100):
                state.shuffle(np.arange(500))
        state.shuffle(order)
    return order.tolist()


def class_columns(classes: int, class_batch: int) -> list[range]:
    """The columns of steps 1, 2, ...: consecutive ranges; the last one is shorter where the batch does not divide."""
    return [range(start, min(start + class_batch, classes)) for start in range(0, classes, class_batch)]


@dataclass(frozen=True)
class ClassStream:
    """A data set as a sequence of incremental steps, counted from 1.

    Attributes
    ----------
    class_names : in order of arrival; labels are positions in it.
    columns : per step, the range of its classes.
    """

    class_names: tuple[str, ...]
    columns: tuple[range, ...]
    train_images: Tensor        # (N, C, H, W) uint8
    train_labels: Tensor        # (N,) int64, positions in the class order
    test_images: Tensor
    test_labels: Tensor
    sha256: str = ""            # of the images, before they were arranged

    @classmethod
    def of_run(cls, config: RunConfig, on_event: OnEvent = ignore) -> ClassStream:
        """The stream that a run with this configuration sees.

        Raises
        ------
        BadInput : no such data set; or see `of`.
        """
        images = data.load(config.dataset, config.data_root, on_event).fewer(config.train_per_class, config.test_per_class)
        return cls.of(images, config.class_order, config.class_batch, config.seed)

    @classmethod
    def of(cls, images: ImageSet, order: str, class_batch: int, seed: int) -> ClassStream:
        """Arrange `images` in class order.

        Raises
        ------
        BadInput : the class batch is larger than the data set, or makes more steps than a mask can number.
        """
        classes = len(images.class_names)
        if not 1 <= class_batch <= classes:
            raise BadInput(f"--class-batch {class_batch}: not allowed; give a whole number from 1 to {classes}, "
                           f"the classes of {images.name}")
        columns = class_columns(classes, class_batch)
        if len(columns) > MAX_STEPS:
            raise BadInput(f"--class-batch {class_batch}: not allowed; {classes} classes make {len(columns)} steps, and "
                           f"at most {MAX_STEPS} can be numbered; give {-(-classes // MAX_STEPS)} or more")
        arrival = class_order(order, classes, seed)
        position = torch.empty(classes, dtype=torch.int64)
        position[torch.tensor(arrival)] = torch.arange(classes)
        return cls(tuple(images.class_names[label] for label in arrival), tuple(columns),
                   images.train_images, position[images.train_labels], images.test_images, position[images.test_labels],
                   images.sha256)

    def __len__(self) -> int:
        return len(self.columns)

    def train(self, step: int, all_seen: bool = False) -> tuple[Tensor, Tensor]:
        """Training images and labels of a step's new classes; with `all_seen`, of every class seen by then."""
        first = 0 if all_seen else self.columns[step - 1].start
        return _between(self.train_images, self.train_labels, first, self.columns[step - 1].stop)

    def train_rows(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The training images and labels that lists of rows, (n,) int64 each, name one after the other."""
        chosen = torch.cat(list(rows))
        return self.train_images[chosen], self.train_labels[chosen]

    def test(self, step: int) -> tuple[Tensor, Tensor]:
        """Test images and labels of all classes seen after a step."""
        return _between(self.test_images, self.test_labels, 0, self.columns[step - 1].stop)


def _between(images: Tensor, labels: Tensor, first: int, stop: int) -> tuple[Tensor, Tensor]:
    rows = ((labels >= first) & (labels < stop)).nonzero().squeeze(1)
    return images[rows], labels[rows]

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
from m2kd_lite.config import MAX_STEPS, RunConfig
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.shards import Images, chosen
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent, ignore


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


def class_columns(classes: int, class_batch: int, first_class_batch: int | None = None) -> list[range]:
    """The columns of steps 1, 2, ...: consecutive ranges; the last one is shorter where the batch does not divide."""
    first = min(first_class_batch or class_batch, classes)
    return [range(first), *(range(start, min(start + class_batch, classes)) for start in range(first, classes, class_batch))]


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
    train_images: Images        # (N, C, H, W) uint8, in memory or on disk
    train_labels: Tensor        # (N,) int64, positions in the class order
    test_images: Images
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
        return cls.of(images, config.class_order, config.class_batch, config.seed, config.first_class_batch)

    @classmethod
    def of(cls, images: ImageSet, order: str, class_batch: int, seed: int, first_class_batch: int | None = None) -> ClassStream:
        """Arrange `images` in class order.

        Parameters
        ----------
        images : the data set.
        order : a name of `class_order`.
        class_batch : new classes at each step.
        seed : of the order "random".
        first_class_batch : classes of the first step, if they are others than those of each later one.

        Raises
        ------
        BadInput : the class batch is larger than the data set, or makes more steps than a mask can number.
        """
        classes = len(images.class_names)
        if not 1 <= class_batch <= classes:
            raise BadInput(f"--class-batch {class_batch}: not allowed; give a whole number from 1 to {classes}, "
                           f"the classes of {images.name}")
        if first_class_batch is not None and not 1 <= first_class_batch <= classes:
            raise BadInput(f"--first-class-batch {first_class_batch}: not allowed; give a whole number from 1 to {classes}, "
                           f"the classes of {images.name}")
        columns = class_columns(classes, class_batch, first_class_batch)
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

    def last_step(self, steps: int | None) -> int:
        """The step at which a run of so many steps ends; None is all of them. Raises BadInput for more than there are."""
        if steps is not None and steps > len(self):
            raise BadInput(f"--steps {steps}: not allowed; give a whole number from 1 to {len(self)}, or all")
        return steps or len(self)

    def new_rows(self, step: int, all_seen: bool = False) -> Tensor:
        """(n,) int64: which training images are of a step's new classes; with `all_seen`, of every class seen by then."""
        return _between(self.train_labels, 0 if all_seen else self.columns[step - 1].start, self.columns[step - 1].stop)

    def train(self, step: int, all_seen: bool = False) -> tuple[Images, Tensor]:
        """Training images and labels of a step's new classes; with `all_seen`, of every class seen by then."""
        return self.train_rows([self.new_rows(step, all_seen)])

    def train_rows(self, rows: Sequence[Tensor]) -> tuple[Images, Tensor]:
        """The training images and labels that lists of rows, (n,) int64 each, name one after the other."""
        named = torch.cat(list(rows))
        return chosen(self.train_images, named), self.train_labels[named]

    def test(self, step: int) -> tuple[Images, Tensor]:
        """Test images and labels of all classes seen after a step."""
        rows = _between(self.test_labels, 0, self.columns[step - 1].stop)
        return chosen(self.test_images, rows), self.test_labels[rows]


def _between(labels: Tensor, first: int, stop: int) -> Tensor:
    return ((labels >= first) & (labels < stop)).nonzero().squeeze(1)

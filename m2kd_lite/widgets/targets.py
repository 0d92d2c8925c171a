"""The target matrix viewer: one image, and the rows of targets that Eq. 1 and Eq. 2 would give it at a step.

Pure functions of (`Models`, step, image, flip); the panel adds the controls. Section 3.1.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.method import losses, snapshots, targets
from m2kd_lite.pictures.lessons import target_rows
from m2kd_lite.training.rundir import read_run
from m2kd_lite.widgets.panel import Panel

PLANS = {"Eq. 1: LwF-MC": targets.penultimate, "Eq. 2: M²KD": targets.own_step}
OFFERED = 10            # images a step, of as many classes


@dataclass(frozen=True, eq=False)
class Chain:
    """A finished run's models and the images that it was trained on."""

    past: snapshots.Snapshots
    stream: ClassStream

    @classmethod
    def of(cls, folder: Path) -> Chain:
        """Read a finished run folder.

        Raises
        ------
        BadInput : it holds no finished run, or one of a single step, which had no teacher.
        """
        run = read_run(Path(folder))
        past = snapshots.Snapshots.load(run.path / "snapshots.safetensors")
        if len(past) < 2:
            raise BadInput(f"{folder}: its only step had no teacher; give a run of two steps or more")
        return cls(past, ClassStream.of_run(run.config))

    def offered(self, step: int) -> list[int]:
        """Positions, among the step's training images, of the first image of some of its classes."""
        own, (_, labels) = self.stream.columns[step - 1], self.stream.train(step)
        classes = own[::max(1, len(own) // OFFERED)][:OFFERED]
        return [int((labels == label).nonzero()[0]) for label in classes]

    @lru_cache(maxsize=256)
    def rows(self, step: int, image: int) -> dict[str, tuple[list[tuple[int, range]], Tensor]]:
        """Name to (who fills what, (2, classes) targets: as it is, mirrored) for the `image`-th offered image."""
        columns = self.stream.columns[:step]
        images, labels = self.stream.train(step)
        chosen = [self.offered(step)[image]]
        return {name: (plan(columns), targets.target_matrix(plan(columns), self.past.reconstruct, images[chosen], labels[chosen],
                                                            columns[-1].stop)[0][:, 0]) for name, plan in PLANS.items()}

    @lru_cache(maxsize=256)
    def loss(self, name: str, step: int, image: int, flip: bool) -> float:
        """What the row costs the run's own model of the step, in the units of the loss (divided by all classes)."""
        images, _ = self.stream.train(step)
        shown = images[[self.offered(step)[image]]]
        with torch.no_grad():
            logits = self.past.reconstruct(step)(shown.flip(3) if flip else shown)[0]
        row = self.rows(step, image)[name][1][int(flip)]
        return losses.distillation_loss(logits, row[None], len(self.stream.class_names)).item()


def render(chain: Chain, step: int, image: int, flip: bool) -> Figure:
    """The image and the two rows."""
    images, labels = chain.stream.train(step)
    shown = images[chain.offered(step)[image]]
    rows = {f"{name}; loss {chain.loss(name, step, image, flip):.4f}": (plan, row[int(flip)])
            for name, (plan, row) in chain.rows(step, image).items()}
    return target_rows(shown.flip(2) if flip else shown, rows, chain.stream.columns[:step],
                       f"Targets at step {step} for an image of class {_label(chain, step, image)}")


def describe(chain: Chain, step: int, image: int, flip: bool) -> str:
    """The same in words."""
    told = [f"Step {step}, an image of class {_label(chain, step, image)}, {'mirrored' if flip else 'as it is'}."]
    for name, (plan, row) in chain.rows(step, image).items():
        strongest = "; ".join(_strongest(chain, teacher, own, row[int(flip)]) for teacher, own in plan)
        told.append(f"{name}: {strongest}. Loss {chain.loss(name, step, image, flip):.4f}.")
    one, two = (row[int(flip)] for _, row in chain.rows(step, image).values())
    same = sum(torch.equal(one[own.start:own.stop], two[own.start:own.stop]) for own in chain.stream.columns[:step - 1])
    told.append(f"Old steps with the same targets by both: {same} of {step - 1}.")
    return " ".join(told)


def target_viewer(folder: Path) -> Panel:
    """A panel over a finished run folder: step, image, mirrored or not.

    Raises
    ------
    BadInput : see `Chain.of`.
    """
    chain = Chain.of(folder)
    steps = len(chain.past)
    fewest = min(len(chain.offered(step)) for step in range(2, steps + 1))
    controls = {"step": ipywidgets.IntSlider(steps, 2, steps, description="Step"),
                "image": ipywidgets.IntSlider(0, 0, fewest - 1, description="Image"),
                "flip": ipywidgets.Checkbox(False, description="Mirrored")}
    return Panel(controls, partial(render, chain), partial(describe, chain))


def _label(chain: Chain, step: int, image: int) -> int:
    return int(chain.stream.train(step)[1][chain.offered(step)[image]])


def _strongest(chain: Chain, teacher: int, own: range, row: Tensor) -> str:
    column = own.start + int(row[own.start:own.stop].argmax())
    return (f"model {teacher} fills classes {own.start} to {own.stop - 1}, highest {row[column]:.2f} for class {column} "
            f"({chain.stream.class_names[column]})")

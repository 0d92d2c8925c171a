"""The painter's panel: what it draws after each step from the same chance, and which weights each step took (DGM).

Pure functions of (`Paintings`, step, layer, chance); the panel adds the controls.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from m2kd_lite import seeds
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.method import painter_file
from m2kd_lite.method.painter import Painter
from m2kd_lite.pictures.painting import painter_after
from m2kd_lite.training.rundir import read_run
from m2kd_lite.widgets.panel import LABEL, Panel

A_CLASS = 6             # images that are drawn of each class
ROWS = 12               # classes that fit: those of the first and of the last steps
CHANCES = 10            # draws to choose from


@dataclass(frozen=True, eq=False)
class Paintings:
    """A finished painter and the stream whose classes it draws."""

    painter: Painter
    stream: ClassStream

    @classmethod
    def of(cls, path: Path) -> Paintings:
        """A finished run folder.

        Raises
        ------
        BadInput : it is none; or the run's method keeps no generator.
        """
        run = read_run(Path(path))
        file = Path(path) / painter_file.FILE
        if not file.exists():
            raise BadInput(f"{path}: a run of --method {run.config.method}, which keeps no generator; give a run of dgm")
        return cls(painter_file.load(file), ClassStream.of_run(run.config))

    @lru_cache(maxsize=64)      # a slider that goes back and forth asks for the same painter again
    def after(self, step: int) -> Painter:
        """The painter as it was when so many steps had ended."""
        return self.painter.first(step)

    @lru_cache(maxsize=64)
    def drawn(self, step: int, chance: int) -> dict[str, Tensor]:
        """What the painter of that time draws: a class's name to (A_CLASS, channels, 32, 32) uint8, of ROWS classes at most."""
        painter, rows = self.after(step), {}
        draws = seeds.generator(chance, 0, "draw")
        noise = torch.from_numpy(draws.standard_normal((A_CLASS, painter.draw_size), dtype="float32"))
        for of, columns in enumerate(self.stream.columns[:step], 1):
            for label in columns:
                rows[f"{self.stream.class_names[label]}\n(step {of})"] = painter.paint(torch.full((A_CLASS,), label), noise, of)
        names = list(rows)
        kept = names if len(names) <= ROWS else names[:ROWS // 2] + names[-ROWS // 2:]
        return {name: rows[name] for name in kept}


def render(paintings: Paintings, step: int, layer: int, chance: int) -> Figure:
    """The figure for the painter after `step`."""
    return painter_after(paintings.after(step), layer, paintings.drawn(step, chance), f"The painter after step {step}")


def describe(paintings: Paintings, step: int, layer: int, chance: int) -> str:
    """The same in words."""
    painter = paintings.after(step)
    owners, used = painter.owners()[layer], painter.steps[-1].masks[layer]
    own, old = (100 * float(((owners == step) if new else used & (owners < step)).float().mean()) for new in (True, False))
    told = [f"After step {step} the painter draws {paintings.stream.columns[step - 1].stop} classes.",
            f"Of the {owners.numel():,} weights of layer {layer + 1}, step {step} took {own:.0f} %"
            + (f" anew, and uses {old:.0f} % that earlier steps had taken." if step > 1 else ".")]
    if step > 1:
        before = paintings.drawn(step - 1, chance)
        same = all(images.equal(before[name]) for name, images in paintings.drawn(step, chance).items() if name in before)
        told.append(f"What it draws of the earlier classes is {'the same, bit for bit' if same else 'not the same'}, as after step {step - 1}.")
    return " ".join(told)


def painter_stepper(path: Path) -> Panel:
    """A panel over a finished run folder of `dgm`: play, layer, chance.

    Raises
    ------
    BadInput : see `Paintings.of`.
    """
    paintings = Paintings.of(path)
    steps = len(paintings.painter.parts)
    controls = {"step": ipywidgets.IntSlider(1, 1, steps, description="After step"),
                "layer": ipywidgets.Dropdown(options=[(f"shared layer {i + 1}", i) for i in range(len(paintings.painter.weights))], value=1,
                                             description="Layer"),
                "chance": ipywidgets.IntSlider(0, 0, CHANCES - 1, description="Chance")}
    play = ipywidgets.Play(value=1, min=1, max=steps, interval=1500, description="Play", layout={"margin": f"2px 2px 2px {LABEL}"})
    ipywidgets.jslink((play, "value"), (controls["step"], "value"))
    return Panel(controls, partial(render, paintings), partial(describe, paintings), above=[play])

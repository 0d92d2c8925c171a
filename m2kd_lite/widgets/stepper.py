"""The reconstruction stepper: play through the models of a finished run, each rebuilt from one weight set and a mask.

Pure functions of (`Models`, model, layer, image); the panel adds the controls. Section 3.3, Eq. 7 and 8.
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
from m2kd_lite.method import metrics, snapshots
from m2kd_lite.method.masks import active
from m2kd_lite.method.table import METHODS
from m2kd_lite.pictures.rebuilding import rebuilt_model
from m2kd_lite.training import witness
from m2kd_lite.training.rundir import read_run
from m2kd_lite.widgets.panel import LABEL, Panel


@dataclass(frozen=True, eq=False)
class Models:
    """What can be stepped through.

    Attributes
    ----------
    past : the models.
    stream, live, results : the run's images, what its live network said, and what was measured after each step; None
        for a file of snapshots that comes without its run.
    """

    past: snapshots.Snapshots
    stream: ClassStream | None = None
    live: witness.Witness | None = None
    results: tuple[dict, ...] = ()

    @classmethod
    def of(cls, path: Path) -> Models:
        """A finished run folder, or a snapshots file by itself.

        Raises
        ------
        BadInput : neither; or the run's method does not prune, so that no model shares a weight with another.
        """
        path = Path(path)
        if path.is_file():
            return cls(_masked(snapshots.Snapshots.load(path), path))
        run = read_run(path)
        past = _masked(snapshots.Snapshots.load(path / "snapshots.safetensors"), path)
        recorded = path / witness.FILE
        live = witness.Witness.load(recorded) if recorded.exists() else None
        return cls(past, ClassStream.of_run(run.config), live, tuple(run.metrics["steps"]))

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions, without what they have in common."""
        return [_short(name) for name in self.past.masks]

    @property
    def rows(self) -> tuple[int, ...]:
        """Positions of the images that can be asked about; empty without a run."""
        if self.stream is None:
            return ()
        return self.live.rows if self.live else witness.rows_of(len(self.stream.test_images))

    def masks(self) -> dict[str, Tensor]:
        """Layer to owners."""
        return {_short(name): mask for name, mask in self.past.masks.items()}

    @lru_cache(maxsize=64)      # a slider that goes back and forth asks for the same model again
    def said(self, model: int) -> Tensor:
        """(images, classes) float32: what the rebuilt model says about all images that can be asked about."""
        return witness.logits_of(self.past.reconstruct(model), self.stream.test_images[list(self.rows)])

    @lru_cache(maxsize=64)
    def accuracy(self, model: int) -> float:
        """Accuracy in per cent of the rebuilt model on the test images of its own step's classes."""
        images, labels = self.stream.test(model)
        own = self.stream.columns[model - 1]
        best = metrics.predict(self.past.reconstruct(model), images[labels >= own.start])
        return 100 * (best[:, 0] == labels[labels >= own.start]).double().mean().item()

    @lru_cache(maxsize=64)
    def added(self, model: int) -> int:
        """Bytes that steps 2 to `model` have added."""
        memory = METHODS["m2kd"].memory
        return (snapshots.ledger(self.past.first(model), memory)["total"] - snapshots.ledger(self.past.first(1), memory)["total"])


def render(models: Models, model: int, layer: str, image: int = 0) -> Figure:
    """The figure for model `model`, the grid of `layer`, and the `image`-th of the images."""
    title = f"Model {model} of {len(models.past)}, rebuilt"
    if models.stream is None:
        return rebuilt_model(models.masks(), layer, model, len(models.past), title)
    live = models.live.logits[model - 1][image] if models.live else None
    logits = {f"What model {model} says about an image of {_class(models, model, image)}": (models.said(model)[image], live)}
    return rebuilt_model(models.masks(), layer, model, len(models.past), title, models.stream.test_images[models.rows[image]], logits)


def describe(models: Models, model: int, layer: str, image: int = 0) -> str:
    """The same in words."""
    owners = torch.cat([mask.flatten() for mask in models.past.masks.values()])
    told = [f"Model {model} of {len(models.past)} uses {100 * float(active(owners, model).float().mean()):.0f} % of all convolution "
            f"weights, and {100 * float(active(models.masks()[layer], model).float().mean()):.0f} % of {layer}."]
    if model > 1:
        steps = "Step 2 has" if model == 2 else f"Steps 2 to {model} have"
        told.append(f"{steps} added {models.added(model):,} bytes.")
    if models.stream is not None:
        told.append(f"On the test images of step {model}'s classes it is right for {models.accuracy(model):.1f} %; when the step ended, "
                    f"the live network was right for {models.results[model - 1]['accuracy_by_step'][model - 1]:.1f} %.")
        said = models.said(model)[image]
        told.append(f"It takes the image, of {_class(models, model, image)}, for class {int(said.argmax())}.")
        if models.live:
            furthest = models.live.furthest(model, models.said(model))
            told.append(f"Largest difference to the live network's logits, over {len(models.rows)} images: {furthest:g}"
                        + (", exactly." if furthest == 0 else
                           "; was the run trained on another machine, or with another number of threads?"))
    return " ".join(told)


def reconstruction_stepper(path: Path) -> Panel:
    """A panel over a finished run folder, or over a `snapshots.safetensors`: play, layer, image.

    Raises
    ------
    BadInput : see `Models.of`.
    """
    models = Models.of(path)
    controls = {"model": ipywidgets.IntSlider(1, 1, len(models.past), description="Model"),
                "layer": ipywidgets.Dropdown(options=models.layers, description="Layer")}
    if models.stream is not None:
        options = [(f"class {_label(models, i)}: {models.stream.class_names[_label(models, i)]}", i) for i in range(len(models.rows))]
        controls["image"] = ipywidgets.Dropdown(options=options, description="Image")
    play = ipywidgets.Play(value=1, min=1, max=len(models.past), interval=1500, description="Play", layout={"margin": f"2px 2px 2px {LABEL}"})
    ipywidgets.jslink((play, "value"), (controls["model"], "value"))
    return Panel(controls, partial(render, models), partial(describe, models), above=[play])


def _label(models: Models, image: int) -> int:
    return int(models.stream.test_labels[models.rows[image]])


def _class(models: Models, model: int, image: int) -> str:
    label = _label(models, image)
    return f"class {label}" + ("" if label < models.stream.columns[model - 1].stop else " (not learnt yet)")


def _masked(past: snapshots.Snapshots, path: Path) -> snapshots.Snapshots:
    if not past.masks:
        raise BadInput(f"{path}: its models share no weights; give a run of a method that prunes, as m2kd")
    return past


def _short(name: str) -> str:
    return name.removeprefix("backbone.").removesuffix(".weight")

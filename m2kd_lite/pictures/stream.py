"""Figures of the lesson on forgetting: what arrives at each incremental step.

The same rules as in `plots.py`, whose helper these use: each returns a `Figure` with a text alternative. Called by the
notebook on the class stream (section 3.1).
"""
from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.pictures.plots import new_figure, pixels

GAP, ROW, MARGIN = 0.12, 1.12, 2.1      # between two images; from row to row; for the step's name: in columns


def class_stream(stream: ClassStream, title: str, per_step: int = 8) -> Figure:
    """A row of training images for each incremental step, one image a class, with the class's number below it.

    Parameters
    ----------
    stream : the classes in order of arrival.
    title : says what to see.
    per_step : at most this many classes of each step, spread evenly over it; their first training images are shown.

    Raises
    ------
    ValueError : `per_step` is below 1.
    """
    if per_step < 1:
        raise ValueError(f"per_step {per_step}: at least one class of a step has to be shown")
    shown = [_spread(own, per_step) for own in stream.columns]
    told = "; ".join(f"step {step} brings {_classes(own)}, among them {', '.join(stream.class_names[c] for c in classes)}"
                     for step, (own, classes) in enumerate(zip(stream.columns, shown, strict=True), 1))
    wide = max(map(len, shown))
    figure, axis = new_figure(f"Rows of training images, one row for each incremental step: {told}.",
                              width=0.74 * (MARGIN + wide), height=0.45 + 0.74 * ROW * len(shown))
    for row, (own, classes) in enumerate(zip(stream.columns, shown, strict=True)):
        for place, label in enumerate(classes):
            axis.imshow(_pixels(stream, label), cmap="gray", vmin=0, vmax=255, interpolation="nearest",
                        extent=(place, place + 1 - GAP, ROW * row + 1 - GAP, ROW * row))
            axis.text(place + 0.5 - GAP / 2, ROW * row + 1.01 - GAP, str(label), ha="center", va="top", fontsize=10)
        axis.text(-0.2, ROW * row + 0.44, f"step {row + 1}\n{_classes(own)}", ha="right", va="center", fontsize=11)
    axis.set(xlim=(-MARGIN, wide), ylim=(ROW * len(shown), 0), aspect=1)
    axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _spread(own: range, count: int) -> list[int]:
    """At most `count` classes of `own`, first and last among them where there is room for two."""
    places = np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int)
    return [own[place] for place in places]


def _pixels(stream: ClassStream, label: int) -> np.ndarray:
    """The first training image of a class: (H, W) grey or (H, W, 3)."""
    return pixels(stream.train_images[(stream.train_labels == label).nonzero()[0, 0]])


def _classes(own: range) -> str:
    return f"classes {own.start} to {own.stop - 1}" if len(own) > 1 else f"class {own.start}"

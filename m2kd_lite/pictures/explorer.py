"""The explorer's figure: accuracy curves of several methods, and their final confusion matrices below.

The same rules as in `plots.py`, whose helper these use. The places of the axes are fixed, not fitted to their labels:
that takes half the time, and a slider's move is to be seen at once (`python -m benchmarks.panels`).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from m2kd_lite.pictures.plots import STYLES, new_figure

WIDTH, CURVES = 7.6, 3.25       # inches: the figure's width, the height of the curves
ROOM, GAP = 3, 0.12             # matrices for which there is room at least; what is between two, in sides of one


@dataclass(frozen=True, eq=False)
class Curve:
    """One method's accuracy on all seen classes.

    Attributes
    ----------
    place : which of the palette's colours, dashes and marks: the same for a method whatever else is shown.
    classes : classes seen after each step.
    top1 : (runs, steps) per cent. More than one run is drawn as mean and standard deviation.
    paper : (classes seen, per cent) that the paper reports; empty if it reports none.
    before : (runs, steps) per cent of runs that were measured before; drawn behind, from the lowest to the highest.
    """

    place: int
    classes: Sequence[int]
    top1: np.ndarray
    paper: Sequence[tuple[int, float]] = ()
    before: Sequence[Sequence[float]] = ()

    @classmethod
    def of_runs(cls, place: int, runs: Sequence[Sequence[Mapping]], paper: Sequence[tuple[int, float]] = (),
                before: Sequence[Sequence[Mapping]] = ()) -> Curve:
        """From runs, each a list of its steps with `classes_seen` and `top1`: rows of a bank, or `steps` of metrics.json."""
        classes = [step["classes_seen"] for step in runs[0]] if runs else []
        return cls(place, classes, np.array([[step["top1"] for step in run] for run in runs]), paper,
                   [[step["top1"] for step in run] for run in before])


def explored(curves: Mapping[str, Curve], confusions: Mapping[str, np.ndarray], class_batch: int, title: str) -> Figure:
    """Curves above, confusion matrices below.

    Parameters
    ----------
    curves : name of a method to its curve.
    confusions : name to (classes, classes) counts after the last step, rows the true class.
    class_batch : draws a line between incremental steps.
    """
    places = max(ROOM, len(confusions)) * (1 + GAP)
    height = CURVES + ((WIDTH - 0.5) / places + 0.5 if confusions else 0.0)
    figure, _ = new_figure(_told(curves, confusions), WIDTH, height, columns=0)
    figure.set_layout_engine("none")
    axis = figure.add_axes(_place(0.62, 0.5, WIDTH - 0.75, CURVES - 1.05, height))
    for name, curve in curves.items():
        draw_curve(axis, name, curve)
    axis.set(xlabel="classes seen", ylabel="top-1 accuracy on all of them (%)", ylim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=11)
    if curves:
        axis.legend(frameon=False, fontsize=9, ncols=2)
    else:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "nothing measured yet", transform=axis.transAxes, ha="center", color="0.35")
    if confusions:
        below = figure.add_axes(_place(0.4, CURVES, WIDTH - 0.5, height - CURVES, height))
        for column, (name, counts) in enumerate(confusions.items()):
            _matrix(below, column, name, counts, class_batch)
        # In units of a matrix's side; one pair of axes for all of them, for each pair costs as much as a matrix.
        below.set(xlim=(0, places), ylim=(1.13, -0.13), aspect=1, anchor="NW")
        below.axis("off")
        below.text(-0.03, 0.5, "true class", rotation=90, ha="right", va="center", fontsize=9)
    return figure


def draw_curve(axis, name: str, curve: Curve) -> None:
    """Ours as a line, with its spread where there is more than one run; the paper's as hollow marks."""
    style = STYLES[curve.place % len(STYLES)]
    colour, mark = style["color"], style["marker"]
    if len(curve.before):
        axis.fill_between(curve.classes, np.min(curve.before, 0), np.max(curve.before, 0), color=colour, alpha=0.22, lw=0)
    if len(curve.top1):
        mean, spread = curve.top1.mean(0), curve.top1.std(0, ddof=min(1, len(curve.top1) - 1))
        axis.plot(curve.classes, mean, **style, markersize=5, lw=2, label=name)
        if len(curve.top1) > 1:
            axis.fill_between(curve.classes, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
    if len(curve.paper):
        axis.plot(*zip(*curve.paper, strict=True), color=colour, linestyle="none", marker=mark, markersize=8, fillstyle="none",
                  label=f"{name}, in the paper")


def _matrix(axis, column: int, name: str, counts: np.ndarray, class_batch: int) -> None:
    left, share = column * (1 + GAP), counts / counts.sum(1, keepdims=True).clip(1)
    axis.imshow(np.sqrt(share), cmap="viridis", vmin=0, vmax=1, interpolation="nearest",        # the root brings out the few
                extent=(left, left + 1, 1, 0))
    edges = np.arange(class_batch, len(counts), class_batch) / len(counts)
    axis.hlines(edges, left, left + 1, color="white", lw=0.4, alpha=0.7)
    axis.vlines(left + edges, 0, 1, color="white", lw=0.4, alpha=0.7)
    axis.text(left, -0.04, name, fontsize=9, va="bottom")
    axis.text(left + 0.5, 1.03, "predicted class", fontsize=9, ha="center", va="top")


def _place(left: float, top: float, width: float, height: float, whole: float) -> tuple[float, float, float, float]:
    """Inches from the left and the top to what `add_axes` takes."""
    return left / WIDTH, 1 - (top + height) / whole, width / WIDTH, height / whole


def _told(curves: Mapping[str, Curve], confusions: Mapping[str, np.ndarray]) -> str:
    lines = [f"{name} goes from {curve.top1.mean(0)[0]:.1f} to {curve.top1.mean(0)[-1]:.1f} %" for name, curve in curves.items()
             if len(curve.top1)]
    lines += [f"the paper's {name} goes from {curve.paper[0][1]:.1f} to {curve.paper[-1][1]:.1f} %" for name, curve in curves.items()
              if len(curve.paper)]
    below = f" Below, confusion matrices of {', '.join(confusions)}." if confusions else ""
    return f"Line chart of top-1 accuracy against the number of classes seen: {'; '.join(lines) or 'nothing measured'}.{below}"

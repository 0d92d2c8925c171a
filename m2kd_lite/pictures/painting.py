"""Figures of the lesson on a memory that draws: what a painter draws, which of its weights each step took, how steep its masks are.

The same rules as in `plots.py`, whose helper and colours these use. Called by the lesson and by `widgets/painter.py`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from m2kd_lite.method.painter import Painter
from m2kd_lite.pictures.plots import COLOURS, DASHES, HATCHES, new_figure, pixels

FADED = 0.25            # how much of its colour a weight keeps that is reserved and not used


def drawings(rows: Mapping[str, Tensor], title: str) -> Figure:
    """Images in rows, a row a class or a source.

    Parameters
    ----------
    rows : what stands before a row, to its images, (N, channels, height, width) uint8.
    """
    across = max(map(len, rows.values()))
    figure, _ = new_figure(f"Images in {len(rows)} rows of up to {across}: {'; '.join(' '.join(name.split()) for name in rows)}.", width=1.1 + 0.62 * across,
                           height=0.45 + 0.62 * len(rows), columns=0)
    _images(figure, rows)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def steepness(schedules: Mapping[str, Sequence[float]], title: str) -> Figure:
    """The steepness s of masks, batch by batch, on a logarithmic scale.

    Parameters
    ----------
    schedules : name to s in each batch of a training.
    """
    told = "; ".join(f"{name} goes from {values[0]:.2g} to {values[-1]:.2g}" for name, values in schedules.items())
    figure, axis = new_figure(f"Saw-toothed curves of the steepness of the masks over the batches of a training: {told}.", width=6.4, height=3.4)
    for i, (name, values) in enumerate(schedules.items()):
        axis.plot(np.arange(len(values)), values, color=COLOURS[i % 7], linestyle=DASHES[i % 7], lw=1.8, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("batch", fontsize=11)
    axis.set_ylabel("steepness s", fontsize=11)
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def reserved_shares(painter: Painter, title: str) -> Figure:
    """Stacked bars, one a shared layer: weights by the step that took them first, and those that are free."""
    figure, axis = new_figure(f"Bars of the shared layers' weights. {_told(painter)}.", width=6.4, height=0.9 + 0.55 * len(painter.weights))
    _bars(axis, painter)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def painter_after(painter: Painter, layer: int, rows: Mapping[str, Tensor], title: str) -> Figure:
    """What a painter draws, and the weights of one shared layer: coloured by the step that first took them, faded where the last step
    does not use them, white where they are free.

    Parameters
    ----------
    layer : which, from 0.
    rows : see `drawings`.
    """
    across = max(map(len, rows.values()))
    figure, _ = new_figure(f"Images in {len(rows)} rows, drawn from the same chance: {'; '.join(' '.join(name.split()) for name in rows)}. Beside them a map of "
                           f"the weights of shared layer {layer + 1}, and bars of all layers. {_told(painter)}.", width=7.8,
                           height=max(3.6, 0.5 + 0.36 * len(rows)), columns=0)
    left, right = figure.subfigures(1, 2, width_ratios=(1 + 0.5 * across, 5))
    _images(left, rows)
    grid, bars = right.subplots(2, 1, height_ratios=(2, 1))
    owners, used = painter.owners()[layer], painter.steps[-1].masks[layer]
    picture = np.ones((*_flat(owners).shape, 3))
    for owner in range(1, len(painter.parts) + 1):
        for own, depth in ((owners == owner) & used, 1.0), ((owners == owner) & ~used, FADED):
            picture[_flat(own).numpy()] = 1 - depth * (1 - np.array(to_rgb(COLOURS[(owner - 1) % 7])))
    grid.imshow(picture, aspect="auto", interpolation="nearest")
    grid.set(xticks=[], yticks=[])
    grid.set_xlabel("output channels, 4 × 4 weights each", fontsize=10)
    grid.set_ylabel("input channels", fontsize=10)
    grid.set_title(f"layer {layer + 1}; faded: reserved, not used by step {len(painter.parts)}", loc="left", fontsize=11)
    _bars(bars, painter)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _images(figure: Figure | SubFigure, rows: Mapping[str, Tensor]) -> None:
    across = max(map(len, rows.values()))
    axes = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)


def _flat(owners: Tensor) -> Tensor:
    """(in, out, 4, 4) as a picture, (4 in, 4 out): a tile a pair of channels."""
    into, out, height, width = owners.shape
    return owners.permute(0, 2, 1, 3).reshape(into * height, out * width)


def _bars(axis: Axes, painter: Painter) -> None:
    names = [f"layer {layer}" for layer in range(1, len(painter.weights) + 1)]
    begin = np.zeros(len(names))
    for owner in [*range(1, len(painter.parts) + 1), 0]:
        share = np.array([100 * float((owners == owner).float().mean()) for owners in painter.owners()])
        axis.barh(names, share, left=begin, edgecolor="black", linewidth=0.6, label=f"step {owner}" if owner else "free",
                  color=COLOURS[(owner - 1) % 7] if owner else "white", hatch=HATCHES[owner % 5] if owner else "")
        begin += share
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("weights, by the step that first took them (%)", fontsize=10)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False,
                fontsize=10, handlelength=1.2, columnspacing=1)


def _told(painter: Painter) -> str:
    parts = []
    for layer, owners in enumerate(painter.owners(), 1):
        shares = ", ".join(f"step {owner} took {100 * float((owners == owner).float().mean()):.0f} %" for owner in range(1, len(painter.parts) + 1))
        parts.append(f"layer {layer}: {owners.numel():,} weights, {shares}")
    return "Of " + "; of ".join(parts)

"""Figures of the lesson on the auxiliary head: where it branches off, and what a hard label does to a soft target.

The same rules as in `plots.py`, whose helper and colours these use: each returns a `Figure` with a text alternative.
Called by the notebook on Eq. 3-4 (section 3.2).
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.pictures.plots import COLOURS, DASHES, MARKS, new_figure

BRANCH = "stage2"           # the auxiliary head takes the maps of this part of the backbone


def map_shapes(net: IncrementalNet, images: Tensor) -> dict[str, tuple[int, ...]]:
    """What each part of the backbone gives for an image, stem first: its name to (channels, height, width).

    Parameters
    ----------
    images : (N, C, H, W) uint8.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str):
        return lambda module, inputs, maps: shapes.update({name: tuple(maps.shape[1:])})

    parts = dict(net.backbone.named_children())
    hooks = [part.register_forward_hook(note("stem" if name == "conv1" else name)) for name, part in parts.items()
             if name != "bn1"]
    was_training = net.training
    try:
        with torch.no_grad():
            net.eval()(images)
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return shapes


def two_heads(net: IncrementalNet, images: Tensor, title: str) -> Figure:
    """The network as a diagram: its parts from left to right, the shapes they give, and the two heads.

    Parameters
    ----------
    net : with an auxiliary head.
    images : (N, C, H, W) uint8; the shapes are measured by running the net on them.
    """
    shapes = map_shapes(net, images)
    assert net.auxiliary is not None
    classes, middle, final = net.main.out_features, net.auxiliary.in_features, net.main.in_features
    told = ", ".join(f"{_spaced(name)} {_product(shape)}" for name, shape in shapes.items())
    figure, axis = new_figure(
        f"Diagram of the network, from an image {_product(images.shape[1:])} through {told}, to a mean of {final} numbers and "
        f"the main head with {classes} logits. After {_spaced(BRANCH)} a branch leads to a mean of {middle} numbers and the "
        f"auxiliary head with {classes} logits, for training only.", width=1.5 * (len(shapes) + 3), height=3.5)
    row = [("image", _product(images.shape[1:])), *((_spaced(name), _product(shape)) for name, shape in shapes.items()),
           ("mean", f"{final}")]
    branch_at = 1 + list(shapes).index(BRANCH)
    for place, (name, shape) in enumerate(row):
        shared = 0 < place <= branch_at
        _box(axis, place, 1, name, shape, COLOURS[2] if shared else "white" if place == 0 else COLOURS[0])
        _arrow(axis, (place + 0.39, 1), (place + 0.61, 1))
    _box(axis, len(row), 1, "main head", f"{classes} logits", COLOURS[0])
    _arrow(axis, (branch_at, 0.66), (branch_at, 0.34), "--")
    _box(axis, branch_at, 0, "mean", f"{middle}", COLOURS[1], "--")
    _arrow(axis, (branch_at + 0.39, 0), (branch_at + 0.61, 0), "--")
    _box(axis, branch_at + 1, 0, "auxiliary\nhead", f"{classes} logits", COLOURS[1], "--")
    axis.text(branch_at + 1.5, 0, "training only", ha="left", va="center", fontsize=12, style="italic")
    axis.text((branch_at - 0.4) / 2 + 0.3, 0.45, "trained by both losses", ha="center", va="center", fontsize=12, style="italic")
    axis.set(xlim=(-0.45, len(row) + 0.45), ylim=(-0.45, 1.45))
    axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure


def pulled_down(target: float, alphas: Sequence[float], title: str) -> Figure:
    """The auxiliary loss of one old column against its score, BCE(s, t) + alpha BCE(s, 0), and its minimum for each alpha.

    Parameters
    ----------
    target : the teacher's score t, between 0 and 1.
    """
    lowest = [target / (1 + alpha) for alpha in alphas]
    told = ", ".join(f"at {score:.2f} for alpha {alpha:g}" for alpha, score in zip(alphas, lowest, strict=True))
    figure, axis = new_figure(f"Curves of the loss of one old column against the student's score. The teacher's score is "
                              f"{target:g}; the minimum lies {told}.", width=5.6, height=4.6)
    scores = np.linspace(0.02, 0.98, 481)
    for i, (alpha, best) in enumerate(zip(alphas, lowest, strict=True)):
        axis.plot(scores, _column_loss(scores, target, alpha), color=COLOURS[i % 7], linestyle=DASHES[i % 7], lw=2,
                  label=f"$\\alpha$ = {alpha:g}: lowest at {best:.2f}")
        axis.plot([best], [_column_loss(best, target, alpha)], color=COLOURS[i % 7], marker=MARKS[i % 7], ms=9)
    axis.axvline(target, color="black", lw=1, linestyle=":")
    axis.set_ylim(0, 1.9 * max(_column_loss(best, target, alpha) for alpha, best in zip(alphas, lowest, strict=True)))
    axis.text(target + 0.01, 0.03, "the teacher's score", fontsize=11, transform=axis.get_xaxis_transform())
    axis.set_xlabel("the student's score s in an old column", fontsize=11)
    axis.set_ylabel("its loss", fontsize=11)
    axis.set_title(title, loc="left", fontsize=12)
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=11)
    return figure


def _column_loss(score, target: float, alpha: float):
    return -target * np.log(score) - (1 - target + alpha) * np.log(1 - score)


def _box(axis, x: float, y: float, name: str, shape: str, colour: str, dash: str = "-") -> None:
    face = "white" if colour == "white" else (colour, 0.3)
    axis.add_patch(FancyBboxPatch((x - 0.36, y - 0.3), 0.72, 0.6, boxstyle="round,pad=0.02", facecolor=face,
                                  edgecolor="black", linestyle=dash, linewidth=1.2))
    axis.text(x, y + 0.09, name, ha="center", va="center", fontsize=13, linespacing=0.95)
    axis.text(x, y - 0.18, shape, ha="center", va="center", fontsize=11)


def _arrow(axis, start: tuple[float, float], end: tuple[float, float], dash: str = "-") -> None:
    axis.annotate("", end, start, arrowprops=dict(arrowstyle="->", linestyle=dash, linewidth=1.4, shrinkA=0, shrinkB=0))


def _spaced(name: str) -> str:
    return name.replace("stage", "stage ")


def _product(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))

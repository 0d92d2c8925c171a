"""The figure of the reconstruction stepper: the paper's Figure 2 on real weights, one past model at a time (section 3.3).

The same rules as in `plots.py`, whose helper and colours this uses. Called by `widgets/stepper.py`.
"""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from m2kd_lite.method.masks import active
from m2kd_lite.pictures.plots import COLOURS, HATCHES, new_figure, pixels

FADED = 0.2             # how much of its colour a weight keeps that the model does not use
SHOWN = 8               # classes whose logits are drawn
WIDTH, NAME = 7.6, 0.072        # inches: of the figure, and of a letter in the name of a layer


def rebuilt_model(masks: Mapping[str, Tensor], layer: str, step: int, steps: int, title: str,
                  image: Tensor | None = None, logits: Mapping[str, tuple[Tensor, Tensor | None]] | None = None) -> Figure:
    """One layer as model `step` uses it, the share of each layer that is active, and what the model says about an image.

    Parameters
    ----------
    masks : layer to owners, (out, in, height, width) uint8, 0 where free.
    layer : which one is drawn as a grid, a row a filter.
    step, steps : the model, of how many.
    image : (channels, height, width) uint8, which the model was asked about; None: there was none.
    logits : with an image: one title to (rebuilt (classes,), live (classes,) or None).
    """
    shares = {name: 100 * float(active(mask, step).float().mean()) for name, mask in masks.items()}
    told = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
    height = 3.6 + 2.4 * bool(logits)
    figure, _ = new_figure(f"Model {step} of {steps}. A grid of the weights of {layer}, coloured by the step that owns each, faded where "
                           f"model {step} does not use it. Active weights by layer: {told}. {_told(logits)}", width=WIDTH, height=height, columns=0,
                           layout=None)

    def axes(left: float, top: float, right: float, bottom: float) -> Axes:
        """At these inches from the left and from the top. A slider is waiting: a layout that fits itself would take as long as the drawing."""
        return figure.add_axes((left / WIDTH, 1 - bottom / height, (right - left) / WIDTH, (bottom - top) / height))

    grid, bars = axes(0.35, 0.7, 3.95, 3.45), axes(4.1 + NAME * max(map(len, masks)), 0.8, WIDTH - 0.2, 3.05)
    _grid(grid, masks[layer].reshape(len(masks[layer]), -1), step, steps)
    grid.set_title(f"{layer}: {shares[layer]:.0f} % active", loc="left", fontsize=11)
    _shares(bars, masks, step, steps)
    if logits and image is not None:
        (name, (rebuilt, live)), = logits.items()
        picture, points = axes(0.15, 3.9, 1.65, 5.4), axes(2.3, 3.95, WIDTH - 0.2, 5.5)
        picture.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        picture.set_axis_off()
        _logits(points, rebuilt, live)
        points.set_title(name, loc="left", fontsize=11)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _grid(axis, owners: Tensor, step: int, steps: int) -> None:
    picture = np.ones((*owners.shape, 3))
    for owner in range(1, steps + 1):
        depth = 1.0 if owner <= step else FADED
        picture[owners.numpy() == owner] = 1 - depth * (1 - np.array(to_rgb(COLOURS[(owner - 1) % 7])))
    axis.imshow(picture, aspect="auto", interpolation="nearest")
    axis.set(xticks=[], yticks=[], ylabel="filter")


def _shares(axis, masks: Mapping[str, Tensor], step: int, steps: int) -> None:
    """Stacked bars: of each layer, what each step owns; hatched and faded where the model does not use it."""
    names = list(masks)
    left = np.zeros(len(names))
    for owner in range(1, steps + 1):
        values = np.array([100 * float((mask == owner).float().mean()) for mask in masks.values()])
        used = owner <= step
        axis.barh(names, values, left=left, color=(COLOURS[(owner - 1) % 7], 1.0 if used else FADED), edgecolor="white",
                  hatch=HATCHES[(owner - 1) % 5] if used else "", linewidth=0.5, label=f"step {owner}")
        left += values
    axis.set(xlim=(0, 100), xlabel="% of the layer's weights, by owner")
    axis.invert_yaxis()
    axis.tick_params(labelsize=9)
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(5, steps), borderaxespad=0,
                columnspacing=0.7, handlelength=1.0, handletextpad=0.3)


def _logits(axis, rebuilt: Tensor, live: Tensor | None) -> None:
    """The likeliest classes: a square for the rebuilt model, a ring around it for the live one."""
    best = rebuilt.argsort(descending=True)[:SHOWN]
    places = np.arange(len(best))
    axis.plot(places, rebuilt[best].numpy(), linestyle="", marker="s", markersize=5, color=COLOURS[0], label="rebuilt")
    if live is not None:
        axis.plot(places, live[best].numpy(), linestyle="", marker="o", markersize=12, fillstyle="none", markeredgewidth=1.5,
                  color=COLOURS[1], label="live, when its step ended")
    axis.set(xticks=places, xticklabels=[str(int(label)) for label in best], xlabel="class, likeliest first", ylabel="logit")
    axis.margins(y=0.2)
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="upper right")


def _told(logits: Mapping[str, tuple[Tensor, Tensor | None]] | None) -> str:
    if not logits:
        return "No image was there to ask the model about."
    (name, (rebuilt, live)), = logits.items()
    said = f"{name}: the likeliest class is {int(rebuilt.argmax())}, logit {float(rebuilt.max()):.3f}"
    return said + (f"; the largest difference to the live network's logits is {float((rebuilt - live).abs().max()):g}."
                   if live is not None else ".")

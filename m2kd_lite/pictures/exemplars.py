"""Figures of the lesson on exemplars: what herding picks, how near its mean comes, and what the nearest mean decides.

The same rules as in `plots.py`, whose helper and colours these use: each returns a `Figure` with a text alternative.
Called by the notebook on section 4.5.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from m2kd_lite.pictures.plots import COLOURS, DASHES, HATCHES, new_figure, pixels

NEARER_TO_THE_ORIGIN = 0.5      # |f - m|^2 = 2 - 2 cos exceeds |f - 0|^2 = 1 below this cosine


def picked_points(points: Tensor, picks: Mapping[str, Sequence[int]], title: str) -> Figure:
    """One class's images as points around their mean, and the picks numbered in their order; a panel for each way to pick.

    Parameters
    ----------
    points : (N, 2), the class mean at (0, 0).
    picks : name to positions among the N, the first pick first.
    """
    off = {name: float(points[list(chosen)].mean(0).norm()) for name, chosen in picks.items()}
    told = "; ".join(f"{name}: the mean of {len(chosen)} picks lies {off[name]:.3f} from it" for name, chosen in picks.items())
    figure, axes = new_figure(f"{len(points)} images of a class as points in two dimensions, the class mean at the origin, picks "
                              f"numbered in their order. In the plane, {told}.", width=0.4 + 4.0 * len(picks), height=4.3,
                              columns=len(picks))
    axes = axes if len(picks) > 1 else [axes]
    reach = 1.12 * float(points.abs().max())
    for axis, (name, chosen) in zip(axes, picks.items(), strict=True):
        across, down = points.T.numpy()
        axis.scatter(across, down, s=16, color="0.75", label="an image")
        axis.scatter(across[list(chosen)], down[list(chosen)], s=42, color=COLOURS[0], edgecolor="black", linewidth=0.8,
                     label="a pick, with its rank")
        for rank, place in enumerate(chosen, 1):
            outwards = 11 * points[place] / points[place].norm().clamp_min(1e-6)
            axis.annotate(str(rank), (across[place], down[place]), xytext=outwards.tolist(), textcoords="offset points",
                          ha="center", va="center", zorder=5, path_effects=[withStroke(linewidth=2.5, foreground="white")])
        axis.plot(0, 0, marker="+", ms=18, mew=2, linestyle="", color="black", label="mean of the class")
        axis.plot(*points[list(chosen)].mean(0).tolist(), marker="X", ms=8, linestyle="", color=COLOURS[1], mec="black",
                  label="mean of the picks")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="first direction", aspect="equal")
        axis.set_title(name, loc="left", fontsize=11)
    axes[0].set_ylabel("second direction")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def picked_images(images: Tensor, title: str) -> Figure:
    """The images that were picked, in their order.

    Parameters
    ----------
    images : (m, channels, height, width) uint8, the first pick first.
    """
    figure, axes = new_figure(f"The first {len(images)} exemplars of a class as images, in the order of their picks.",
                              width=1.05 * len(images), height=1.7, columns=len(images))
    for rank, (axis, image) in enumerate(zip(axes if len(images) > 1 else [axes], images, strict=True), 1):
        axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        axis.set_title(str(rank), fontsize=10)
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def distance_to_the_mean(herded: Sequence[float], chance: Sequence[Sequence[float]], title: str) -> Figure:
    """How far the mean of the first m picks is from the class mean, for m = 1, 2, ...: herding, and random orders.

    Parameters
    ----------
    herded : one distance for each m.
    chance : the same of several random orders: drawn as their mean, and as a band from the least to the most.
    """
    orders = np.asarray(chance)
    counts = np.arange(1, len(herded) + 1)
    middle = orders.mean(0)
    shown = [m for m in (1, 5, 10, 20) if m <= len(herded)]
    told = "; ".join(f"of {m}: {herded[m - 1]:.3f} by herding, {middle[m - 1]:.3f} by chance" for m in shown)
    figure, axis = new_figure(f"Distance of the mean of the first picks from the class mean, against their number: {told}.")
    axis.fill_between(counts, orders.min(0), orders.max(0), color=COLOURS[1], alpha=0.18, linewidth=0,
                      label=f"the least and the most of {len(orders)} random orders")
    axis.plot(counts, middle, color=COLOURS[1], linestyle=DASHES[1], lw=2, label="their mean")
    axis.plot(counts, herded, color=COLOURS[0], linestyle=DASHES[0], lw=2, label="herding")
    axis.set(xlabel="picks, m", ylabel="distance from the class mean", ylim=(0, None), xlim=(1, len(herded)))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False)
    return figure


def nearest_cosines(cosines: Tensor, title: str) -> Figure:
    """Histogram of each image's cosine to the nearest class mean, split where a mean at the origin would be nearer.

    Parameters
    ----------
    cosines : (N,).
    """
    lost = cosines < NEARER_TO_THE_ORIGIN
    figure, axis = new_figure(f"Histogram of the cosine of {len(cosines)} images to the nearest mean of a class that has been "
                              f"seen. {int(lost.sum())} lie below 0.5, where a mean at the origin would be nearer.")
    edges = np.linspace(min(0.0, float(cosines.min())), 1, 51)
    edges = np.sort(np.append(edges, NEARER_TO_THE_ORIGIN))
    for which, name, colour, hatch in ((lost, "nearer to the origin", COLOURS[1], HATCHES[1]),
                                       (~lost, "nearer to a mean", COLOURS[0], HATCHES[0])):
        axis.hist(cosines[which].numpy(), bins=edges, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3,
                  label=f"{name}: {int(which.sum())} images")
    axis.axvline(NEARER_TO_THE_ORIGIN, color="black", lw=1, linestyle=DASHES[1])
    axis.set(xlabel="cosine to the nearest class mean", ylabel="test images")
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False, loc="upper left")
    return figure


def asked_for(asked: Sequence[float], columns: Sequence[range], title: str) -> Figure:
    """Bars: how much each class was asked for in the last step, coloured by the step it came in (`scaled.py`).

    Parameters
    ----------
    asked : one number a class.
    columns : the class columns of the steps so far.
    """
    means = [sum(asked[own.start:own.stop]) / len(own) for own in columns]
    told = ", ".join(f"step {step} {mean:,.0f}" for step, mean in enumerate(means, 1))
    figure, axis = new_figure(f"Bars of what each class was asked for in the last step. Mean over the classes of {told}.")
    for step, own in enumerate(columns, 1):
        axis.bar(list(own), asked[own.start:own.stop], 0.85, color=COLOURS[(step - 1) % 7], hatch=HATCHES[(step - 1) % 5],
                 edgecolor="white", linewidth=0.5, label=f"classes of step {step}")
    axis.set(xlabel="class, in order of arrival", ylabel="asked for", xticks=[own.start for own in columns])
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False, loc="upper left")
    return figure


def by_layer(panels: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> Figure:
    """Horizontal bars by layer, a panel for each thing that is measured, a bar for each name in it.

    Parameters
    ----------
    panels : what is measured (the axis) to name to layer to value; the same layers throughout, the first on top.
    """
    told = "; ".join(f"{what}, {name}: most in {max(of, key=of.__getitem__)}, least in {min(of, key=of.__getitem__)}"
                     for what, named in panels.items() for name, of in named.items())
    layers = list(next(iter(next(iter(panels.values())).values())))
    figure, axes = new_figure(f"Bars by layer. {told}.", width=1.4 + 3.6 * len(panels), height=0.9 + 0.42 * len(layers),
                              columns=len(panels))
    axes = axes if len(panels) > 1 else [axes]
    for axis, (what, named) in zip(axes, panels.items(), strict=True):
        high = 0.8 / len(named)
        for i, (name, of) in enumerate(named.items()):
            places = np.arange(len(layers)) + (i - (len(named) - 1) / 2) * high
            axis.barh(places, [of[layer] for layer in layers], high * 0.95, color=COLOURS[i % 7], hatch=HATCHES[i % 5],
                      edgecolor="white", linewidth=0.5, label=name)
        axis.set(xlabel=what, yticks=range(len(layers)), yticklabels=layers if axis is axes[0] else [])
        axis.invert_yaxis()
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="x", alpha=0.25)
        axis.set_axisbelow(True)
        if len(named) > 1:
            axis.legend(frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure

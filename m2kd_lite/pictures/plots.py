"""Figures: each returns a `Figure` that carries a text alternative; nothing here shows or saves.

One helper, `new_figure`, sets the style and demands the alternative text. Colours are Okabe & Ito's, which stay apart
for colour-blind readers; every line also has its own dash and mark. Used by the report and the notebooks.
"""
from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
HATCHES = ("", "//", "..", "xx", "\\\\")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
# The colour, line and mark of the i-th of many: colours come again after seven, with another line and another mark.
STYLES = tuple(dict(color=COLOURS[i % 7], linestyle=DASHES[(i + i // 7) % 7], marker=MARKS[(i + 2 * (i // 7)) % 7]) for i in range(14))
COMPONENTS = ("weights", "mask", "batch_norm", "heads", "exemplars")


def new_figure(alt: str, width: float = 6.4, height: float = 4.2, columns: int = 1, layout: Literal["constrained"] | None = "constrained"):
    """A figure and its axes.

    Parameters
    ----------
    alt : what the figure shows, in a sentence or two, for those who cannot see it.
    width, height : inches.
    columns : axes side by side; with 1 the axes come alone, otherwise as a list. 0: the caller makes its own.
    layout : constrained, which makes room for whatever is written; None, where the caller places its own axes: it is drawn in half the time.

    Raises
    ------
    ValueError : no alternative text.
    """
    if len(alt.split()) < 4:
        raise ValueError("a figure needs an alternative text that says what it shows")
    figure = Figure(figsize=(width, height), layout=layout)
    figure.alt_text = alt           # type: ignore[attr-defined]     # ours, on matplotlib's
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=10)
    return figure, axes[0] if columns == 1 else axes


def accuracy_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], title: str) -> Figure:
    """Accuracy on all seen classes after each step (the paper's Figure 4).

    Parameters
    ----------
    curves : name to (classes seen, top-1 in per cent), one entry a step.
    """
    ends = "; ".join(f"{name} ends at {top1[-1]:.1f} %" for name, (_, top1) in curves.items())
    figure, axis = new_figure(f"Line chart of top-1 accuracy against the number of classes seen. {ends}.")
    for i, (name, (classes, top1)) in enumerate(curves.items()):
        axis.plot(classes, top1, color=COLOURS[i % 7], linestyle=DASHES[i % 7], marker=MARKS[i % 7], label=name, lw=2)
    axis.set(xlabel="classes seen", ylabel="top-1 accuracy on all of them (%)", ylim=(0, 100))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False)
    return figure


def confusion_matrices(confusions: Mapping[str, Sequence[Sequence[int]]], steps: int | Sequence[int], title: str) -> Figure:
    """Confusion matrices side by side, as in the paper's Figure 1: rows true classes, columns predictions.

    Parameters
    ----------
    confusions : name to (classes, classes) counts, in class order.
    steps : draws a line between incremental steps; classes of each, or the classes seen after each.
    """
    import seaborn as sns           # here: with scipy it takes longer to load than all other figures together
    shares = {name: _recent_share(np.asarray(counts), steps) for name, counts in confusions.items()}
    told = "; ".join(f"{name} puts {share:.0f} % of old images into the last step's classes" for name, share in shares.items())
    count = len(confusions)
    figure, axes = new_figure(f"Confusion matrices in class order, true classes down, predicted classes across: {told}.",
                              width=0.6 + 3.6 * count, height=4.3, columns=count)
    for axis, (name, counts) in zip(axes if count > 1 else [axes], confusions.items(), strict=True):
        table = np.asarray(counts, dtype=float)
        share = 100 * table / table.sum(1, keepdims=True).clip(1)
        # The root brings out the few: most cells hold under ten per cent of a row.
        edges = step_edges(len(counts), steps)
        ticks = edges[::-(-len(edges) // 10)]          # more than ten would run into each other
        sns.heatmap(np.sqrt(share), ax=axis, cmap="viridis", vmin=0, vmax=10, square=True, cbar=False, rasterized=True)
        for edge in edges[1:]:
            axis.axhline(edge, color="white", lw=0.6, alpha=0.7)
            axis.axvline(edge, color="white", lw=0.6, alpha=0.7)
        axis.set_title(name, loc="left", fontsize=11)
        axis.set(xlabel="predicted class", xticks=ticks, yticks=ticks, xticklabels=ticks, yticklabels=ticks)
        axis.tick_params(rotation=0)
    (axes[0] if count > 1 else axes).set_ylabel("true class, in order of arrival")
    picture = (axes[0] if count > 1 else axes).collections[0]
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=[0, 10**0.5, 50**0.5, 10])
    bar.ax.set_yticklabels(["0", "10", "50", "100"])
    bar.set_label("% of the row's images")
    _head(figure, title)
    return figure


def accuracy_by_step(runs: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Bars: accuracy on each step's own classes after the last step, one group a step."""
    told = "; ".join(f"{name} {values[0]:.0f} % on the first step's classes and {values[-1]:.0f} % on the last's"
                     for name, values in runs.items())
    figure, axis = new_figure(f"Bar chart of the final accuracy on each step's own classes: {told}.")
    steps = np.arange(1, max(map(len, runs.values())) + 1)
    width = 0.8 / len(runs)
    for i, (name, values) in enumerate(runs.items()):
        place = steps[:len(values)] + (i - (len(runs) - 1) / 2) * width
        axis.bar(place, values, width * 0.95, color=COLOURS[i % 7], label=name, hatch=HATCHES[i % 5],
                 edgecolor="white", linewidth=0.5)
    axis.set(xlabel="classes of step", ylabel="accuracy after the last step (%)", xticks=steps, ylim=(0, 100))
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    axis.set_title(title, loc="left", fontsize=12)
    figure.legend(loc="outside lower center", ncols=min(2, len(runs)), frameon=False)      # anywhere else there may be bars
    return figure


def byte_ledgers(ledgers: Mapping[str, Sequence[Mapping[str, int]]], title: str) -> Figure:
    """Stacked bars: what each run carries from each step to the next, in megabytes (10^6 bytes), on one scale.

    Parameters
    ----------
    ledgers : name to one mapping of bytes by component a step (`metrics["bytes"]["per_step"]`).
    """
    told = "; ".join(f"{name} carries " + ", ".join(f"{part.replace('_', ' ')} {last[part] / 1e3:,.0f} kB"
                                                    for part in COMPONENTS if last[part])
                     for name, last in ((name, per_step[-1]) for name, per_step in ledgers.items()))
    used = [part for part in COMPONENTS if any(entry[part] for per_step in ledgers.values() for entry in per_step)]
    top = max(entry["total"] for per_step in ledgers.values() for entry in per_step) / 1e6
    count = len(ledgers)
    figure, axes = new_figure(f"Stacked bars of the bytes carried after each step. After the last: {told}.",
                              width=1.2 + 3.4 * count, height=4.0, columns=count)
    axes = axes if count > 1 else [axes]
    for axis, (name, per_step) in zip(axes, ledgers.items(), strict=True):
        steps = [entry["step"] for entry in per_step]
        bottom = np.zeros(len(steps))
        for part in used:
            i = COMPONENTS.index(part)
            values = np.array([entry[part] for entry in per_step]) / 1e6
            axis.bar(steps, values, bottom=bottom, color=COLOURS[i], label=part.replace("_", " "), width=0.7,
                     hatch=HATCHES[i], edgecolor="white", linewidth=0.5)
            bottom += values
        axis.set(xlabel="after step", ylim=(0, top * 1.05))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(name, loc="left", fontsize=11)
    axes[0].set_ylabel("bytes carried to the next step (MB)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    _head(figure, title)
    return figure


def _head(figure: Figure, title: str) -> None:
    """The title of several axes, in as many lines as the figure's width asks for."""
    figure.suptitle(fill(title, int(11 * figure.get_figwidth())), x=0.01, ha="left", fontsize=12)


def pixels(image: Tensor) -> np.ndarray:
    """An image as `imshow` takes it: (channels, H, W) uint8 to (H, W), or to (H, W, 3) with colours."""
    return image[0].cpu().numpy() if len(image) == 1 else image.permute(1, 2, 0).cpu().numpy()


def alt_text(figure: Figure) -> str:
    """What a figure of ours shows, in words."""
    return figure.alt_text          # type: ignore[attr-defined]


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG, its alternative text in the file's description.

    Our figures are opaque: without the fourth channel, which matplotlib always writes, a file is a tenth smaller and looks the same.
    """
    from PIL import Image, PngImagePlugin
    drawn, buffer, told = io.BytesIO(), io.BytesIO(), PngImagePlugin.PngInfo()
    figure.savefig(drawn, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
    told.add_itxt("Description", alt_text(figure))
    Image.open(drawn).convert("RGB").save(buffer, "png", dpi=(dpi, dpi), pnginfo=told)
    return buffer.getvalue()


def html_image(figure: Figure) -> str:
    """The figure as a self-contained HTML image with its alternative text."""
    from html import escape
    data = base64.b64encode(png(figure)).decode()
    return f'<img style="max-width: 100%" alt="{escape(alt_text(figure), quote=True)}" src="data:image/png;base64,{data}">'


def step_edges(classes: int, steps: int | Sequence[int]) -> list[int]:
    """The first class of each step, from the classes of each step, or from the classes seen after each."""
    return list(range(0, classes, steps)) if isinstance(steps, int) else [0, *(seen for seen in steps if seen < classes)]


def _recent_share(counts: np.ndarray, steps: int | Sequence[int]) -> float:
    """Of the images of earlier steps' classes, the percentage that is taken for the last step's."""
    first = step_edges(len(counts), steps)[-1]
    old = counts[:first]
    return 100 * old[:, first:].sum() / max(1, old.sum())

"""The paper's figures with ours in them: Figure 4 panel by panel, Table 1 as points, and Figure 1 in sums.

The same rules as in `plots.py`, whose helper these use. What is not there is said in the picture and in its text alternative.
Called by `notebooks/08_paper_figures.ipynb` with what `paper.py` finds in the banks.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from m2kd_lite.method.metrics import DESTINATIONS
from m2kd_lite.pictures.explorer import Curve, draw_curve
from m2kd_lite.pictures.plots import COLOURS, HATCHES, MARKS, new_figure


def accuracy_panels(panels: Mapping[str, tuple[Mapping[str, Curve], Sequence[str]]], title: str, accuracy: str = "top-1") -> Figure:
    """Accuracy on all seen classes, one panel a class batch (Figure 4): lines are ours, hollow marks the paper's.

    Parameters
    ----------
    panels : what a panel is called, to (curves by name, names of what was not run), as `paper.curves` gives them.
    accuracy : which one the curves show, for the axis and the text alternative.
    """
    names = {name for curves, _ in panels.values() for name in curves}
    width = max(6.4, 3.3 * len(panels) + 0.4)
    columns = int(width / 3)        # of the legend; its rows want room of their own
    figure, axes = new_figure(_panels_in_words(panels, accuracy), width, 3.6 + 0.2 * -(-len(names) // columns), columns=len(panels))
    axes = axes if len(panels) > 1 else [axes]
    highest = [value for curves, _ in panels.values() for curve in curves.values()
               for value in (*curve.top1.flat, *(top1 for _, top1 in curve.paper))]
    top = min(100, 10 * int(max(highest, default=100) // 10 + 1))       # one scale for all panels
    legend: dict[str, Any] = {}
    for axis, (name, (curves, lacking)) in zip(axes, panels.items(), strict=True):
        for method, curve in curves.items():
            draw_curve(axis, method, curve)
        axis.set(xlabel="classes seen", ylim=(0, top))
        axis.set_title(name, loc="left", fontsize=11)
        axis.grid(axis="y", alpha=0.25)
        if lacking:
            axis.text(0.97, 0.97, fill("not run: " + ", ".join(lacking), 34), transform=axis.transAxes, ha="right", va="top",
                      fontsize=8.5, color="0.35")
        if not curves:
            axis.set_xticks([])
        legend |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0].set_ylabel(f"{accuracy} accuracy on all of them (%)")
    if legend:
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _panels_in_words(panels: Mapping[str, tuple[Mapping[str, Curve], Sequence[str]]], accuracy: str) -> str:
    told = []
    for name, (curves, lacking) in panels.items():
        said = [f"{method} ends at {curve.top1.mean(0)[-1]:.1f} %" for method, curve in curves.items() if len(curve.top1)]
        said += [f"{len(curve.before)} runs of {method} measured before end at {np.min(curve.before, 0)[-1]:.1f} to "
                 f"{np.max(curve.before, 0)[-1]:.1f} %" for method, curve in curves.items() if len(curve.before)]
        said += [f"the paper's {method} ends at {curve.paper[-1][1]:.1f} %" for method, curve in curves.items() if len(curve.paper)]
        said += [f"not run: {', '.join(lacking)}"] if lacking else []
        told.append(f"{name}: {'; '.join(said)}.")
    return f"Line charts of {accuracy} accuracy against the number of classes seen. " + " ".join(told)


def points_beside(ours: Mapping[str, Sequence[float]], paper: Mapping[str, float], what: str, title: str) -> Figure:
    """One number for each of several settings: a dot for each run of ours, a line through their means, the paper's as hollow marks.

    Parameters
    ----------
    ours : what a setting is called, to its runs' numbers in per cent; empty where nothing was run.
    paper : the same names, to the paper's numbers; those it does not give are left out.
    what : the number, for the axis.
    """
    names = list(ours)
    figure, axis = new_figure(_points_in_words(ours, paper, what), width=6.4, height=3.6)
    there = [place for place, name in enumerate(names) if len(ours[name])]
    if there:
        axis.plot(there, [np.mean(ours[names[place]]) for place in there], color=COLOURS[0], lw=1.5, alpha=0.6)
        places = np.repeat(there, [len(ours[names[place]]) for place in there])
        axis.plot(places, np.concatenate([ours[names[place]] for place in there]), color=COLOURS[0], marker=MARKS[0],
                  linestyle="none", label="ours, each run; the line joins the means")
    if paper:
        axis.plot([names.index(name) for name in paper], list(paper.values()), color=COLOURS[1], marker=MARKS[1],
                  linestyle="none", markersize=9, fillstyle="none", label="the paper")
    axis.set_xticks(range(len(names)), [name if len(ours[name]) else f"{name}\n(not run)" for name in names])
    axis.set(xlim=(-0.5, len(names) - 0.5), ylabel=what)
    axis.margins(y=0.2)
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    if there or paper:
        axis.legend(frameon=False, fontsize=9)
    return figure


def _points_in_words(ours: Mapping[str, Sequence[float]], paper: Mapping[str, float], what: str) -> str:
    told = []
    for name, values in ours.items():
        runs = f"{len(values)} run{'s' if len(values) > 1 else ''}"
        said = [f"ours {np.mean(values):.1f} ({runs})" if len(values) else "not run"]
        said += [f"the paper {paper[name]:.1f}"] if name in paper else []
        told.append(f"{name}: {'; '.join(said)}.")
    return f"Points: {what}, by setting. " + " ".join(told)


def destinations(shares: Mapping[str, np.ndarray], title: str) -> Figure:
    """Stacked bars, one panel a run: what the images of each step's classes are taken for.

    Parameters
    ----------
    shares : a run's name to (steps, 4), as `metrics.destinations` gives them.
    """
    told = "; ".join(f"{name} takes {100 * rows[:, :2].sum(1).mean():.0f} % of a step's images for classes of that step, {100 * rows[:, 0].mean():.0f} % for "
                     "the right one" for name, rows in shares.items())
    figure, axes = new_figure(f"Stacked bars of what each step's images are taken for. On average over the steps {told}.",
                              0.8 + 2.6 * len(shares), 3.9, columns=len(shares))
    axes = axes if len(shares) > 1 else [axes]
    for axis, (name, rows) in zip(axes, shares.items(), strict=True):
        steps, bottom = np.arange(1, len(rows) + 1), np.zeros(len(rows))
        for part, colour, hatch, values in zip(DESTINATIONS, (0, 5, 4, 1), HATCHES[:4], 100 * rows.T, strict=True):
            axis.bar(steps, values, bottom=bottom, color=COLOURS[colour], hatch=hatch, label=part, width=0.8, edgecolor="white", linewidth=0.5)
            bottom += values
        axis.set(xlabel="images of step", xticks=steps, ylim=(0, 100), yticks=range(0, 101, 20))
        axis.set_title(name, loc="left", fontsize=11)
    axes[0].set_ylabel("% of them, taken for")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, 2 * len(shares)), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure

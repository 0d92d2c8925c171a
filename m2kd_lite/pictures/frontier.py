"""Accuracy against the bytes carried: a point a setting, and the frontier of those that nothing beats in both.

The same rules as in `plots.py`, whose helper these use. Drawn by the report and the leaderboard, and in
`notebooks/10_your_own_method.ipynb`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from m2kd_lite.method.metrics import frontier
from m2kd_lite.pictures.plots import STYLES, new_figure

ACCURACY = "average incremental accuracy (%)"


@dataclass(frozen=True)
class Point:
    """A setting: what its runs carried on after the last step, in bytes, and how accurate they were, in per cent; one entry a run each."""

    carried: Sequence[int]
    accuracy: Sequence[float]

    @classmethod
    def of_runs(cls, runs: Sequence[Sequence[Mapping[str, Any]]]) -> Point:
        """From rows of a bank, one list a run: the average incremental accuracy and the bytes after the last step."""
        return cls([run[-1]["bytes_total"] for run in runs], [run[-1]["average_incremental_accuracy"] for run in runs])


def best_of(points: Mapping[str, Point]) -> list[str]:
    """The names on the frontier of the means, by bytes, ascending."""
    names = list(points)
    return [names[i] for i in frontier([float(np.mean(point.carried)) for point in points.values()],
                                       [float(np.mean(point.accuracy)) for point in points.values()])]


def accuracy_against_bytes(points: Mapping[str, Point], title: str) -> Figure:
    """The means as marks with the standard deviation of their runs, the frontier as steps.

    Parameters
    ----------
    points : what a setting is called, to its runs.
    """
    best = best_of(points)
    figure, axis = new_figure(_told(points, best), width=7.6, height=4.6)
    for i, (name, point) in enumerate(points.items()):
        style = STYLES[i % len(STYLES)]
        spread = np.std(point.accuracy, ddof=1) if len(point.accuracy) > 1 else None
        axis.errorbar(np.mean(point.carried) / 1e6, np.mean(point.accuracy), yerr=spread, color=style["color"], marker=style["marker"],
                      markersize=8, linestyle="none", capsize=3, label=name, fillstyle="full" if name in best else "none", zorder=3)
    edge = [(float(np.mean(points[name].carried)) / 1e6, float(np.mean(points[name].accuracy))) for name in best]
    axis.set_xscale("log")
    if edge:
        low, high = axis.get_xlim()
        axis.step([*(x for x, _ in edge), high], [*(y for _, y in edge), edge[-1][1]], where="post", color="0.6", lw=1.5, zorder=1,
                  label="the frontier")
        axis.set_xlim(low, high)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}") if edge and high / low < 30 else NullFormatter())
    axis.tick_params(which="minor", labelsize=8)
    axis.set(xlabel="carried from step to step, after the last one (MB)", ylabel=ACCURACY)
    axis.grid(alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _told(points: Mapping[str, Point], best: Sequence[str]) -> str:
    told = [f"{name}: {np.mean(point.accuracy):.1f} with {np.mean(point.carried) / 1e6:.2f} MB"
            f"{' (' + str(len(point.accuracy)) + ' runs)' if len(point.accuracy) > 1 else ''}." for name, point in points.items()]
    return f"Points: {ACCURACY} against bytes carried, by setting. {' '.join(told)} On the frontier: {', '.join(best) or 'none'}."

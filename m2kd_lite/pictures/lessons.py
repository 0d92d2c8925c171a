"""Figures of the lessons on distillation: who fills the targets, the target matrix itself, and scores over models.

The same rules as in `plots.py`, whose helper and colours these use: each returns a `Figure` with a text alternative.
Called by the notebooks on Eq. 1 and Eq. 2 (section 3.1).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from m2kd_lite.method.targets import TeacherPlan
from m2kd_lite.pictures.plots import COLOURS, DASHES, HATCHES, MARKS, new_figure, pixels

LABELS = "labels"


def who_fills(plans: Mapping[str, TeacherPlan], columns: Sequence[range], title: str) -> Figure:
    """Blocks: at each incremental step (a row), who fills which columns of the target matrix.

    Parameters
    ----------
    plans : name to a plan, as `targets.penultimate`; one panel each.
    columns : the class columns of steps 1..P.
    """
    last = len(columns)
    told = "; ".join(f"{name}, step {last}: " + ", ".join(
        f"{who} fills {_classes(own)}" for who, own in _filled(plan(columns), columns)) for name, plan in plans.items())
    figure, axes = new_figure(f"Blocks of columns by incremental step, named by who fills them. {told}.",
                              width=0.8 + 3.9 * len(plans), height=0.9 + 0.55 * last, columns=len(plans))
    axes = axes if len(plans) > 1 else [axes]
    for axis, (name, plan) in zip(axes, plans.items(), strict=True):
        for step in range(1, last + 1):
            for who, own in _filled(plan(columns[:step]), columns[:step]):
                model = 0 if who == LABELS else int(who.split()[1])
                axis.add_patch(Rectangle((own.start, step - 0.4), len(own), 0.8, edgecolor="black", linewidth=0.8,
                                         facecolor=(COLOURS[(model - 1) % 7], 0.35) if model else "white",
                                         hatch="" if model else HATCHES[1] * 2))
                axis.text((own.start + own.stop) / 2, step, who, ha="center", va="center", fontsize=11,
                          bbox=None if model else dict(facecolor="white", edgecolor="none", pad=1))
        axis.set(xlim=(0, 1.01 * columns[-1].stop), ylim=(last + 0.6, 0.4), yticks=range(1, last + 1),
                 xlabel="class, in order of arrival", xticks=_edges(columns))
        axis.set_title(name, loc="left", fontsize=11)
        axis.tick_params(length=0)
    axes[0].set_ylabel("incremental step")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def target_matrices(matrices: Mapping[str, tuple[list[tuple[int, range]], Tensor]], columns: Sequence[range],
                    title: str) -> Figure:
    """Target matrices side by side: a row is an image, a column a class, bright is near 1.

    Parameters
    ----------
    matrices : name to (the plan that filled it, (images, classes) targets in [0, 1]).
    columns : the class columns of steps 1..P.
    """
    told = "; ".join(f"{name}: " + ", ".join(f"{who} in {_classes(own)}" for who, own in _filled(plan, columns))
                     for name, (plan, _) in matrices.items())
    figure, axes = new_figure(f"Target matrices, images down, classes across, brighter is nearer to 1. Filled by: {told}.",
                              width=0.9 + 3.6 * len(matrices), height=4.3, columns=len(matrices))
    axes = axes if len(matrices) > 1 else [axes]
    for axis, (name, (plan, values)) in zip(axes, matrices.items(), strict=True):
        # The root brings out the soft targets: most are below 0.1.
        picture = axis.imshow(values.cpu().numpy(), aspect="auto", cmap="viridis", norm=PowerNorm(0.5, 0, 1),
                              interpolation="nearest", extent=(0, columns[-1].stop, len(values), 0))
        for own in columns[:-1]:
            axis.axvline(own.stop, color="white", lw=0.6, linestyle=":")
        for who, own in _filled(plan, columns):
            axis.axvline(own.stop, color="white", lw=1.4)
            axis.text((own.start + own.stop) / 2, -0.01 * len(values), who, ha="center", va="bottom", fontsize=9)
        axis.set(xlabel="class, in order of arrival", xticks=_edges(columns))
        axis.set_title(name, loc="left", fontsize=11, pad=16)
    axes[0].set_ylabel("training image")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=[0, 0.1, 0.5, 1])
    bar.set_label("target")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def target_rows(image: Tensor, rows: Mapping[str, tuple[list[tuple[int, range]], Tensor]], columns: Sequence[range],
                title: str) -> Figure:
    """One image and its row of each target matrix, as bars: colour and hatch say which teacher filled a column.

    Parameters
    ----------
    image : (channels, height, width) uint8.
    rows : name to (the plan that filled it, (classes,) targets in [0, 1]).
    columns : the class columns of steps 1..P.
    """
    told = "; ".join(f"{name}: " + ", ".join(f"{who} fills {_classes(own)}, highest {float(row[own.start:own.stop].max()):.2f}"
                                             for who, own in _filled(plan, columns)) for name, (plan, row) in rows.items())
    figure, _ = new_figure(f"An image, and bars of its targets by class. {told}.", width=8.4, height=0.7 + 1.9 * len(rows),
                           columns=0)
    names = [f"row {i}" for i in range(len(rows))]
    axes = figure.subplot_mosaic([["image", name] for name in names], width_ratios=(1, 4.2))
    axes["image"].imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
    axes["image"].set_axis_off()
    for place, (name, (plan, row)) in zip(names, rows.items(), strict=True):
        axis = axes[place]
        for who, own in _filled(plan, columns):
            model = 0 if who == LABELS else int(who.split()[1])
            axis.bar(range(own.start, own.stop), row[own.start:own.stop].sqrt().numpy(), 0.9, linewidth=0.3, edgecolor="black",
                     color=COLOURS[(model - 1) % 7] if model else "#444444", hatch=HATCHES[(model - 1) % 5] if model else "")
            axis.text((own.start + own.stop - 1) / 2, 1.02, who, ha="center", va="bottom", fontsize=9)
        for own in columns[:-1]:
            axis.axvline(own.stop - 0.5, color="black", lw=0.5, linestyle=":")
        axis.set(ylim=(0, 1), yticks=[0, 0.1 ** 0.5, 0.5 ** 0.5, 1], yticklabels=["0", "0.1", "0.5", "1"], ylabel="target",
                 xlim=(-0.7, columns[-1].stop - 0.3))
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(name, loc="left", fontsize=11, pad=16)
    axes[names[-1]].set_xlabel("class, in order of arrival")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def lines_over_models(lines: Mapping[str, tuple[Sequence[int], Sequence[float]]], measured: str, title: str,
                      top: float | None = None) -> Figure:
    """Lines: something measured on the models of steps 1, 2, ...

    Parameters
    ----------
    lines : name to (model numbers, values).
    measured : what the values are, for the axis.
    top : upper end of the axis, from 0; None fits it.
    """
    told = "; ".join(f"{name} is {values[0]:.2f} at model {models[0]} and {values[-1]:.2f} at model {models[-1]}"
                     for name, (models, values) in lines.items())
    figure, axis = new_figure(f"Line chart of the {measured} over the models of a run: {told}.")
    for i, (name, (models, values)) in enumerate(lines.items()):
        axis.plot(models, values, color=COLOURS[i % 7], linestyle=DASHES[i % 7], marker=MARKS[i % 7], label=name, lw=2)
    axis.set(xlabel="model of step", ylabel=measured)
    axis.set_ylim(0, top)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False)
    return figure


def _filled(plan: Sequence[tuple[int, range]], columns: Sequence[range]) -> list[tuple[str, range]]:
    """(who, columns) of a step, the labels' own columns last."""
    return [(f"model {step}", own) for step, own in plan] + [(LABELS, _rest(plan, columns))]


def _rest(plan: Sequence[tuple[int, range]], columns: Sequence[range]) -> range:
    return range(max((own.stop for _, own in plan), default=0), columns[-1].stop)


def _edges(columns: Sequence[range]) -> list[int]:
    return [0, *(own.stop for own in columns)]


def _classes(own: range) -> str:
    return f"classes {own.start} to {own.stop - 1}"

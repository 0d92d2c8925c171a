"""The figure of a run that trains: loss by epoch, and accuracy after each incremental step, over one axis.

The same rules as in `plots.py`, whose helper and colours this uses. Called by `widgets/training.py`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from m2kd_lite.pictures.plots import COLOURS, DASHES, MARKS, new_figure

PHASES = ("train", "finetune")         # of the classifier in a step, in their order
NAMED = 10              # steps whose own classes are drawn, and which are named; more would not be readable
GREY = "0.6"


def training_curves(epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> Figure:
    """What a run's events say: above the loss of each epoch, below the accuracy after each step.

    Parameters
    ----------
    epochs : `epoch` events (`events.py`) in their order, one or more. A resumed run's may begin in the middle.
    steps : `step` events in their order; may be empty.
    """
    figure, _ = new_figure(_told(epochs, steps), height=4.4, columns=0)
    losses, accuracies = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2))
    count, length = epochs[-1]["steps"], sum(_lengths(epochs).values())
    _draw_losses(losses, epochs)
    _draw_accuracies(accuracies, steps, length, faint=count <= NAMED)
    losses.set(ylabel="loss", xlim=(0, count * length), ylim=(0, None))
    accuracies.set(xlabel="epoch, over all steps", ylabel="accuracy (%)", ylim=(0, 100))
    for axis in (losses, accuracies):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(axis="y", alpha=0.25)
        for step in range(1, count):
            axis.axvline(step * length, color="0.4", linestyle=":", lw=0.8)
    for step in range(1, count + 1) if count <= NAMED else ():
        losses.text((step - 0.5) * length, 1.02, f"step {step}" if count <= 5 else step, ha="center", fontsize=10,
                    transform=losses.get_xaxis_transform())
    lines = [*losses.get_legend_handles_labels(), *accuracies.get_legend_handles_labels()]
    figure.legend(lines[0] + lines[2], lines[1] + lines[3], loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_losses(axis, epochs: Sequence[Mapping[str, Any]]) -> None:
    lengths = _lengths(epochs)
    label: str | None
    for i, (phase, label) in enumerate(zip(PHASES, ("loss", "loss after the prune"), strict=True)):
        begin = lengths.get("train", 0) * (phase == "finetune")
        for step in sorted({event["step"] for event in epochs if event["phase"] == phase}):
            own = [event for event in epochs if (event["step"], event["phase"]) == (step, phase)]
            places = [(step - 1) * sum(lengths.values()) + begin + event["epoch"] for event in own]
            axis.plot(places, [event["loss"] for event in own], color=COLOURS[i], linestyle=DASHES[i], marker=MARKS[i],
                      markersize=3, lw=1.5, label=label, clip_on=False)
            label = None        # one entry of the legend for all steps


def _draw_accuracies(axis, steps: Sequence[Mapping[str, Any]], length: int, faint: bool) -> None:
    last = steps[-1]["step"] if steps and faint else 0
    for own in range(1, last + 1):
        since = [event for event in steps if event["step"] >= own]
        axis.plot([event["step"] * length for event in since], [event["accuracy_by_step"][own - 1] for event in since],
                  color=GREY, lw=1, marker=".", clip_on=False, label="one step's own classes" if own == 1 else None)
        axis.annotate(str(own), (since[0]["step"] * length, since[0]["accuracy_by_step"][own - 1]), (-4, 2),
                      textcoords="offset points", ha="right", fontsize=9, color="0.35")
    axis.plot([event["step"] * length for event in steps], [event["top1"] for event in steps], color=COLOURS[2],
              linestyle=DASHES[0], marker=MARKS[2], lw=2, label="all classes seen", clip_on=False)


def _lengths(epochs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Phase to its epochs, in every step the same; a phase that has not been seen yet is not there."""
    return {event["phase"]: event["epochs"] for event in epochs}


def _told(epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> str:
    last = epochs[-1]
    own = [event["loss"] for event in epochs if (event["step"], event["phase"]) == (last["step"], last["phase"])]
    told = (f"Two charts over the epochs of {last['steps']} incremental steps. Above, the loss: in step {last['step']}, phase "
            f"{last['phase']}, from {own[0]:.4f} to {own[-1]:.4f} in epoch {last['epoch']} of {last['epochs']}. "
            "Below, top-1 accuracy")
    if not steps:
        return f"{told}, which is measured when a step ends."
    curve = ", ".join(f"{event['top1']:.1f} %" for event in steps)
    by_step = ", ".join(f"{accuracy:.1f} %" for accuracy in steps[-1]["accuracy_by_step"])
    return (f"{told} on all classes seen, after step {steps[0]['step']} and on: {curve}. On the classes of each step, after step "
            f"{steps[-1]['step']}: {by_step}.")

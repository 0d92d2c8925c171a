"""Every method of the paper is the same training loop with a few choices. This table is those choices.

A new method is a new row, and at most one new function. `train.run` takes a row, so a notebook may pass its own, made
with `dataclasses.replace`.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from m2kd_lite import losses, masks, snapshots, targets


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    title : the name in figures.
    teachers : which model fills which old columns of the target matrix (`targets.py`).
    auxiliary : whether there is an auxiliary head (section 3.2).
    prunes : whether each step freezes what it keeps and later steps move the free weights only (section 3.3). If not,
        every weight moves.
    memory : what is kept beside the current network: "none", "snapshots" (whole earlier models), "one weight set and a
        mask", or "all images".
    fill, main_loss, auxiliary_loss, prune, rebuild : the functions of `targets.py`, `losses.py`, `masks.py` and
        `snapshots.py` that do the work, for a notebook to exchange.
    """

    title: str
    teachers: targets.TeacherPlan
    auxiliary: bool = False
    prunes: bool = False
    memory: str = "none"
    fill: Callable[..., tuple[Tensor, Tensor]] = targets.target_matrix
    main_loss: Callable[..., Tensor] = losses.distillation_loss
    auxiliary_loss: Callable[..., Tensor] = losses.auxiliary_loss
    prune: Callable[..., dict[str, Tensor]] = masks.prune
    rebuild: Callable[..., dict[str, Tensor]] = snapshots.Snapshots.state


METHODS = {
    "finetune": Method("FT", targets.no_teachers),
    "lwf-mc": Method("LwF-MC", targets.penultimate),
    "m2kd-no-pruning": Method("M²KD (no pruning)", targets.own_step, auxiliary=True, memory="snapshots"),
    "m2kd": Method("M²KD", targets.own_step, auxiliary=True, prunes=True, memory="one weight set and a mask"),
    "joint": Method("Upper bound", targets.no_teachers, memory="all images"),
}


def title_of(method: str, pruning_ratio: float) -> str:
    """A run in a figure or a sentence: the row's title, with its ratio where it prunes."""
    row = METHODS[method]
    return f"{row.title}, ratio {pruning_ratio:g}" if row.prunes else row.title


def unused_settings(method: Method) -> tuple[str, ...]:
    """Settings at which a row does not look: runs of it that differ in nothing else are the same run."""
    return ((() if method.prunes else ("pruning_ratio", "finetune_epochs"))
            + (() if method.auxiliary else ("alpha", "lambda_aux")))

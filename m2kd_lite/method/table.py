"""Every method of the paper is the same training loop with a few choices. This table is those choices.

A new method is a new row, and at most one new function. `train.run` takes a row, so a notebook may pass its own, made
with `dataclasses.replace`; and a package may bring one by name (docs/your_own_method.md).
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from m2kd_lite.config import PLUG_INS, RunConfig, plug_in
from m2kd_lite.errors import BadInput
from m2kd_lite.method import exemplars, losses, masks, painter, scaled, snapshots, targets
from m2kd_lite.method.importance import Penalty
from m2kd_lite.method.nets import convolution_sizes
from m2kd_lite.method.reserving import MASKING, Masking


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    title : the name in figures.
    teachers : which model fills which old columns of the target matrix (`targets.py`).
    auxiliary : whether there is an auxiliary head (section 3.2).
    cosine : whether the main head looks at directions only (`nets.py`), so that rows of new classes cannot win by their length.
    prunes : whether each step freezes what it keeps and later steps move the free weights only (section 3.3). If not,
        every weight moves.
    memory : what is kept beside the current network: "none", "snapshots" (whole earlier models), "one weight set and a
        mask", "all images", "exemplars", "exemplars and snapshots" (section 4.5), "importances" (`importance.py`), or "a generator"
        (`painter.py`).
    decision : how a class is chosen: by "argmax" of the main head, by "nearest class mean" of the exemplars
        (`exemplars.py`), by "rescaled" probabilities (`scaled.py`), or by "aligned" rows of the head (`aligning.py`).
    softmax : whether labels and teachers are matched by softmax (`scaled.py`) in place of Eq. 1 to 4.
    penalty : what moving a parameter costs, in place of teachers.
    fill, main_loss, auxiliary_loss, prune, rebuild : the functions of `targets.py`, `losses.py`, `masks.py` and
        `snapshots.py` that do the work, for a notebook to exchange.
    masking : the same for a generator's masks (`reserving.py`).
    """

    title: str
    teachers: targets.TeacherPlan
    auxiliary: bool = False
    cosine: bool = False
    prunes: bool = False
    memory: str = "none"
    decision: str = "argmax"
    softmax: bool = False
    penalty: Penalty | None = None
    fill: Callable[..., tuple[Tensor, Tensor]] = targets.target_matrix
    main_loss: Callable[..., Tensor] = losses.distillation_loss
    auxiliary_loss: Callable[..., Tensor] = losses.auxiliary_loss
    prune: Callable[..., dict[str, Tensor]] = masks.prune
    rebuild: Callable[..., dict[str, Tensor]] = snapshots.Snapshots.state
    masking: Masking = MASKING

    @property
    def keeps_exemplars(self) -> bool:
        """Whether images of old classes are kept, as many as the setting `exemplars` says."""
        return self.memory.startswith("exemplars")

    @property
    def paints(self) -> bool:
        """Whether a generator learns to draw the classes of each step, and later steps train on what it draws."""
        return self.memory == "a generator"


class _Table(dict[str, Method]):
    """Loads a row of another package when it is first asked for: that package may well need this table to make it."""

    def __missing__(self, name: str) -> Method:
        if name not in PLUG_INS:
            raise KeyError(name)
        self[name] = plug_in(name)
        return self[name]


#: The table of methods: name to `Method`. What other packages bring joins it when it is first asked for.
METHODS = _Table({
    "finetune": Method("FT", targets.no_teachers),
    "lwf-mc": Method("LwF-MC", targets.penultimate),
    "m2kd-no-pruning": Method("M²KD (no pruning)", targets.own_step, auxiliary=True, memory="snapshots"),
    "m2kd": Method("M²KD", targets.own_step, auxiliary=True, prunes=True, memory="one weight set and a mask"),
    "joint": Method("Upper bound", targets.no_teachers, memory="all images"),
    "scaled": Method("Scaled", targets.penultimate, fill=scaled.soft_targets, softmax=True, decision="rescaled"),
    "rwalk": Method("RWalk", targets.no_teachers, memory="importances", penalty=Penalty(path=True)),
    "ewc": Method("EWC", targets.no_teachers, memory="importances", penalty=Penalty(path=False)),
    "icarl": Method("iCaRL", targets.penultimate, memory="exemplars", decision="nearest class mean"),
    "icarl-aux": Method("iCaRL, auxiliary", targets.penultimate, auxiliary=True, memory="exemplars", decision="nearest class mean"),
    "icarl-m2kd": Method("iCaRL, M²KD", targets.own_step, auxiliary=True, memory="exemplars and snapshots",
                         decision="nearest class mean"),
    "dgm": Method("DGM", targets.no_teachers, memory="a generator"),
})


def every_method() -> dict[str, Method]:
    """The table with all rows that other packages bring; one that cannot be loaded is left out, and told to whoever asks for it."""
    for name in PLUG_INS:
        with contextlib.suppress(BadInput):
            METHODS[name]
    return METHODS


def title_of(method: str, pruning_ratio: float) -> str:
    """A run in a figure or a sentence: the row's title, with its ratio where it prunes."""
    row = METHODS[method]
    return f"{row.title}, ratio {pruning_ratio:g}" if row.prunes else row.title


def check_possible(method: Method, config: RunConfig, shape: Sequence[int], classes: int, steps: int) -> None:
    """Raise BadInput or LayerExhausted where a row cannot be run on images of a shape, (N, C, H, W), of so many classes in so many steps."""
    if method.keeps_exemplars:
        exemplars.check_budget(config.exemplars, classes)
    if method.paints:
        painter.check_drawable(shape)
    if method.prunes:
        masks.check_lasting(convolution_sizes(config.backbone, shape[1]), steps, config.pruning_ratio)


def unused_settings(method: Method) -> tuple[str, ...]:
    """Settings at which a row does not look: runs of it that differ in nothing else are the same run."""
    return ((() if method.prunes else ("pruning_ratio", "finetune_epochs", "finetune_schedule"))
            + (("prior",) if method.softmax else ())
            + (() if method.auxiliary else ("alpha", "lambda_aux"))
            + (() if method.keeps_exemplars else ("exemplars",))
            + (() if method.paints else ("generator_epochs", "generator_width", "mask_penalty")))

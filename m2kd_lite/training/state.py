"""All of a run that must survive a crash, as tensors and JSON values with one writer.

A checkpoint holds this and nothing else: teachers' targets are filled again, and everything random follows from the
position (`seeds.py`). Written and read by `train.py`.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.method import exemplars, masks, snapshots
from m2kd_lite.method.importance import Walk
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.painter import Painter
from m2kd_lite.method.replay import Duel
from m2kd_lite.method.table import Method
from m2kd_lite.training import paint, witness
from m2kd_lite.training.rundir import MAY_DIFFER

ROUNDING = ("device", "threads", "precision", "torch")      # what the last bits of a result depend on beside the settings


@dataclass
class Position:
    """Where a run is. `phase` is train, finetune, paint or done; `batch` batches of `epoch` are done."""

    step: int = 1
    phase: str = "train"
    epoch: int = 0
    batch: int = 0


@dataclass
class State:
    """The state of a run.

    Attributes
    ----------
    net : the live network.
    past : the models of finished steps.
    loss_sum : scalar float64, over the batches of the epoch under way.
    masks : per convolution, uint8, the owner of each weight; empty for a method that does not prune.
    momenta : SGD's, by parameter name, while a phase is under way; empty between phases.
    results : one entry a finished step, as metrics.json will hold it.
    exemplars : per class seen in a finished step, (m,) int64 rows of the training images, best first; empty for a method
        that keeps none.
    walk : what a penalty knows of each parameter; None for a method without one.
    painter : what draws the classes of finished steps; None for a method that does not.
    duel : what trains the painter, from the beginning of that phase to the end of the step.
    live : one tensor a finished step, what its live network said (`witness.py`).
    environments : where the run was computed, one entry whenever that changed, each with the position from which on (`since`).
    seconds : spent in this step on training and on teachers; and in all before this process began.
    step_loss : mean loss of the last finished epoch.
    serial : counts checkpoints.
    """

    net: IncrementalNet
    past: snapshots.Snapshots
    loss_sum: Tensor
    masks: dict[str, Tensor] = field(default_factory=dict)
    momenta: dict[str, Tensor] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    results: list[dict] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    exemplars: list[Tensor] = field(default_factory=list)
    walk: Walk | None = None
    painter: Painter | None = None
    duel: Duel | None = None
    environments: list[dict] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "teacher": 0.0, "wall": 0.0})
    step_loss: float = math.nan
    serial: int = 0

    @classmethod
    def new(cls, config: RunConfig, method: Method, stream: ClassStream, device: torch.device) -> State:
        """Before step 1: a network without outputs, normalised for the first step's images, all weights free."""
        channels = stream.train_images.shape[1]
        prior = 0.5 if method.softmax else config.prior         # a softmax does not see what all of its outputs have in common
        net = IncrementalNet(config.backbone, channels, method.auxiliary, config.seed, prior, method.cosine)
        net.set_pixel_statistics(stream.train(1)[0])
        net.to(device)
        past = snapshots.Snapshots(config.backbone, channels, method.auxiliary, cosine=method.cosine, notes={
            "config": config.model_dump(mode="json"), "class_names": list(stream.class_names),
            "columns": [[own.start, own.stop] for own in stream.columns]})
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        walk = Walk(net, method.penalty, len(stream.class_names)) if method.penalty else None
        return cls(net, past, loss_sum, masks.new_masks(net.convolutions()) if method.prunes else {}, walk=walk,
                   painter=paint.new_painter(config, stream, method.masking) if method.paints else None)

    def goes_on_in(self, environment: dict) -> list[tuple[str, Any, Any]]:
        """Note where the run is computed from here on; gives what changed of that which the bits depend on: (what, was, now)."""
        last = self.environments[-1] if self.environments else environment
        if not self.environments or {**last, "since": None} != {**environment, "since": None}:
            self.environments.append({**environment, "since": dict(vars(self.position))})
        return [(what, last[what], environment[what]) for what in ROUNDING if last[what] != environment[what]]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Flat names to tensors, and JSON notes: what a checkpoint holds beside `past`."""
        groups = {"net": self.net.state_dict(), "masks": self.masks, "momenta": self.momenta, "loss": {"sum": self.loss_sum},
                  "live": {f"step{step:03d}": logits for step, logits in enumerate(self.live, 1)},
                  "exemplars": {f"class{label:05d}": rows for label, rows in enumerate(self.exemplars)},
                  "walk": self.walk.to_tensors() if self.walk else {}, "painter": self.painter.state_dict() if self.painter else {},
                  "duel": self.duel.to_tensors() if self.duel else {}}
        tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
        return tensors, {"serial": self.serial, "position": vars(self.position), "results": self.results,
                         "environments": self.environments, "seconds": dict(self.seconds),
                         "step_loss": self.step_loss if math.isfinite(self.step_loss) else None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], notes: dict, past: snapshots.Snapshots, config: RunConfig,
                     method: Method, stream: ClassStream, device: torch.device) -> State:
        """The inverse of `to_tensors`.

        Raises
        ------
        KeyError, ValueError : something is missing, or does not fit this run.
        """
        new = cls.new(config, method, stream, device)
        images = len(witness.rows_of(len(stream.test_images)))
        kept = [tensors.pop(name).cpu() for name in sorted(tensors) if name.startswith("exemplars/")]
        seen = stream.columns[len(past) - 1].stop if method.keeps_exemplars and len(past) else 0
        exemplars.check_kept(kept, stream.train_labels, seen, config.exemplars)
        painting = {name: tensors.pop(name).to(device) for name in sorted(tensors) if name.startswith(("painter/", "duel/"))}
        new.check_fits(tensors, past, [own.stop for own in stream.columns][:notes["position"]["step"]], images)
        duel = paint.resumed(new.painter, painting, config, stream, notes["position"]["step"])
        groups: dict[str, dict[str, Tensor]] = {
            group: {} for group in ("net", "masks", "momenta", "loss", "live", "walk")}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor if group == "live" else tensor.to(device)
        net = new.net.load_state(groups["net"])
        past.notes = new.past.notes                 # its images may have moved, and its steps may be more
        momenta = {name: torch.empty_like(parameter).copy_(groups["momenta"][name])     # in the parameter's layout
                   for name, parameter in net.named_parameters() if groups["momenta"]}
        if new.walk:
            new.walk.load(groups["walk"])
        return cls(net, past, groups["loss"]["sum"], groups["masks"], momenta, Position(**notes["position"]),
                   notes["results"], [groups["live"][name] for name in sorted(groups["live"])], kept, new.walk, new.painter, duel,
                   environments_of(notes), notes["seconds"],
                   math.nan if notes["step_loss"] is None else notes["step_loss"], notes["serial"])

    def check_fits(self, tensors: dict[str, Tensor], past: snapshots.Snapshots, widths: list[int], watched: int) -> None:
        """Raise ValueError unless all tensors of a checkpoint have the names, types and shapes that this new state's have.

        Heads may have grown, to one of the last two of `widths`; momenta are there for all parameters, or for none. The
        live network spoke about `watched` images after each finished step.
        """
        if (identity(past.notes), past.backbone, past.channels, past.auxiliary, past.cosine) != (
                identity(self.past.notes), self.past.backbone, self.past.channels, self.past.auxiliary, self.past.cosine) or (
                [len(part["main.bias"]) for part in past.parts] != widths[:len(past)]):
            raise ValueError("its models are of another run")
        expected = {name: (tensor.dtype, tensor.shape) for name, tensor in self.to_tensors()[0].items()}
        heads = {name: tensors[name].shape[:1] for name in expected
                 if name.split("/")[0] in ("net", "walk") and name.split("/")[-1].startswith(("main.", "auxiliary."))}
        if not set(heads.values()) <= {(width,) for width in widths[-2:]}:
            raise ValueError("its heads do not have the width of its step")
        expected |= {name: (expected[name][0], torch.Size((*rows, *expected[name][1][1:]))) for name, rows in heads.items()}
        momenta = {"momenta/" + name: expected["net/" + name] for name, _ in self.net.named_parameters()}
        expected |= momenta if tensors.keys() & momenta.keys() else {}
        expected |= {f"live/step{step:03d}": (torch.float32, torch.Size((watched, width)))
                     for step, width in enumerate(widths[:len(past)], 1)}
        found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if odd:
            raise ValueError(f"{odd[0]} is not what this run would have there")


def environments_of(notes: Mapping[str, Any]) -> list[dict]:
    """The environments that a checkpoint names. One that was written before they were recorded knows threads and precision."""
    if "environments" in notes:
        return notes["environments"]
    return [dict.fromkeys((*ROUNDING, "revision"), "not recorded") | notes["arithmetic"] | {"since": dict(vars(Position()))}]


def identity(notes: Mapping[str, Any]) -> dict:
    """What the notes of a run's models say, without what may differ in a resumed run; settings that are younger have their defaults."""
    try:
        config = RunConfig.make(notes["config"]).model_dump(mode="json", exclude=set(MAY_DIFFER))
    except (BadInput, TypeError, AttributeError) as error:
        raise ValueError(f"its models have no settings ({error})") from None
    return {**notes, "config": config}

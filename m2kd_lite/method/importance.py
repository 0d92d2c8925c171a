"""Weights that mattered are held: a quadratic penalty in place of teachers (RWalk, Chaudhry et al. 2018; EWC).

After a step every parameter has an importance, and later steps pay `strength * importance * (moved since then)^2`. EWC
(Kirkpatrick et al. 2017) takes the Fisher information as importance: how much the prediction changes if the parameter
does. RWalk adds a score of the path walked: how much the loss fell by this parameter's moves, over how far they moved
the prediction. `Walk` keeps both while a step trains; which of them counts is a row of `method/table.py`.

The released code for RWalk differs from its paper in two places, and we follow the paper: it never sets the sum of squared
gradients back to zero, and to the old score it adds the average of old and new, instead of putting the average in its place.
Its Fisher is the empirical one, of the labels that are there, over batches: so is ours.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

INTERVAL = 50           # Δt, updates: Chaudhry et al., supplement B.3, for CIFAR
DECAY = 0.9             # weight of the newest interval in the Fisher's moving average (their Eq. 6, B.3)
EPSILON = 1e-3          # keeps the score of a parameter that did not move finite (their Eq. 7; value of the released code)


@dataclass(frozen=True)
class Penalty:
    """Which importance a method uses.

    Attributes
    ----------
    path : whether the score of the path is added to the Fisher information (RWalk), or not (EWC, with a moving average).
    strength : lambda of their Eq. 8; the released code's runs on CIFAR-100 use 1.
    """

    path: bool
    strength: float = 1.0


# Of every parameter, in float32 and of its shape:
TRACES = (
    "fisher",       # moving average of squared gradients
    "squares",      # their sum since the interval began
    "path",         # how much the loss has fallen by its moves, since the interval began
    "origin",       # where it was when the interval began
    "gained",       # its score in this step
    "score",        # its score in the earlier ones, averaged
    "held",         # where it was when the last step ended
    "importance",   # what the penalty weighs its moves since then with
)


class Walk:
    """What a penalty knows about each parameter, and what it does at every update.

    The gradients are those of the loss summed over classes; `outputs` undoes the division by all outputs (`losses.py`),
    and divides the penalty by the same, so that constants from the literature keep their meaning.

    Parameters
    ----------
    net : whose parameters are watched.
    penalty : see there.
    outputs : classes of the whole stream.

    Attributes
    ----------
    traces : {one of `TRACES`: {name of a parameter: tensor}}.
    updates : (1,) int64, updates since the interval began.
    intervals : (1,) int64, intervals since the run began.
    """

    def __init__(self, net: nn.Module, penalty: Penalty, outputs: int):
        self.net, self.penalty, self.outputs = net, penalty, outputs
        self.traces: dict[str, dict[str, Tensor]] = {trace: {} for trace in TRACES}
        self.updates, self.intervals = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        self.fit()

    def fit(self) -> None:
        """Take the parameters' shapes: new outputs, which had no past, begin where they are with no importance."""
        for name, parameter in self.net.named_parameters():
            for trace, of in self.traces.items():
                grown = parameter.detach().clone() if trace in ("origin", "held") else torch.zeros_like(parameter)
                if name in of and of[name].numel():
                    grown[:len(of[name])] = of[name]
                of[name] = grown

    # ---- at every update --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def before_update(self) -> list[tuple[Tensor, Tensor]]:
        """Note the gradients of the loss, then add those of the penalty. Returns (gradient, value) of each parameter."""
        noted = []
        for name, parameter in self.net.named_parameters():
            assert parameter.grad is not None           # this is called between backward and the update
            gradient = parameter.grad * self.outputs
            self.traces["squares"][name] += gradient.square()
            noted.append((gradient, parameter.detach().clone()))
            pull = self.traces["importance"][name] * (parameter - self.traces["held"][name])
            parameter.grad += pull * (2 * self.penalty.strength / self.outputs)
        return noted

    @torch.no_grad()
    def after_update(self, noted: list[tuple[Tensor, Tensor]]) -> None:
        """Count what the loss fell by, to first order: minus the gradient times the move (their Eq. 7, numerator)."""
        for (name, parameter), (gradient, was) in zip(self.net.named_parameters(), noted, strict=True):
            self.traces["path"][name] -= gradient * (parameter - was)

    @torch.no_grad()
    def tick(self) -> None:
        """An update has ended; every `INTERVAL` of them the interval does."""
        self.updates += 1
        if self.updates == INTERVAL:
            self.end_interval()

    @torch.no_grad()
    def end_interval(self) -> None:
        """Score the moves of this interval, bring the Fisher information up to date, and begin the next."""
        if self.updates == 0:
            return
        of = self.traces
        for name, parameter in self.net.named_parameters():
            newest = of["squares"][name] / self.updates.item()
            if self.intervals == 0:                     # nothing to average with yet
                of["fisher"][name].copy_(newest)
            moved = 0.5 * of["fisher"][name] * (parameter - of["origin"][name]).square()
            of["gained"][name] += of["path"][name].clamp_min(0) / (moved + EPSILON)         # their Eq. 7
            of["fisher"][name].lerp_(newest, DECAY)                                         # their Eq. 6
            of["squares"][name].zero_()
            of["path"][name].zero_()
            of["origin"][name].copy_(parameter)
        self.updates.zero_()
        self.intervals += 1

    # ---- at the end of a step ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def end_step(self, first: bool) -> None:
        """Average the old score and the new (below their Eq. 8), and hold every parameter where it is now."""
        self.end_interval()
        of = self.traces
        for name, parameter in self.net.named_parameters():
            of["score"][name] = of["gained"][name] if first else (of["score"][name] + of["gained"][name]) / 2
            of["gained"][name] = torch.zeros_like(parameter)
            of["held"][name].copy_(parameter)
        of["importance"] = to_unit_range(of["fisher"])
        if self.penalty.path:
            score = to_unit_range(of["score"])
            of["importance"] = {name: fisher + score[name] for name, fisher in of["importance"].items()}

    # ---- what is carried on -----------------------------------------------------------------------------------------

    def carried_bytes(self) -> int:
        """Bytes that one step must leave to the next: the Fisher information and the score. What is held is the network."""
        kept = ("fisher", "score") if self.penalty.path else ("fisher",)
        return sum(tensor.numel() * tensor.element_size() for trace in kept for tensor in self.traces[trace].values())

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names to tensors, for a checkpoint."""
        flat = {f"{trace}/{name}": tensor for trace, of in self.traces.items() for name, tensor in of.items()}
        return flat | {"updates": self.updates, "intervals": self.intervals}

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of `to_tensors`, in the parameters' layout."""
        self.updates, self.intervals = flat["updates"].cpu(), flat["intervals"].cpu()
        for trace, of in self.traces.items():
            for name, parameter in self.net.named_parameters():
                of[name] = torch.empty_like(parameter).copy_(flat[f"{trace}/{name}"])


def to_unit_range(of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All parameters' values moved and scaled together, the smallest to 0 and the largest to 1 (their section 4.3)."""
    values = [tensor for tensor in of.values() if tensor.numel()]
    least = torch.stack([tensor.min() for tensor in values]).min()
    most = torch.stack([tensor.max() for tensor in values]).max()
    spread = (most - least).clamp_min(torch.finfo(torch.float32).tiny)
    return {name: (tensor - least) / spread for name, tensor in of.items()}

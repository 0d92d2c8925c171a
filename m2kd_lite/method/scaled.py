"""Scaled: outputs divided by how much each class was asked for (Javed and Shafait, "Revisiting distillation", 2018).

Distillation with softmax instead of sigmoids. New classes are asked for by labels, old ones only by a teacher's leftover
probabilities, so the network leans to the new: its outputs are divided by what each class was asked for in this step.
A row of `method/table.py`; called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2kd_lite.method.targets import target_matrix

TEMPERATURE = 1.0       # of the distillation; the default of their code, which has soft targets count T^2 times


def soft_targets(plan: list[tuple[int, range]], teacher_of: Callable[[int], nn.Module], images: Tensor, labels: Tensor,
                 classes: int) -> tuple[Tensor, Tensor]:
    """Labels and teachers' probabilities, apart. Parameters as of `targets.target_matrix`.

    Returns
    -------
    one-hot labels, probabilities : (2, N, classes) float32; index 0 is the image as it is, 1 its mirror image. A teacher's
        probabilities are a softmax over the columns it fills, at `TEMPERATURE`; in other columns the label stands.
    """
    filled, _ = target_matrix(plan, teacher_of, images, labels, classes, squash=_probabilities)
    return F.one_hot(labels, classes).float().expand(2, -1, -1), filled


def _probabilities(logits: Tensor) -> Tensor:
    return F.softmax(logits / TEMPERATURE, dim=1)


def loss(logits: Tensor, hard: Tensor, soft: Tensor, total_classes: int, temperature: float = TEMPERATURE) -> Tensor:
    """Cross entropy to the label, plus T^2 times cross entropy to the teacher, both averaged over N x all outputs.

    Their code takes Kullback-Leibler divergences: the same gradient, for what is left out does not depend on the network.

    Parameters
    ----------
    logits : (N, classes seen).
    hard : (N, classes seen), one-hot.
    soft : (N, old classes), probabilities of the teacher; (N, 0) in step 1.
    total_classes : classes of the whole stream, seen or not.

    Returns
    -------
    scalar.
    """
    label = -(hard * F.log_softmax(logits, dim=1)).sum()
    # The network's softmax runs over all classes seen, as in their code, where every output is there from step 1.
    teacher = -(soft * F.log_softmax(logits / temperature, dim=1)[:, :soft.shape[1]]).sum()
    return (label + temperature**2 * teacher) / (logits.shape[0] * total_classes)


def asked_for(hard: Tensor, soft: Tensor, draws: Iterable[tuple[Tensor, Tensor]], temperature: float = TEMPERATURE) -> Tensor:
    """The accumulator: how much each class was asked for in a step, by labels and by T^2 times the teacher.

    Parameters
    ----------
    hard : (2, N, classes seen).
    soft : (2, N, old classes).
    draws : one (rows, flips) an epoch, int64: what the step trained on.

    Returns
    -------
    (classes seen,) float64, 1 or more: it begins at 1, as in their code.
    """
    total = torch.ones(hard.shape[2], dtype=torch.float64, device=hard.device)
    for rows, flips in draws:
        total += hard[flips, rows].double().sum(0)
        total[:soft.shape[2]] += temperature**2 * soft[flips, rows].double().sum(0)
    return total


def scores(logits: Tensor, asked: Tensor, probabilities: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Probabilities times each class's share of 1 / `asked`: (N, classes). The largest decides.

    Parameters
    ----------
    logits : (N, classes).
    asked : (classes,), as `asked_for` counts it.
    probabilities : of the logits; if not given, their softmax. `torch.sigmoid` for a network of binary cross entropy.
    """
    share = 1 / asked
    return (probabilities(logits) if probabilities else F.softmax(logits, dim=1)) * (share / share.sum()).to(logits.dtype)

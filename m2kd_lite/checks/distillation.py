"""Exercises on the losses, Eq. 1 to 3 (`losses.py`).

A loss is compared with its gradient, because a number that backpropagation cannot reach trains nothing. Wrong
functions are made from the library's own, by giving it other arguments, wherever that is possible.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m2kd_lite.checks.engine import Case, Exercise, Mistake, Outcome
from m2kd_lite.method import losses

ALPHA = 0.3             # not the paper's 0.5, where alpha and 1 - alpha would be the same
EQ_2 = "Eq. 1 and Eq. 2, section 3.1"
EQ_3 = "Eq. 3, section 3.2"
HALVES = 'docs/choices.md, "Which cross entropy?"'
NORMALISER = 'docs/choices.md, "Divided by what?"'
HARD_LABEL = 'docs/choices.md, "Which columns does the hard label of Eq. 3 reach?"'
SOFTMAX = "section 3.1, below Eq. 1: how a score is made from a logit"


# ---- inputs and what is read from a call ----------------------------------------------------------------------------

def _batch(images: int, old: int, classes: int, total: int) -> Callable[[], tuple]:
    """Arguments of `distillation_loss`: logits, and targets that are soft in the first `old` columns."""
    def arguments():
        generator = torch.Generator().manual_seed(7)
        logits = torch.randn(images, classes, generator=generator) * 2
        soft = torch.rand(images, old, generator=generator) * 0.9
        labels = old + torch.arange(images) % (classes - old)
        targets = torch.cat([soft, F.one_hot(labels, classes)[:, old:].float()], 1)
        return logits.requires_grad_(), targets, total
    return arguments


def _auxiliary_batch(images: int, old: int, classes: int, total: int) -> Callable[[], tuple]:
    """Arguments of `auxiliary_loss`."""
    def arguments():
        logits, targets, _ = _batch(images, old, classes, total)()
        return logits, targets[:, :old].clone(), targets.argmax(1).clamp_min(old), ALPHA, total
    return arguments


def _saturated(batch: Callable[[], tuple]) -> Callable[[], tuple]:
    """The same with logits of -40 and 40, where a sigmoid in float32 is exactly 0 or 1 to the eye of a logarithm."""
    def arguments():
        logits, *rest = batch()
        return (logits.detach().sign() * 40).requires_grad_(), *rest
    return arguments


def _loss_and_gradient(returned: Any, arguments: tuple) -> Any:
    if not (isinstance(returned, Tensor) and returned.dim() == 0):
        return returned
    gradient = None
    if returned.requires_grad:
        gradient, = torch.autograd.grad(returned, arguments[0], allow_unused=True)
    return {"the loss": returned.detach(), "its gradient": gradient}


def _stays_finite(returned: Any, arguments: tuple) -> Any:
    read = _loss_and_gradient(returned, arguments)
    if not isinstance(read, dict) or read["its gradient"] is None:
        return read
    return {"finite": all(bool(tensor.isfinite().all()) for tensor in read.values())}


# ---- mistakes -------------------------------------------------------------------------------------------------------

def _printed_half(logits: Tensor, targets: Tensor, total_classes: int) -> Tensor:
    return -(targets * F.logsigmoid(logits)).sum() / (len(logits) * total_classes)


def _of_scores(scores: Tensor, targets: Tensor, total_classes: int) -> Tensor:
    return -(targets * scores.log() + (1 - targets) * (1 - scores).log()).sum() / (len(scores) * total_classes)


def _per_entry(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _no_gradient(got: Outcome, expected: Outcome) -> bool:
    return isinstance(got.value, dict) and got.value.get("its gradient", 0) is None


def _not_finite(got: Outcome, expected: Outcome) -> bool:
    return isinstance(got.value, dict) and got.value.get("finite") is False


def _logits_as_scores(got: Outcome, expected: Outcome) -> bool:
    return "should be between 0 and 1" in str(got.error)


SIGNS = (
    Mistake("no gradient reaches the logits: the value was cut out of the graph (by `detach`, `item`, numpy or `no_grad`)",
            EQ_2, sign=_no_gradient),
    Mistake("right for small logits, but infinite or NaN for logits of 40: there a sigmoid rounds to exactly 0 or 1, whose "
            "logarithm is infinite. PyTorch has a function that starts from the logits", HALVES, sign=_not_finite),
    Mistake("the logits are used as if they were scores between 0 and 1: the sigmoid is missing", SOFTMAX,
            sign=_logits_as_scores),
)
main, eq_3 = losses.distillation_loss, losses.auxiliary_loss

DISTILLATION = Exercise(
    name="distillation_loss", reference=main, returns="one tensor without dimensions, the loss of the batch",
    look=f"{EQ_2}, and {NORMALISER}", tolerance=1e-4,
    cases=(
        Case("the loss and its gradient, 5 of 8 classes seen", _batch(4, 3, 5, 8), _loss_and_gradient),
        Case("another batch, all 7 classes seen", _batch(3, 4, 7, 7), _loss_and_gradient),
        Case("logits of -40 and 40: everything stays finite", _saturated(_batch(4, 3, 5, 8)), _stays_finite),
    ),
    mistakes=(
        *SIGNS,
        Mistake("only the printed half of the cross entropy: a target of 0 then pulls no output down",
                HALVES, _printed_half),
        Mistake("the sum is divided by the number of images alone, as printed: not what the learning rate of 2.0 was chosen "
                "for", NORMALISER, lambda z, t, total: main(z, t, 1)),
        Mistake("the sum is divided by the classes seen so far: the loss then weighs less with every step", NORMALISER,
                lambda z, t, total: main(z, t, z.shape[1])),
        Mistake("the sum is not divided by anything", NORMALISER, lambda z, t, total: main(z, t, 1) * len(z)),
        Mistake("the sum is divided by the classes alone: it grows with the batch", NORMALISER,
                lambda z, t, total: main(z, t, total) * len(z)),
        Mistake("the sum runs over the wrong axis alone: this is one loss per image, to be summed up too", EQ_2,
                lambda z, t, total: _per_entry(z, t).sum(1) / total),
        Mistake("the mean runs over the wrong axis: this is one loss per image, averaged over its columns", NORMALISER,
                lambda z, t, total: _per_entry(z, t).mean(1)),
        Mistake("the mean runs over the images alone: this is one loss per column", NORMALISER,
                lambda z, t, total: _per_entry(z, t).mean(0)),
        Mistake("the sigmoid is applied twice: the function you call has one in it already", EQ_2,
                lambda z, t, total: main(z.sigmoid(), t, total)),
        Mistake("the sigmoid is forgotten: the logarithm is taken of the logits themselves", SOFTMAX, _of_scores),
        Mistake("a sigmoid is applied to the targets; they are scores or labels already", EQ_2,
                lambda z, t, total: main(z, t.sigmoid(), total)),
        Mistake("softmax for sigmoid: this is PyTorch's cross entropy, in which the classes compete", SOFTMAX,
                lambda z, t, total: F.cross_entropy(z, t)),
        Mistake("softmax for sigmoid: the scores of an image add up to 1, and old classes pay for new ones", SOFTMAX,
                lambda z, t, total: _of_scores(z.softmax(1), t, total)),
        Mistake("the sign is missing: this loss is negative, and grows as the outputs get better", EQ_2,
                lambda z, t, total: -main(z, t, total)),
        Mistake("squared error for cross entropy", EQ_2,
                lambda z, t, total: (z.sigmoid() - t).square().sum() / (len(z) * total)),
        Mistake("logits and targets have changed places", EQ_2, lambda z, t, total: main(t, z, total)),
    ))


def _parts(logits: Tensor, soft_targets: Tensor, labels: Tensor, total_classes: int) -> tuple[Tensor, Tensor]:
    """The two sums of Eq. 3, neither weighted: distillation, classification."""
    distillation = eq_3(logits, soft_targets, labels, 0.0, total_classes)
    classification = eq_3(logits, soft_targets[:, :0], labels, 1.0, total_classes)
    return distillation, classification


def _weighted(weights: Callable[[float], tuple[float, float]]) -> Callable:
    """Eq. 3 with other weights of its two sums: `weights` of alpha."""
    def wrong(logits, soft_targets, labels, alpha, total_classes):
        distillation, classification = _parts(logits, soft_targets, labels, total_classes)
        a, b = weights(alpha)
        return a * distillation + b * classification
    return wrong


def _per_column_means(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    """Each sum a plain mean: over the old columns there, over the seen ones here. In step 1 the first is 0 / 0."""
    distillation, classification = _parts(z, s, y, 1)
    old = s.shape[1]
    return (distillation / old if old else z.sum() * torch.nan) + alpha * classification / z.shape[1]


def _hard_new_only(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    old = s.shape[1]
    return _parts(z, s, y, total)[0] + alpha * main(z[:, old:], F.one_hot(y, z.shape[1])[:, old:].to(z.dtype), total)


def _counted_twice(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    old = s.shape[1]
    one_hot = F.one_hot(y, z.shape[1]).to(z.dtype)
    return main(z, torch.cat([s, one_hot[:, old:]], 1), total) + alpha * main(z, one_hot, total)


def _as_in_eq_2(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    return main(z, torch.cat([s, F.one_hot(y, z.shape[1])[:, s.shape[1]:].to(z.dtype)], 1), total)


def _both_printed(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    one_hot = F.one_hot(y, z.shape[1]).to(z.dtype)
    return _printed_half(z[:, :s.shape[1]], s, total) + alpha * _printed_half(z, one_hot, total)


def _last_columns(z: Tensor, s: Tensor, y: Tensor, alpha: float, total: int) -> Tensor:
    distilled = main(z[:, z.shape[1] - s.shape[1]:], s, total)
    return distilled + alpha * _parts(z, s, y, total)[1]


AUXILIARY = Exercise(
    name="auxiliary_loss", reference=eq_3, returns="one tensor without dimensions, the loss of the batch",
    look=f"{EQ_3}, and {HARD_LABEL}", tolerance=1e-4,
    cases=(
        Case("the loss and its gradient, 3 old classes and 2 new ones", _auxiliary_batch(4, 3, 5, 8), _loss_and_gradient),
        Case("step 1, where there is nothing to distil", _auxiliary_batch(3, 0, 4, 6), _loss_and_gradient),
        Case("logits of -40 and 40: everything stays finite", _saturated(_auxiliary_batch(4, 3, 5, 8)), _stays_finite),
    ),
    mistakes=(
        *SIGNS,
        Mistake("alpha weighs the wrong sum: it belongs to the hard labels, not to the distillation", EQ_3,
                _weighted(lambda alpha: (alpha, 1.0))),
        Mistake("alpha weighs both sums; it belongs to one of them", EQ_3, _weighted(lambda alpha: (alpha, alpha))),
        Mistake("alpha weighs neither sum", EQ_3, _weighted(lambda alpha: (1.0, 1.0))),
        Mistake("the two sums share a weight of 1 between them; the paper's distillation keeps its full weight", EQ_3,
                _weighted(lambda alpha: (1 - alpha, alpha))),
        Mistake("the hard labels are missing: this is the distillation alone", EQ_3, _weighted(lambda alpha: (1.0, 0.0))),
        Mistake("the distillation is missing: these are the hard labels alone", EQ_3, _weighted(lambda alpha: (0.0, alpha))),
        Mistake("the sign is missing: this loss is negative", EQ_3, _weighted(lambda alpha: (-1.0, -alpha))),
        Mistake("the hard label reaches the new columns only", HARD_LABEL, _hard_new_only),
        Mistake("this is the loss of Eq. 2: soft targets in the old columns, labels in the new ones. In Eq. 3 the labels have "
                "a sum of their own, with a weight, over all columns", EQ_3, _as_in_eq_2),
        Mistake("the new columns count twice: once beside the soft targets, as in Eq. 2, and once more with alpha", EQ_3,
                _counted_twice),
        Mistake("the soft targets meet the last columns of the logits; old classes have the first ones",
                EQ_3, _last_columns),
        Mistake("only the printed half of the cross entropy: a target of 0 then pulls no output down",
                HALVES, _both_printed),
        Mistake("the sums are divided by the number of images alone, as printed", NORMALISER,
                lambda z, s, y, alpha, total: eq_3(z, s, y, alpha, 1)),
        Mistake("the sums are divided by the classes seen so far", NORMALISER,
                lambda z, s, y, alpha, total: eq_3(z, s, y, alpha, z.shape[1])),
        Mistake("each sum is divided by its own number of columns, so that alpha is not what it says; with no old columns "
                "that is 0 / 0", NORMALISER, _per_column_means),
        Mistake("the sums are not divided by anything", NORMALISER,
                lambda z, s, y, alpha, total: eq_3(z, s, y, alpha, 1) * len(z)),
        Mistake("the sigmoid is applied twice to the logits: the function you call has one in it already", EQ_3,
                lambda z, s, y, alpha, total: eq_3(z.sigmoid(), s, y, alpha, total)),
        Mistake("a sigmoid is applied to the soft targets; they are scores already", EQ_3,
                lambda z, s, y, alpha, total: eq_3(z, s.sigmoid(), y, alpha, total)),
        Mistake("softmax for sigmoid: the hard labels go through PyTorch's cross entropy, in which the classes compete",
                SOFTMAX,
                lambda z, s, y, alpha, total: _parts(z, s, y, total)[0] + alpha * F.cross_entropy(z, y)),
        Mistake("the hard labels are counted from the first new class; a label is a position in the whole class order", EQ_3,
                lambda z, s, y, alpha, total: _parts(z, s, y, total)[0]
                + alpha * _parts(z, s, y - s.shape[1], total)[1]),
    ))

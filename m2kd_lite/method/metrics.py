"""What is measured after each incremental step, and what a whole run amounts to.

Accuracies are percentages, as in the paper. Called by `train.py`; the notebooks rebuild these by hand.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from m2kd_lite.data.shards import Images
from m2kd_lite.method.nets import at_once

BATCH = 500
DESTINATIONS = ("the right class", "another class of its step", "a class of an earlier step", "a class of a later step")


@torch.no_grad()
def predict(net: nn.Module, images: Images, top: int = 5, scores: Callable[[Tensor], Tensor] = lambda logits: logits) -> Tensor:
    """The `top` likeliest classes of each image by the main head, best first.

    Parameters
    ----------
    net : in eval mode.
    images : (N, C, H, W) uint8.
    scores : what decides, from the logits of a batch; the logits themselves, if not given.

    Returns
    -------
    (N, min(top, classes)) int64. "At inference, we directly choose the maximum among the output logits" (section 3.1).
    """
    best = []
    batch = at_once(images, BATCH)
    for start in range(0, len(images), batch):
        logits, _ = net(images[start:start + batch])
        best.append(scores(logits).topk(min(top, logits.shape[1]), dim=1).indices)
    return torch.cat(best)


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64 counts: rows are the true class, columns the predicted one."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


def step_results(best: Tensor, labels: Tensor, columns: Sequence[range]) -> dict:
    """Accuracies in per cent after a step: over all seen classes, and over each step's own classes.

    Parameters
    ----------
    best : (N, <= 5) int64, the likeliest classes of each test image of the seen classes.
    labels : (N,) int64.
    columns : the class columns of steps 1..k.
    """
    classes = columns[-1].stop
    hits = best == labels[:, None]
    top1 = hits[:, 0].double()
    by_step = [100 * top1[(labels >= own.start) & (labels < own.stop)].mean().item() for own in columns]
    return {
        "classes_seen": classes,
        "top1": 100 * top1.mean().item(),
        "top5": 100 * hits.any(1).double().mean().item(),
        "accuracy_by_step": by_step,
        "confusion": confusion_matrix(labels, best[:, 0], classes).tolist(),
    }


def average_incremental_accuracy(top1: Sequence[float]) -> float:
    """The mean over steps of the accuracy on all classes seen by then (iCaRL, section 4)."""
    return sum(top1) / len(top1)


def forgetting(accuracy_by_step: Sequence[Sequence[float]]) -> float:
    """How far each earlier step's classes have fallen from their best, on average (Chaudhry et al. 2018, Eq. 3).

    Parameters
    ----------
    accuracy_by_step : row k holds the accuracy on the classes of steps 1..k after step k, in per cent.

    Returns
    -------
    percentage points; 0 for a single step.
    """
    last = accuracy_by_step[-1]
    falls = [max(row[j] for row in accuracy_by_step[j:-1]) - last[j] for j in range(len(last) - 1)]
    return sum(falls) / len(falls) if falls else 0.0


def destinations(confusion: Sequence[Sequence[int]], columns: Sequence[range]) -> Tensor:
    """Where the images of each step's classes end up: a prediction says which step a class came with, and which class of it.

    Parameters
    ----------
    confusion : (classes, classes) counts; rows are the true class.
    columns : the class columns of steps 1..k.

    Returns
    -------
    (k, 4) float64, shares of a step's images, in the order of `DESTINATIONS`. The first is the step's accuracy, the first two are what is placed in
    the right step.
    """
    counts = torch.as_tensor(confusion, dtype=torch.float64)
    rows = []
    for own in columns:
        placed = counts[own.start:own.stop]
        right = placed[:, own.start:own.stop].trace()
        rows.append(torch.stack([right, placed[:, own.start:own.stop].sum() - right, placed[:, :own.start].sum(), placed[:, own.stop:].sum()])
                    / placed.sum())
    return torch.stack(rows)


def frontier(carried: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """The settings that no other beats: none carries as little or less and is as accurate or more so, unless it is equal in both.

    Parameters
    ----------
    carried, accuracy : one number a setting each: bytes, and per cent.

    Returns
    -------
    positions, from 0: by bytes, ascending; of settings that are equal in both, all, in their order.
    """
    def beaten(i: int) -> bool:
        return any(carried[j] <= carried[i] and accuracy[j] >= accuracy[i] and (carried[j], accuracy[j]) != (carried[i], accuracy[i])
                   for j in range(len(carried)))

    return sorted((i for i in range(len(carried)) if not beaten(i)), key=lambda i: carried[i])

"""Equations 1 to 4: what a batch is asked to match.

Eq. 1 (one teacher) and Eq. 2 (one teacher a step) are the same loss: they differ in the target matrix, which
`targets.py` fills. The notebooks derive these functions; `train.py` calls them on every batch.

Two readings of the paper are fixed here. The printed sums hold only the `target * log s` half of the cross entropy,
which alone drives every sigmoid to 1: we run both halves. The printed normaliser is 1/N; iCaRL's code, for which the
learning rate of 2.0 was chosen, averages over N x all outputs: so do we, the sum running over the classes seen.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, targets: Tensor, total_classes: int) -> Tensor:
    """Full binary cross entropy on sigmoids, summed over columns, divided by N x `total_classes`.

    Parameters
    ----------
    logits : (N, columns) float.
    targets : (N, columns) float in [0, 1], hard or soft.
    total_classes : classes of the whole stream, seen or not.

    Returns
    -------
    scalar.
    """
    summed = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return summed / (logits.shape[0] * total_classes)


def distillation_loss(logits: Tensor, targets: Tensor, total_classes: int) -> Tensor:
    """Eq. 1 and Eq. 2, the main head: soft targets in the old columns, labels in the new ones.

    Parameters
    ----------
    logits, targets : (N, classes seen).
    """
    return binary_cross_entropy(logits, targets, total_classes)


def auxiliary_loss(logits: Tensor, soft_targets: Tensor, labels: Tensor, alpha: float, total_classes: int) -> Tensor:
    """Eq. 3, the auxiliary head: distillation in the old columns, plus alpha times the hard labels in *all* columns.

    "Notice that all the logits in ground truth labels are utilized in the classification cross entropy": the second
    sum runs over old columns too, where the label of a new image is 0.

    Parameters
    ----------
    logits : (N, classes seen).
    soft_targets : (N, old classes), in step 1 (N, 0).
    labels : (N,) int64, positions in the class order.
    """
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    classification = binary_cross_entropy(logits, one_hot, total_classes)
    old = soft_targets.shape[1]
    distillation = binary_cross_entropy(logits[:, :old], soft_targets, total_classes)
    return distillation + alpha * classification


def total_loss(main: Tensor, auxiliary: Tensor, lambda_aux: float) -> Tensor:
    """Eq. 4: the main loss plus lambda times the auxiliary one."""
    return main + lambda_aux * auxiliary

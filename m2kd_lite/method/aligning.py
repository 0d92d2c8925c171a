"""Weight aligning: rows of the head made alike in length (Zhao et al., "Maintaining discrimination and fairness", CVPR 2020).

The rows of classes that were just learnt are longer than those of old ones, and win by it. Dividing the lengths out costs nothing and
needs no images. A decision of `method/table.py`; called by `measure.py`.
"""
from __future__ import annotations

import copy

import torch
from torch import Tensor

from m2kd_lite.method.nets import IncrementalNet


def aligned_rows(weight: Tensor, old: int) -> Tensor:
    """The rows of a head, those of new classes scaled by one number (their Eq. 9 and 10).

    Parameters
    ----------
    weight : (classes, features), a row a class. Not changed.
    old : classes of earlier steps; with 0 there is nothing to align.

    Returns
    -------
    (classes, features): the rows of new classes have the old ones' length, on average.
    """
    lengths = weight.norm(dim=1)
    scale = torch.ones_like(lengths)
    if old:
        scale[old:] = lengths[:old].mean() / lengths[old:].mean()
    return weight * scale[:, None]


@torch.no_grad()
def aligned(net: IncrementalNet, old: int) -> IncrementalNet:
    """A copy of the network with the rows of its main head aligned.

    Their code has no biases; ours stay as they are. The network itself is left alone: here aligning is a decision, while theirs goes on
    to teach the next step.
    """
    corrected = copy.deepcopy(net)
    corrected.main.weight.copy_(aligned_rows(net.main.weight, old))
    return corrected

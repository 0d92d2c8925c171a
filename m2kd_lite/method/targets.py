"""Which teacher fills which columns: the difference between Eq. 1 and Eq. 2, and the target matrix they fill.

Teachers are frozen, in eval mode, and the only augmentation is a horizontal flip (section 4.1), so a teacher's output
for an image is one of two vectors. All of them are computed once, before a step is trained: `targets[flip, image,
class]`. However many teachers there are, training then costs what fine-tuning costs. Images that are cropped at random are
too many for a matrix: `batch_targets` asks about each batch, and pays for every teacher. Called by `train.py`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from m2kd_lite.data.shards import Images
from m2kd_lite.method.nets import at_once

TeacherPlan = Callable[[Sequence[range]], list[tuple[int, range]]]
BATCH = 256             # images a teacher sees at once; memory, not accuracy


def no_teachers(columns: Sequence[range]) -> list[tuple[int, range]]:
    """Fine-tuning: the old columns keep the label's zeros."""
    return []


def penultimate(columns: Sequence[range]) -> list[tuple[int, range]]:
    """Eq. 1 (LwF-MC): the model of step P-1 fills the columns of all old classes.

    Parameters
    ----------
    columns : the class columns of steps 1..P; P is the step about to be trained.

    Returns
    -------
    pairs (step of the teacher, columns it fills).
    """
    if len(columns) == 1:
        return []
    return [(len(columns) - 1, range(0, columns[-2].stop))]


def own_step(columns: Sequence[range]) -> list[tuple[int, range]]:
    """Eq. 2 (multi-model): the columns of step j's classes come from the model of step j, for every j < P."""
    return [(j, columns[j - 1]) for j in range(1, len(columns))]


@torch.no_grad()
def target_matrix(plan: list[tuple[int, range]], teacher_of: Callable[[int], nn.Module], images: Images, labels: Tensor,
                  classes: int, squash: Callable[[Tensor], Tensor] = torch.sigmoid) -> tuple[Tensor, Tensor]:
    """Soft targets of both heads for every image and its mirror image.

    Parameters
    ----------
    plan : pairs (step of the teacher, columns it fills).
    teacher_of : gives the model of a step, in eval mode; called for one teacher at a time.
    images : (N, C, H, W) uint8, on the device of the teachers.
    labels : (N,) int64, positions in the class order.
    classes : classes seen, the current ones included.
    squash : makes targets in [0, 1] of the logits (N, columns) of the columns that a teacher fills.

    Returns
    -------
    main, auxiliary : (2, N, classes) float32. Index 0 is the image as it is, 1 its mirror image. Both begin as the
        one-hot labels; the teachers then overwrite the columns they own. A teacher without an auxiliary head leaves
        that matrix one-hot.
    """
    main = nn.functional.one_hot(labels, classes).float().expand(2, -1, -1).clone()
    auxiliary = main.clone()
    for step, columns in plan:
        teacher = teacher_of(step)
        own = slice(columns.start, columns.stop)
        each = at_once(images, BATCH)
        for start in range(0, len(images), each):
            rows = slice(start, start + each)
            upright = images[rows]
            for flip, batch in enumerate((upright, upright.flip(3))):
                logits, auxiliary_logits = teacher(batch)
                main[flip, rows, own] = squash(logits[:, own])
                if auxiliary_logits is not None:
                    auxiliary[flip, rows, own] = squash(auxiliary_logits[:, own])
    return main, auxiliary


@torch.no_grad()
def batch_targets(plan: list[tuple[int, range]], teachers: Mapping[int, nn.Module], images: Tensor, labels: Tensor,
                  classes: int) -> tuple[Tensor, Tensor]:
    """Soft targets of both heads for one batch, as it was augmented: what `target_matrix` would hold, had it room for it.

    Parameters
    ----------
    plan, labels, classes : as of `target_matrix`.
    teachers : the models of the steps in `plan`, in eval mode.
    images : (N, C, H, W) uint8, augmented already.

    Returns
    -------
    main, auxiliary : (N, classes) float32.
    """
    main = nn.functional.one_hot(labels, classes).float()
    auxiliary = main.clone()
    for step, columns in plan:
        own = slice(columns.start, columns.stop)
        logits, auxiliary_logits = teachers[step](images)
        main[:, own] = torch.sigmoid(logits[:, own])
        if auxiliary_logits is not None:
            auxiliary[:, own] = torch.sigmoid(auxiliary_logits[:, own])
    return main, auxiliary


def asker(plan: list[tuple[int, range]], teachers: Mapping[int, nn.Module], own: range) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Gives the targets of a batch, (images, labels), as `batch_targets` does; those of the auxiliary head for the classes before `own`."""
    def ask(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        main, auxiliary = batch_targets(plan, teachers, images, labels, own.stop)
        return main, auxiliary[:, :own.start]
    return ask

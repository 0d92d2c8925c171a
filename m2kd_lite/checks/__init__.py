"""Checks for what students write: each tries a function, says what passed, and names the mistake where it fails.

A notebook calls, say, `checks.multi_model_targets(my_function)`. The function has the arguments of the library's own, so
that once it passes, a run can use it in its place. What is not right yet raises `NotYet`, one line in Jupyter.
"""
from collections.abc import Callable

from m2kd_lite.checks import accuracy, distillation, exemplars, own_method, ownership, plans, rebuilding, reserving, teachers
from m2kd_lite.checks.engine import NotYet, check

EXERCISES = {exercise.name: exercise for exercise in (
    accuracy.AVERAGE, accuracy.FORGET, distillation.DISTILLATION, plans.SEQUENTIAL, plans.MULTI_MODEL,
    teachers.TARGETS, distillation.AUXILIARY, ownership.PRUNE, ownership.ACTIVE, rebuilding.RECONSTRUCT,
    exemplars.HERDING, exemplars.NEAREST_MEAN, reserving.STEEPNESS, reserving.SOFT, reserving.CUMULATIVE,
    reserving.GRADIENT, own_method.FRONTIER, own_method.ALIGNED)}

__all__ = ["EXERCISES", "NotYet", *EXERCISES]


def average_incremental_accuracy(function: Callable) -> None:
    """Check `average_incremental_accuracy(top1)`: a list of accuracies in per cent to one. Raises NotYet."""
    check(accuracy.AVERAGE, function)


def forgetting(function: Callable) -> None:
    """Check `forgetting(accuracy_by_step)`: row k has the accuracies of steps 1..k, to percentage points. Raises NotYet."""
    check(accuracy.FORGET, function)


def distillation_loss(function: Callable) -> None:
    """Check `distillation_loss(logits, targets, total_classes)`, Eq. 1-2: two (N, classes) to a scalar. Raises NotYet."""
    check(distillation.DISTILLATION, function)


def sequential_plan(function: Callable) -> None:
    """Check `sequential_plan(columns)`, Eq. 1: ranges of steps 1..P to pairs (teacher, columns). Raises NotYet."""
    check(plans.SEQUENTIAL, function)


def multi_model_plan(function: Callable) -> None:
    """Check `multi_model_plan(columns)`, Eq. 2: ranges of steps 1..P to pairs (teacher, columns). Raises NotYet."""
    check(plans.MULTI_MODEL, function)


def multi_model_targets(function: Callable) -> None:
    """Check `multi_model_targets(plan, teacher_of, images, labels, classes)`, which is `targets.target_matrix`.

    Teachers come in eval mode; the result is two (2, N, classes) float32 tensors, main and auxiliary. Raises NotYet.
    """
    check(teachers.TARGETS, function)


def auxiliary_loss(function: Callable) -> None:
    """Check `auxiliary_loss(logits, soft_targets, labels, alpha, total_classes)`, Eq. 3: to a scalar. Raises NotYet."""
    check(distillation.AUXILIARY, function)


def prune(function: Callable) -> None:
    """Check `prune(weights, masks, step, ratio)`, section 3.3: changes the weights, gives new masks. Raises NotYet."""
    check(ownership.PRUNE, function)


def active(function: Callable) -> None:
    """Check `active(mask, step)`, Eq. 7: uint8 owners to bool. Raises NotYet."""
    check(ownership.ACTIVE, function)


def reconstruct(function: Callable) -> None:
    """Check `reconstruct(snapshots, step)`, Eq. 7 and 8: a `Snapshots` to the state dictionary of a model. Raises NotYet."""
    check(rebuilding.RECONSTRUCT, function)


def herding(function: Callable) -> None:
    """Check `herding(features, count)`, iCaRL's algorithm 4: (N, width) to positions, best first. Raises NotYet."""
    check(exemplars.HERDING, function)


def nearest_mean(function: Callable) -> None:
    """Check `nearest_mean(features, kept, labels, total_classes)`, iCaRL's algorithm 1: to a class an image. Raises NotYet."""
    check(exemplars.NEAREST_MEAN, function)


def annealed(function: Callable) -> None:
    """Check `annealed(epoch, epochs, batch, batches, most)`: where in a training, to the steepness of masks. Raises NotYet."""
    check(reserving.STEEPNESS, function)


def soft_mask(function: Callable) -> None:
    """Check `soft_mask(embedding, s)`: float of any shape to the same, from 0 to 1. Raises NotYet."""
    check(reserving.SOFT, function)


def cumulative_mask(function: Callable) -> None:
    """Check `cumulative_mask(masks, weight)`: bool masks of a layer that grows to one of its size now. Raises NotYet."""
    check(reserving.CUMULATIVE, function)


def free_gradient(function: Callable) -> None:
    """Check `free_gradient(gradient, reserved)`: float and bool of one shape to float. Raises NotYet."""
    check(reserving.GRADIENT, function)


def frontier(function: Callable) -> None:
    """Check `frontier(carried, accuracy)`: two lists of numbers, one a setting each, to positions. Raises NotYet."""
    check(own_method.FRONTIER, function)


def aligned_rows(function: Callable) -> None:
    """Check `aligned_rows(weight, old)`: (classes, features) to the same, new rows scaled. Raises NotYet."""
    check(own_method.ALIGNED, function)

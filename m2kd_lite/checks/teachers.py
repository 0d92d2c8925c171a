"""Exercise on the target matrix that teachers fill (`targets.py`, Eq. 1 and Eq. 2).

The teachers are small networks with batch norm, whose answers to an image and to its mirror image differ, and whose
statistics move in train mode. Wrong functions are the library's own, with another plan, other teachers, or other images.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from m2kd_lite.checks.engine import Case, Exercise, Mistake, Outcome
from m2kd_lite.checks.plans import COLUMNS, EQ_2
from m2kd_lite.method import targets

FLIPS = "section 4.1, on data augmentation"
FROZEN = "section 3.1: teachers are earlier models, and those are finished"
MATRIX = "Eq. 1 and Eq. 2, section 3.1"
SCORES = "section 3.1, below Eq. 1: how a score is made from a logit"
AUXILIARY_HEAD = "Eq. 3, section 3.2: whose scores a' are"


class SmallTeacher(nn.Module):
    """One layer with batch norm and two heads, for 4x4 images: enough to tell mirrored, and train mode, apart."""

    def __init__(self, classes: int, auxiliary: bool, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU())
            self.main, self.auxiliary = nn.Linear(12, classes), nn.Linear(12, classes) if auxiliary else None
            for head in filter(None, (self.main, self.auxiliary)):
                nn.init.normal_(head.weight, std=2.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.features(images.float() / 255)
        return self.main(features), None if self.auxiliary is None else self.auxiliary(features)


class Teachers:
    """`teacher_of` for a case: gives the model of a step, and remembers the state all of them were in."""

    def __init__(self, columns: Sequence[range], auxiliary: bool):
        self.models = {step: SmallTeacher(own.stop, auxiliary, seed=step).eval() for step, own in enumerate(columns, 1)}
        self.before = self._statistics()

    def __call__(self, step: int) -> nn.Module:
        if step not in self.models:
            raise LookupError(f"there is no model of step {step}: earlier steps are {list(self.models)}")
        return self.models[step]

    def _statistics(self) -> list[Tensor]:
        return [buffer.clone() for model in self.models.values() for buffer in model.buffers()]

    def untouched(self) -> bool:
        """Whether all are in eval mode, with the batch-norm statistics they had."""
        still = all(torch.equal(a, b) for a, b in zip(self._statistics(), self.before, strict=True))
        return still and not any(model.training for model in self.models.values())


def _step(plan: targets.TeacherPlan, count: int, labels: Sequence[int], auxiliary: bool = True) -> Callable[[], tuple]:
    """Arguments for step `count`, with one image per label."""
    def arguments():
        generator = torch.Generator().manual_seed(5)
        images = torch.randint(0, 256, (len(labels), 3, 4, 4), dtype=torch.uint8, generator=generator)
        columns = COLUMNS[:count]
        return plan(columns), Teachers(columns[:-1], auxiliary), images, torch.tensor(labels), columns[-1].stop
    return arguments


def _matrices(returned: Any, arguments: tuple) -> Any:
    pair = isinstance(returned, (tuple, list)) and len(returned) == 2 and all(isinstance(m, Tensor) for m in returned)
    if not pair:
        return returned
    return {"main": returned[0].detach(), "auxiliary": returned[1].detach(),
            "detached": not any(matrix.requires_grad for matrix in returned), "teachers untouched": arguments[1].untouched()}


def _flagged(name: str) -> Callable[[Outcome, Outcome], bool]:
    return lambda got, expected: isinstance(got.value, dict) and got.value[name] is False


def _train_mode(got: Outcome, expected: Outcome) -> bool:
    return _flagged("teachers untouched")(got, expected) or "value per channel when training" in str(got.error)


reference = targets.target_matrix


def _after(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable:
    """The library's pair of matrices, changed afterwards."""
    return lambda *arguments: change(*reference(*arguments))


def _each(change: Callable[[Tensor], Tensor]) -> Callable:
    return _after(lambda main, auxiliary: (change(main), change(auxiliary)))


def _planned(change: Callable[[list], list]) -> Callable:
    """The library's matrices for another plan."""
    return lambda plan, *rest: reference(change(plan), *rest)


def _asked(change: Callable[[Tensor, int, dict], Tensor],
           pixels: Callable[[Tensor], Tensor] = lambda images: images) -> Callable:
    """The library's matrices for teachers whose logits are changed: `change(logits, step, plan)`."""
    def wrong(plan, teacher_of, *rest):
        def other(step):
            model = teacher_of(step)
            return lambda images: tuple(None if z is None else change(z, step, dict(plan)) for z in model(pixels(images)))
        return reference(plan, other, *rest)
    return wrong


def _heads(change: Callable[[Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]) -> Callable:
    """The library's matrices for teachers with other heads: `change(main logits, auxiliary logits)`."""
    def wrong(plan, teacher_of, *rest):
        def other(step):
            return lambda images: change(*teacher_of(step)(images))
        return reference(plan, other, *rest)
    return wrong


def _inside_own(change: Callable[[Tensor], Tensor]) -> Callable:
    """A change of a teacher's logits within the columns it fills."""
    def changed(logits, step, plan):
        logits = logits.clone()
        own = slice(plan[step].start, plan[step].stop)
        logits[:, own] = change(logits[:, own])
        return logits
    return _asked(changed)


def _first_columns(logits: Tensor, step: int, plan: dict) -> Tensor:
    return logits.roll(plan[step].start, 1)


def _upside_down(plan, teacher_of, images, labels, classes):
    upright, turned = (reference(plan, teacher_of, view, labels, classes) for view in (images, images.flip(2)))
    return tuple(torch.stack([a[0], b[0]]) for a, b in zip(upright, turned, strict=True))


def _covered(plan: list, classes: int) -> Tensor:
    """(classes,) bool: the columns that a plan fills."""
    return torch.tensor([any(column in columns for _, columns in plan) for column in range(classes)])


def _logits_kept(plan, teacher_of, images, labels, classes):
    matrices = reference(plan, teacher_of, images, labels, classes)
    for step, columns in plan:
        own = slice(columns.start, columns.stop)
        for flip, view in enumerate((images, images.flip(3))):
            for matrix, logits in zip(matrices, teacher_of(step)(view), strict=True):
                if logits is not None:
                    matrix[flip, :, own] = logits[:, own].detach()
    return matrices


def _labels_left_out(plan, teacher_of, images, labels, classes):
    return tuple(m * _covered(plan, classes) for m in reference(plan, teacher_of, images, labels, classes))


def _label_kept(plan, teacher_of, images, labels, classes):
    one_hot = nn.functional.one_hot(labels, classes).float()
    return tuple(m.maximum(one_hot) for m in reference(plan, teacher_of, images, labels, classes))


def _needs_auxiliary(plan, teacher_of, *rest):
    if any(teacher_of(step).auxiliary is None for step, _ in plan):
        raise TypeError("no auxiliary logits")
    return reference(plan, teacher_of, *rest)


TARGETS = Exercise(
    name="multi_model_targets", reference=reference, returns="two float32 tensors (2, images, classes), main and auxiliary",
    look=MATRIX, tolerance=1e-4,
    cases=(
        Case("step 3: each class from the model of its own step", _step(targets.own_step, 3, [5, 6, 7, 8, 6, 5]), _matrices),
        Case("one teacher for all old classes: the plan decides", _step(targets.penultimate, 3, [5, 6, 7, 8, 6]), _matrices),
        Case("step 1: no teachers, labels alone", _step(targets.own_step, 1, [2, 0, 1]), _matrices),
        Case("teachers without an auxiliary head", _step(targets.own_step, 3, [8, 7, 6, 5], auxiliary=False), _matrices),
        Case("an image of an old class: its teacher overrules it", _step(targets.own_step, 3, [5, 1, 4, 7]), _matrices),
    ),
    mistakes=(
        Mistake("a teacher was in train mode: its batch-norm statistics moved, and its answer depends on the rest of the "
                "batch. Teachers come in eval mode and stay so", FROZEN, sign=_train_mode),
        Mistake("the targets carry gradients: training would reach back into the teachers, which are frozen", FROZEN,
                sign=_flagged("detached")),
        Mistake("the sigmoid is forgotten: these are the teachers' logits", SCORES, _logits_kept),
        Mistake("softmax for sigmoid: the scores of all classes a teacher knows add up to 1", SCORES,
                _asked(lambda z, *_: z.softmax(1).logit())),
        Mistake("softmax for sigmoid: the scores of the columns a teacher fills add up to 1", SCORES,
                _inside_own(lambda z: z.softmax(1).logit())),
        Mistake("the teachers' scores are rounded to yes or no; soft targets stay soft", SCORES, _each(torch.round)),
        Mistake("the matrix holds whole numbers, as the labels do, so that every soft target became 0", MATRIX,
                _each(Tensor.long)),
        Mistake("the mirror images are missing: index 1 holds the targets of the unflipped images again", FLIPS,
                _each(lambda m: m[[0, 0]])),
        Mistake("both indices hold the targets of the mirror images: do the two share their memory?", FLIPS,
                _each(lambda m: m[[1, 1]])),
        Mistake("the flips are swapped: index 0 is the image as it is, index 1 its mirror image", FLIPS,
                _each(lambda m: m[[1, 0]])),
        Mistake("the images are turned upside down; a horizontal flip exchanges left and right", FLIPS, _upside_down),
        Mistake("the axes are in another order: the flip comes first, then the image, then the class", MATRIX,
                _each(lambda m: m.movedim(0, 1))),
        Mistake("main and auxiliary targets have changed places",
                AUXILIARY_HEAD, _after(lambda main, auxiliary: (auxiliary, main))),
        Mistake("the auxiliary targets are the main head's; each head is taught by its like", AUXILIARY_HEAD,
                _heads(lambda main, auxiliary: (main, main))),
        Mistake("both matrices hold the auxiliary targets: are they one tensor under two names?", AUXILIARY_HEAD,
                _heads(lambda main, auxiliary: (main, main) if auxiliary is None else (auxiliary, auxiliary))),
        Mistake("the auxiliary matrix is left as the labels made it", AUXILIARY_HEAD,
                _heads(lambda main, auxiliary: (main, None))),
        Mistake("a teacher without an auxiliary head is not expected: its second output is None", MATRIX, _needs_auxiliary),
        Mistake("the last teacher of the plan fills all old columns, so that Eq. 2 becomes Eq. 1: a teacher fills the "
                "columns that the plan gives it, not all it knows", EQ_2,
                _planned(lambda plan: [(step, range(0, own.stop)) for step, own in plan[-1:]])),
        Mistake("the last column of each teacher is left out: a slice stops before its end", EQ_2,
                _planned(lambda plan: [(step, range(own.start, own.stop - 1)) for step, own in plan])),
        Mistake("the first column of each teacher is left out: the paper counts from 1, Python from 0", EQ_2,
                _planned(lambda plan: [(step, range(own.start + 1, own.stop)) for step, own in plan])),
        Mistake("a teacher's first outputs are used, whatever columns it fills: its output j is class j too", EQ_2,
                _asked(_first_columns)),
        Mistake("it asks for the teacher one step too early: steps count from 1 in a plan, and for `teacher_of`", MATRIX,
                sign=lambda got, expected: "no model of step 0" in str(got.error)),
        Mistake("the labels are missing: the new columns hold zeros only", MATRIX, _labels_left_out),
        Mistake("an old class keeps the 1 of its label; where a teacher fills a column, its score stands",
                MATRIX, _label_kept),
        Mistake("the images are scaled once more before a teacher sees them; a network takes them as they lie in memory",
                "the docstring of `nets.IncrementalNet.forward`", _asked(lambda z, *_: z, lambda images: images / 255)),
    ))

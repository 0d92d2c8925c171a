"""Exercises on exemplars: which images of a class are kept, and the class whose mean is nearest (`exemplars.py`, section 4.5).

Features are drawn so that each known mistake gives a result of its own: a class leans to one side, so that its mean is not
zero; some images are far from every class; labels come out of order, with unequal numbers of exemplars.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from m2kd_lite.checks.engine import Case, Exercise, Mistake, Outcome
from m2kd_lite.method import exemplars

ALGORITHM_4 = "iCaRL (Rebuffi et al. 2017), algorithm 4"
RANK = "iCaRL (Rebuffi et al. 2017), algorithm 5: a list is cut from its end when more classes come"
ALGORITHM_1 = "iCaRL (Rebuffi et al. 2017), algorithm 1"
DOCSTRING = "the docstring"


# ---- herding --------------------------------------------------------------------------------------------------------

def _one_class(number: int, count: int, seed: int, width: int = 6) -> Callable[[], tuple]:
    """Unit rows around one direction, and how many to pick."""
    def arguments():
        noise = torch.randn(number, width, generator=torch.Generator().manual_seed(seed))
        return F.normalize(noise + torch.eye(width)[0]), count
    return arguments


def _greedy(correct: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda w, mean, pick: w + mean - pick,
            sign: int = 1, again: bool = False) -> Callable:
    """Herding with one thing to get wrong: how w is corrected, whether the largest is picked, or that a pick comes again."""
    def wrong(features, count):
        mean = features.mean(0)
        w, picked = mean, []
        for _ in range(min(count, len(features))):
            out = torch.tensor([] if again else picked, dtype=torch.int64)
            best = int((sign * features @ w).index_fill(0, out, -torch.inf).argmax())
            picked.append(best)
            w = correct(w, mean, features[best])
        return torch.tensor(picked)
    return wrong


def _found_again(features: Tensor, count: int) -> Tensor:
    w = mean = features.mean(0)
    picked: list[int] = []
    for _ in range(1000):                       # released code has the same end
        best = int((features @ w).argmax())
        w = w + mean - features[best]
        if best not in picked and len(picked) < count:
            picked.append(best)
    return torch.tensor(picked)


def _cut_out(features: Tensor, count: int) -> Tensor:
    mean, left, picked = features.mean(0), features, []
    w = mean
    for _ in range(min(count, len(features))):
        best = int((left @ w).argmax())
        picked.append(best)
        w = w + mean - left[best]
        left = torch.cat([left[:best], left[best + 1:]])
    return torch.tensor(picked)


def _mean_of_what_is_left(features: Tensor, count: int) -> Tensor:
    free, w, picked = list(range(len(features))), features.mean(0), []
    for _ in range(min(count, len(features))):
        best = free[int((features[free] @ w).argmax())]
        picked.append(best)
        free.remove(best)
        w = w + (features[free].mean(0) if free else 0) - features[best]
    return torch.tensor(picked)


def _after(change: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """The library's picks, changed afterwards: `change(picks, features)`."""
    return lambda features, count: change(exemplars.herding(features, count), features)


def _are_positions(picks: object) -> bool:
    return isinstance(picks, Tensor) and picks.dim() == 1 and picks.dtype == torch.int64


def _always_the_same(got: Outcome, expected: Outcome) -> bool:
    return _are_positions(got.value) and 1 == len(got.value.unique()) < len(got.value)


def _goes_on(got: Outcome, expected: Outcome) -> bool:
    return _are_positions(got.value) and len(expected.value) < len(got.value) > len(got.value.unique())


def _nothing_left(got: Outcome, expected: Outcome) -> bool:
    return "empty" in str(got.error) or "numel() == 0" in str(got.error)        # Python and numpy; torch


HERDING = Exercise(
    name="herding", reference=exemplars.herding, returns="an int64 tensor of positions, best first", look=ALGORITHM_4,
    cases=(
        Case("five of twelve", _one_class(12, 5, seed=26)),
        Case("a single one", _one_class(9, 1, seed=2)),
        Case("all of them: the whole ranking", _one_class(10, 10, seed=1)),
        Case("more than the class has", _one_class(7, 9, seed=18)),
    ),
    mistakes=(
        Mistake("the same image is picked again and again: w stays as it was, and what has been picked stays in the running",
                ALGORITHM_4, sign=_always_the_same),
        Mistake("the class has fewer images than asked for, and the picking goes on after the last: some come again",
                DOCSTRING, sign=_goes_on),
        Mistake("the class has fewer images than asked for: after the last there is nothing to pick from", DOCSTRING,
                sign=_nothing_left),
        Mistake("an image is picked twice; what has been picked is out of the running", ALGORITHM_4, _greedy(again=True)),
        Mistake("these are the images nearest to the mean, one by one: w never learns what has been picked already",
                ALGORITHM_4, _greedy(lambda w, mean, pick: w)),
        Mistake("the mean is taken off w after a pick; it is added, because there is one place more to fill", ALGORITHM_4,
                _greedy(lambda w, mean, pick: w - mean - pick)),
        Mistake("the mean is not added after a pick, so w soon points away from the class", ALGORITHM_4,
                _greedy(lambda w, mean, pick: w - pick)),
        Mistake("the pick is added to w; its direction has been served, so it comes off", ALGORITHM_4,
                _greedy(lambda w, mean, pick: w + mean + pick)),
        Mistake("w begins anew after each pick, and knows the last one only", ALGORITHM_4,
                _greedy(lambda w, mean, pick: mean - pick)),
        Mistake("an image that was picked is found again, and comes off w once more, as in released code; here it is out of "
                "the running after its pick", ALGORITHM_4, _found_again),
        Mistake("the mean is that of the images still there; it stays the mean of the whole class", ALGORITHM_4,
                _mean_of_what_is_left),
        Mistake("the image that w points to least is picked, not the one it points to most", ALGORITHM_4, _greedy(sign=-1)),
        Mistake("positions are counted among the images still there; they count among all of the class", DOCSTRING, _cut_out),
        Mistake("the right images, in the order of their positions: the rank is lost", RANK,
                _after(lambda picks, features: picks.sort().values)),
        Mistake("the best comes last; the list is the wrong way round", RANK, _after(lambda picks, features: picks.flip(0))),
        Mistake("these are the features of the picks; their positions are wanted", DOCSTRING,
                _after(lambda picks, features: features[picks])),
        Mistake("this is a mark for each image, not a list of positions: the rank is lost", RANK,
                _after(lambda picks, features: torch.zeros(len(features), dtype=torch.bool).index_fill(0, picks, True))),
        Mistake("positions count from 1 here; they should count from 0", DOCSTRING, _after(lambda picks, features: picks + 1)),
        Mistake("one pick more than asked for", DOCSTRING, lambda features, count: exemplars.herding(features, count + 1)),
        Mistake("one pick fewer than asked for", DOCSTRING, _after(lambda picks, features: picks[:-1])),
        Mistake("all images of the class are listed, however many are asked for", DOCSTRING,
                lambda features, count: exemplars.herding(features, len(features))),
    ))


# ---- nearest class mean ---------------------------------------------------------------------------------------------

def nearest_mean(features: Tensor, kept: Tensor, labels: Tensor, total_classes: int) -> Tensor:
    """The class of each image, as the library decides: (N,) int64."""
    means = exemplars.means_of(kept, labels, int(labels.max()) + 1)
    return exemplars.nearest(features, means, top=1)[:, 0]


def _seen(counts: tuple[int, ...], total: int, far: bool = False, seed: int = 0, width: int = 5) -> Callable[[], tuple]:
    """Two images around each class, and exemplars of it, more scattered for some classes than for others; in mixed order.

    far : with images that are near to no class, and two that turn their backs on all of them.
    """
    def arguments():
        generator = torch.Generator().manual_seed(seed)
        centres = F.normalize(torch.randn(len(counts), width, generator=generator) + 1.0)
        labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
        labels = labels[torch.randperm(len(labels), generator=generator)]
        scatter = 0.15 + 0.35 * (labels % 2).float()[:, None]
        kept = F.normalize(centres[labels] + scatter * torch.randn(len(labels), width, generator=generator))
        images = [centres.repeat(2, 1) + 0.4 * torch.randn(2 * len(counts), width, generator=generator)]
        if far:
            middle = F.normalize(centres.sum(0), dim=0)
            aside = torch.randn(3, width, generator=generator)
            aside -= (aside @ middle)[:, None] * middle
            images += [F.normalize(aside) + 0.3 * middle, -centres[:2]]
        return F.normalize(torch.cat(images)), kept, labels, total
    return arguments


def _means(kept: Tensor, labels: Tensor, classes: int) -> Tensor:
    """As `means_of`, but as long as they are; rows of zeros where there is no exemplar."""
    own = F.one_hot(labels, classes).float().T
    return own @ kept / own.sum(1, keepdim=True).clamp_min(1)


def _deciding(choose: Callable[[Tensor, Tensor], Tensor], means: Callable[[Tensor], Tensor] = F.normalize,
              unseen: bool = False) -> Callable:
    """A decision by class means with one thing to get wrong: `choose(features, means)`, the means, or which classes have one."""
    def wrong(features, kept, labels, total_classes):
        return choose(features, means(_means(kept, labels, total_classes if unseen else int(labels.max()) + 1)))
    return wrong


def _smallest_distance(features: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(features, means).argmin(1)


def _largest_product(features: Tensor, means: Tensor) -> Tensor:
    return (features @ means.T).argmax(1)


def _as_they_are(means: Tensor) -> Tensor:
    return means


def _sums(features: Tensor, kept: Tensor, labels: Tensor, total_classes: int) -> Tensor:
    return _largest_product(features, F.one_hot(labels).float().T @ kept)


def _first_come(features: Tensor, kept: Tensor, labels: Tensor, total_classes: int) -> Tensor:
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return torch.tensor([order[label] for label in nearest_mean(features, kept, labels, total_classes).tolist()])


def _numbers(got: Outcome, expected: Outcome) -> bool:
    return isinstance(got.value, Tensor) and got.value.is_floating_point() and not torch.equal(got.value, got.value.round())


NEAREST_MEAN = Exercise(
    name="nearest_mean", reference=nearest_mean, returns="an int64 tensor, one class for each image", look=ALGORITHM_1,
    cases=(
        Case("four classes, all seen", _seen((4, 3, 5, 4), total=4, seed=9)),
        Case("four classes of ten: the other six have no exemplars yet", _seen((4, 3, 5, 4), total=10, far=True, seed=1)),
        Case("unequal numbers, one class with a single exemplar", _seen((6, 2, 1, 9, 3), total=8, far=True, seed=13)),
    ),
    mistakes=(
        Mistake("these are distances or cosines; the class is wanted", DOCSTRING, sign=_numbers),
        Mistake("classes that have not been seen take part, with a mean of zeros: whatever is far from all classes is nearer to "
                "it", ALGORITHM_1, _deciding(_smallest_distance, unseen=True)),
        Mistake("classes that have not been seen take part, with a cosine of 0: it beats a negative one", ALGORITHM_1,
                _deciding(_largest_product, unseen=True)),
        Mistake("a mean over no exemplars is not a number, and that wins every comparison: leave out the classes that have not "
                "been seen", ALGORITHM_1, _deciding(_largest_product, lambda means: means / means.norm(dim=1)[:, None], True)),
        Mistake("the class that is least like the image is chosen: is it the largest distance, or the smallest cosine?",
                ALGORITHM_1, _deciding(lambda features, means: (features @ means.T).argmin(1))),
        Mistake("the means are shorter than 1, each by another amount, when the distances are taken; scale them again",
                ALGORITHM_1, _deciding(_smallest_distance, _as_they_are)),
        Mistake("the means are not scaled to length 1, and a product favours the longer ones", ALGORITHM_1,
                _deciding(_largest_product, _as_they_are)),
        Mistake("these are sums, not means of length 1: a class with more exemplars wins more images", ALGORITHM_1, _sums),
        Mistake("this is the class of the nearest exemplar; the nearest mean is wanted", ALGORITHM_1,
                lambda features, kept, labels, total_classes: labels[(features @ kept.T).argmax(1)]),
        Mistake("classes count from 1 here; they should count from 0, as the labels do", DOCSTRING,
                lambda *arguments: nearest_mean(*arguments) + 1),
        Mistake("classes are numbered in the order in which their exemplars come; the labels say which is which", DOCSTRING,
                _first_come),
        Mistake("the last class that has been seen can never be chosen", DOCSTRING,
                _deciding(lambda features, means: _largest_product(features, means[:-1]))),
    ))

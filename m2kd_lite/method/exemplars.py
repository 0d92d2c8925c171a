"""Exemplars: the few images of old classes that iCaRL keeps, and the classifier that needs nothing else (section 4.5).

Herding picks, class by class, the images whose mean feature stays nearest to the class's own; a budget shared by all
classes shrinks each list from its end, so the order is the rank. At inference an image belongs to the class whose mean
exemplar feature is nearest (Rebuffi et al., iCaRL, 2017, algorithms 1, 4 and 5). Called by `train.py`.
"""
from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

from m2kd_lite.data.shards import Images
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.method.nets import IncrementalNet, at_once

BATCH = 500             # images at once; memory, not accuracy
JPEG_QUALITY = 95       # section 4.6: "compress to JPG with quality 95"
P = ParamSpec("P")


def per_class(budget: int, classes_seen: int) -> int:
    """How many exemplars each class may keep: m = budget / classes seen, rounded down, so that "in all" is kept.

    iCaRL's released code rounds up, and may hold a few more than its budget.
    """
    return budget // classes_seen


def check_budget(budget: int, classes: int) -> None:
    """Raise BadInput unless `budget` images are one a class at least, when all classes have come."""
    if budget < classes:
        raise BadInput(f"--exemplars {budget}: not allowed; give {classes} or more, one for each of the {classes} classes")


def in_fp32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Computed in fp32 whatever the run computes in: bf16 has three digits, and cosines that differ by less would be equal."""
    @functools.wraps(function)
    def exact(*arguments: P.args, **named: P.kwargs) -> Tensor:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*arguments, **named)
    return exact


@torch.no_grad()
def normalised_features(net: IncrementalNet, images: Images) -> Tensor:
    """What the main head reads, each row scaled to length 1.

    Parameters
    ----------
    net : in eval mode.
    images : (N, C, H, W) uint8.

    Returns
    -------
    (N, width) float32.
    """
    batch = at_once(images, BATCH)
    rows = [net.features(images[start:start + batch]) for start in range(0, len(images), batch)]
    return F.normalize(torch.cat(rows))


@in_fp32
def herding(features: Tensor, count: int) -> Tensor:
    """The images to keep, best first, so that any first part of the list is a good choice by itself.

    Each pick is the image that the running target w points to most: w begins as the mean, and after a pick the mean is
    added and the pick taken off. No image is picked twice.

    Parameters
    ----------
    features : (N, width) float, of one class, rows of length 1.
    count : how many to pick; at most N are.

    Returns
    -------
    (min(count, N),) int64 positions among the N.
    """
    mean = features.mean(0)
    target, free, picked = mean.clone(), torch.ones(len(features), dtype=torch.bool, device=features.device), []
    for _ in range(min(count, len(features))):
        best = (features @ target).masked_fill(~free, -torch.inf).argmax()
        picked.append(best)
        free[best] = False
        target += mean - features[best]
    return torch.stack(picked)


def class_means(net: IncrementalNet, images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Where each class lies: the mean feature of its exemplars and their mirror images, scaled to length 1 again.

    Parameters
    ----------
    images, labels : the exemplars of the classes 0..classes-1, each with one at least.

    Returns
    -------
    (classes, width) float32. Only classes that have been seen have a row. Released code for iCaRL gives a row of zeros to
    every class of the data set; any image whose cosine to all true means is below 0.5 is nearer to such a row than to them.
    """
    return means_of(normalised_features(net, images) + normalised_features(net, images.flip(3)), labels, classes)


@in_fp32
def means_of(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The direction of each class's mean: (classes, width) rows of length 1, from (N, width) features of classes 0..classes-1."""
    own = F.one_hot(labels, classes).to(features.dtype).T                                   # (classes, N)
    return F.normalize(own @ features)


@in_fp32
def nearest(features: Tensor, means: Tensor, top: int = 5) -> Tensor:
    """The classes with the nearest means, best first: (N, min(top, classes)) int64.

    Parameters
    ----------
    features : (N, width) float, rows of length 1.
    means : (classes, width) float, rows of length 1: the nearest is then the one with the largest cosine.
    """
    return (features @ means.T).topk(min(top, len(means)), dim=1).indices


def after_step(kept: Sequence[Tensor], net: IncrementalNet, stream: ClassStream, step: int, budget: int) -> list[Tensor]:
    """The exemplars after a step: the old lists cut to what each class may keep now, and a list for each new class.

    Parameters
    ----------
    kept : per old class, (m,) int64 rows of `stream.train_images`, best first.
    net : as it is at the end of the step, in eval mode.
    budget : images in all.
    """
    classes = stream.columns[step - 1]
    share, device = per_class(budget, classes.stop), net.pixel_mean.device
    new = []
    for label in classes:
        rows = (stream.train_labels == label).nonzero().squeeze(1)
        features = normalised_features(net, stream.train_images[rows].to(device))
        new.append(rows[herding(features, share).cpu()])
    return [rows[:share] for rows in kept] + new


def inventory(kept: Sequence[Tensor], stream: ClassStream) -> dict:
    """For metrics.json: which training images are kept, by class and rank, and their bytes, as they lie in memory and as JPEG."""
    images, _ = stream.train_rows(kept)
    return {"rows": {name: rows.tolist() for name, rows in zip(stream.class_names[:len(kept)], kept, strict=True)},
            "count": len(images), "raw_bytes": images.numel(), "jpeg_bytes": jpeg_bytes(images)}


def check_kept(kept: Sequence[Tensor], labels: Tensor, classes: int, budget: int) -> None:
    """Raise ValueError unless `kept` can be the exemplars of classes 0..classes-1: each its share of different own images.

    Parameters
    ----------
    kept : per class, rows of the training images.
    labels : (N,) int64, of all training images.
    """
    if len(kept) != classes:
        raise ValueError(f"it has exemplars of {len(kept)} classes, not of {classes}")
    for label, rows in enumerate(kept):
        own = (labels == label).nonzero().squeeze(1)
        due = min(per_class(budget, classes), len(own))
        if rows.dtype != torch.int64 or rows.shape != (due,) or len(rows.unique()) != due or not torch.isin(rows, own).all():
            raise ValueError(f"its exemplars of class {label} are not {due} images of it")


def jpeg_bytes(images: Images) -> int:
    """What the images take as JPEG files, headers included: how Table 2 counts images that are large.

    Parameters
    ----------
    images : (N, C, H, W) uint8 with 1 or 3 channels.
    """
    from PIL import Image
    total = 0
    for image in images.cpu():
        file = io.BytesIO()
        pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
        total += file.tell()
    return total

"""`ImageSet`: a whole decoded data set, as every source hands it out: in memory, or on disk where it is more than that."""
from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from m2kd_lite.data.shards import Images, chosen
from m2kd_lite.files import storage


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with integer labels.

    Attributes
    ----------
    name : the source.
    class_names : in natural order; `labels` index it.
    train_images, test_images : (N, C, H, W) uint8; a tensor, or `Rows` of a large folder's (`shards.py`).
    train_labels, test_labels : (N,) int64.
    left_out : files that could not be used, each with the reason.
    remarks : what was guessed about files in reading them, a line a kind.
    sha256 : of the class names, labels and pixels.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: Images
    train_labels: Tensor
    test_images: Images
    test_labels: Tensor
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    sha256: str = field(default="", compare=False)

    def __post_init__(self):
        if not self.sha256:
            object.__setattr__(self, "sha256", storage.tensors_digest(self.tensors(), "\n".join(self.class_names)))

    def tensors(self) -> dict[str, Images]:
        """The four tensors by name, as the cache stores them."""
        return {"train_images": self.train_images, "train_labels": self.train_labels,
                "test_images": self.test_images, "test_labels": self.test_labels}

    def check(self) -> None:
        """Raise ValueError unless the tensors have the types and shapes above, and every label has a class."""
        for images, labels in ((self.train_images, self.train_labels), (self.test_images, self.test_labels)):
            if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != self.train_images.shape[1:]:
                raise ValueError("no images of one size")
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
                raise ValueError("not one label per image")
            if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
                raise ValueError("labels without a class")

    def __repr__(self) -> str:
        channels, height, width = self.train_images.shape[1:]
        return (f"ImageSet({self.name}: {len(self.class_names)} classes, {len(self.train_images)} training and "
                f"{len(self.test_images)} test images of {channels}x{height}x{width}, sha256 {self.sha256[:12]})")

    def fewer(self, train_per_class: int | None, test_per_class: int | None) -> ImageSet:
        """The first so many images of each class; None keeps all."""
        train = _first_of_each(self.train_labels, train_per_class, len(self.class_names))
        test = _first_of_each(self.test_labels, test_per_class, len(self.class_names))
        return ImageSet(self.name, self.class_names, chosen(self.train_images, train), self.train_labels[train],
                        chosen(self.test_images, test), self.test_labels[test], self.left_out, self.remarks, self.sha256)


def _first_of_each(labels: Tensor, count: int | None, classes: int) -> Tensor | slice:
    if count is None:
        return slice(None)
    rows = [(labels == label).nonzero().squeeze(1)[:count] for label in range(classes)]
    return torch.cat(rows).sort().values

"""The two data sets that need no network: drawn glyphs, and scikit-learn's real handwriting."""
from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2kd_lite.data.cache import cached
from m2kd_lite.data.images import ImageSet
from m2kd_lite.events import OnEvent

DIGITS_TRAIN_SHARE = 0.75


def glyphs(on_event: OnEvent) -> ImageSet:
    """The drawn characters; drawn again whenever the generator's source or Pillow changes."""
    from m2kd_lite.data import glyphs as generator

    def draw() -> ImageSet:
        def advance(done, total):
            on_event({"event": "progress", "what": "drawing glyphs", "done": done, "total": total})
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in generator.draw(advance).items()}
        return ImageSet("glyphs", tuple(generator.class_names()), **tensors)

    import PIL
    made_from = Path(generator.__file__).read_bytes() + PIL.__version__.encode()
    images = cached("glyphs", hashlib.sha256(made_from).hexdigest(), draw, on_event)
    if images.sha256 != generator.EXPECTED_SHA256:
        on_event({"event": "notice", "text":
                  f"glyphs: drawn with SHA-256 {images.sha256[:12]}, expected {generator.EXPECTED_SHA256[:12]}: this "
                  "machine's fonts or Pillow draw differently, so figures will differ slightly from the published ones"})
    return images


def digits(on_event: OnEvent) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits, (N, 1, 32, 32) uint8; the last quarter of each class is the test.

    Kept in the cache, because loading scikit-learn takes longer than a training of seconds.
    """
    made_from = Path(__file__).read_bytes() + version("scikit-learn").encode()
    return cached("digits", hashlib.sha256(made_from).hexdigest(), _enlarged, on_event)


def _enlarged() -> ImageSet:
    """Read from scikit-learn, and enlarged from 8x8."""
    from sklearn.datasets import load_digits
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)         # (N, 1, 8, 8), 0-16 in the file
    images = torch.nn.functional.interpolate(grey, size=32, mode="bilinear").round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        rows = (labels == label).nonzero().squeeze(1)
        train[rows[:round(len(rows) * DIGITS_TRAIN_SHARE)]] = True
    return ImageSet("digits", tuple(str(label) for label in range(10)),
                    images[train], labels[train], images[~train], labels[~train])

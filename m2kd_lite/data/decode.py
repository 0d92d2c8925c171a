"""Files to pixels. Apart from the rest because worker processes import it, and need not load torch for it."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")


def decode(path: str) -> np.ndarray | str:
    """(3, H, W) uint8 in RGB, or why it cannot be: "not an image file", "cannot be decoded: ..."."""
    if not path.lower().endswith(SUFFIXES):
        return "not an image file"
    try:
        with Image.open(path) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    except Exception as error:      # a broken file can break a decoder anywhere; the run goes on without it
        return f"cannot be decoded: {type(error).__name__}"


def decode_many(paths: list[str]) -> Sequence[np.ndarray | str]:
    """`decode`, one file after another.

    Images of one shape come as one array: unpacking that costs the receiving process half of what a list of them does.
    """
    results = [decode(path) for path in paths]
    shapes = {getattr(result, "shape", None) for result in results}
    return np.stack(results) if len(shapes) == 1 and None not in shapes else results

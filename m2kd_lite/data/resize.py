"""Images of unlike sizes, brought to one as ImageNet usually is: shorter side to 256, then the central 224x224.

Section 4.1: "input size 224 x 224". Square images of one size up to that are kept as they are, and never come here.
"""
from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from m2kd_lite.data.decode import LARGEST, SHORTER_SIDE


def central(image: np.ndarray) -> np.ndarray:
    """(3, 224, 224) uint8 from (3, H, W) uint8: antialiased, then the middle of the longer side."""
    height, width = image.shape[1:]
    scale = SHORTER_SIDE / min(height, width)
    size = [max(SHORTER_SIDE, round(height * scale)), max(SHORTER_SIDE, round(width * scale))]
    top, left = (size[0] - LARGEST) // 2, (size[1] - LARGEST) // 2
    out = torch.empty((3, LARGEST, LARGEST), dtype=torch.uint8)
    for colour, plane in enumerate(torch.from_numpy(image)):            # one at a time: as floats a large image takes four times its room
        resized = F.interpolate(plane[None, None].float(), size=size, mode="bilinear", antialias=True)[0, 0]
        out[colour] = resized[top:top + LARGEST, left:left + LARGEST].round().clamp(0, 255)
    return out.numpy()

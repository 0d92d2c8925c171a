"""The witness: what the live network said when each step ended, so that "bit for bit" can be looked at, not believed.

A few test images, the same at every step, and the live network's logits on them. A rebuilt model (section 3.3) has to
give the same ones. Recorded by `train.py`, kept beside the models, and no part of what the method carries: with it or
without, the models are the same. Read by the reconstruction stepper.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m2kd_lite.errors import DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method.nets import IncrementalNet

FILE = "live.safetensors"
WATCHED = 16            # images; a batch of its own, for another batch size may pick another kernel


@dataclass(frozen=True)
class Witness:
    """What was said.

    Attributes
    ----------
    rows : which test images were shown, as positions among `stream.test_images`.
    logits : per step, (images, classes seen) float32, of the main head.
    """

    rows: tuple[int, ...]
    logits: tuple[Tensor, ...]

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        storage.save_tensors(path, {_name(step): logits for step, logits in enumerate(self.logits, 1)}, {"rows": list(self.rows)})

    @classmethod
    def load(cls, path: Path) -> Witness:
        """Read a file that `save` wrote.

        Raises
        ------
        BadInput : no such file.
        DamagedFile : torn, altered, or of another kind.
        """
        tensors, notes = storage.load_tensors(path)
        rows, steps = notes.get("rows"), range(1, len(tensors) + 1)
        if not (isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows)
                and tensors.keys() == {_name(step) for step in steps}
                and all(tensor.dtype == torch.float32 and tensor.dim() == 2 and len(tensor) == len(rows) for tensor in tensors.values())):
            raise DamagedFile(f"{path}: not what a live network said")
        return cls(tuple(rows), tuple(tensors[_name(step)] for step in steps))

    def furthest(self, step: int, logits: Tensor) -> float:
        """The largest difference to what the live network said; 0 where all bits agree.

        Parameters
        ----------
        logits : (images, classes seen) float32, what the rebuilt model of `step` says about the same images.
        """
        return float((logits - self.logits[step - 1]).abs().max())


def rows_of(count: int) -> tuple[int, ...]:
    """Which of `count` test images are shown: at most `WATCHED`, spread evenly over all classes."""
    shown = min(count, WATCHED)
    return tuple(i * count // shown for i in range(shown))


@torch.no_grad()
def logits_of(net: IncrementalNet, images: Tensor) -> Tensor:
    """(images, classes) float32 on the CPU: the main head's, all images in one batch, in full precision.

    Parameters
    ----------
    net : in eval mode.
    images : (N, C, H, W) uint8.
    """
    return net(images.to(net.pixel_mean.device))[0].cpu()


def _name(step: int) -> str:
    return f"step{step:03d}"

"""Where a step's images lie while it is trained: on the device if they fit, otherwise on disk, read ahead batch by batch.

Chosen by size and said. Either way an update sees the same batches in the same order. Used by `train.py` and `loop.py`.
"""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from m2kd_lite.data.shards import Images, Rows
from m2kd_lite.events import OnEvent

STEP_BYTES = 1 << 30         # of a step's images in memory, where they come from disk
GPU_SHARE = 0.5             # of a GPU's free memory; the rest is for the network


def placed(images: Images, device: torch.device, on_event: OnEvent) -> Images:
    """A step's images where they will be read from.

    Parameters
    ----------
    images : those in memory are moved to the device, as ever; of those on disk, all that fit.

    Returns
    -------
    a tensor on the device, or `Rows` whose tensors will be.
    """
    if isinstance(images, Tensor):
        return images.to(device)
    size = images.numel()
    fits = size <= (STEP_BYTES if device.type == "cpu" else GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    where = f"in the memory of {device}" if fits else f"left on disk and read batch by batch for {device}"
    on_event({"event": "notice", "text": f"{len(images)} training images, {size / 1e9:.2f} GB, {where}"})
    images = images.to(device)
    if not fits:
        return images
    out, start = torch.empty(images.shape, dtype=torch.uint8, device=device), 0
    for block in images.blocks():
        out[start:start + len(block)] = block
        start += len(block)
    return out


class Feed:
    """Batches of images on disk, in one fixed tensor on the device: what a recorded update reads.

    While a batch is learnt from, a thread reads the next one.

    Attributes
    ----------
    batch : (batch size, C, H, W) uint8.
    """

    def __init__(self, images: Rows, batch_size: int):
        self._images = images
        self.batch = torch.zeros((batch_size, *images.shape[1:]), dtype=torch.uint8, device=images.device)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="m2kd-lite-feed")
        self._ahead: tuple[Tensor, Future[Tensor]] | None = None

    def fill(self, rows: Tensor, coming: Tensor | None) -> None:
        """Make `batch` the images of `rows`, (batch size,) int64, and begin to read those of `coming`."""
        if self._ahead is not None and torch.equal(self._ahead[0], rows):
            pixels = self._ahead[1].result()
        else:
            pixels = self._images.host(rows)
        self.batch.copy_(pixels, non_blocking=True)
        self._ahead = None if coming is None else (coming, self._reader.submit(self._images.host, coming))

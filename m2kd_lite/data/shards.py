"""Images that are more than memory: in shards on disk, mapped when rows of them are asked for, and let go.

`Rows` stands where a tensor of all images would: it has a shape and a device, and gives real tensors when it is indexed. Each shard is
held against its SHA-256 before its first row is used. Written and found by `cache.py`; read by the class stream and the training loop.
"""
from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from m2kd_lite.errors import DamagedFile

SHARD_BYTES = 16 << 20          # small, for one is hashed whole before a row of it is used
BLOCK_BYTES = 64 << 20          # what `Rows.blocks` reads at a time
INDEX = "index.json"


@dataclass
class Shards:
    """The images of one part of a data set as numpy files, all of them of `each` rows but the last.

    Attributes
    ----------
    folder, part : its files are `part-00000.npy`, `part-00001.npy` ...
    count, shape : of the images; `shape` is (C, H, W).
    each : rows of a shard.
    digests : SHA-256 of each file.
    """

    folder: Path
    part: str
    count: int
    shape: tuple[int, int, int]
    each: int
    digests: tuple[str, ...]
    _fine: set[int] = field(default_factory=set, compare=False)

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.part}-{number:05d}.npy"

    def check_sizes(self) -> None:
        """Raise DamagedFile unless each file is there with the bytes that its rows take."""
        if self.count < 1 or self.each < 1 or len(self.digests) != -(-self.count // self.each) or min(self.shape) < 1:
            raise DamagedFile(f"{self.folder}: not the shards of {self.count} images")
        for number in range(len(self.digests)):
            rows = min(self.each, self.count - number * self.each)
            try:
                size = os.path.getsize(self.path(number))
            except OSError:
                raise DamagedFile(f"{self.path(number)}: gone") from None
            if size != len(_header((rows, *self.shape))) + rows * int(np.prod(self.shape)):
                raise DamagedFile(f"{self.path(number)}: {size} bytes, not those of {rows} images")

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> None:
        """Copy rows into `out`, (len(rows), C, H, W) uint8. A map is opened for each shard that is needed, and closed.

        Raises
        ------
        DamagedFile : a shard does not fit its SHA-256, or is gone. Its index is taken away, so that the next start decodes again.
        """
        rows = np.asarray(rows, dtype=np.int64)
        which = rows // self.each
        for number in np.unique(which):
            places = np.flatnonzero(which == number)
            pixels = self._open(int(number))
            for place, row in zip(places, rows[places] - number * self.each, strict=True):
                out[place] = pixels[row]

    def check(self, number: int) -> None:
        """Hold a shard against its SHA-256, the first time that it is asked for. Raises DamagedFile, as `read` does."""
        if number in self._fine:
            return
        try:
            with open(self.path(number), "rb") as file:
                fits = hashlib.file_digest(file, "sha256").hexdigest() == self.digests[number]
        except OSError as error:
            raise self._damaged(number, error.strerror or str(error)) from None
        if not fits:
            raise self._damaged(number, "its content does not match its SHA-256")
        self._fine.add(number)

    def _open(self, number: int) -> np.ndarray:
        self.check(number)
        shape = (min(self.each, self.count - number * self.each), *self.shape)
        try:
            return np.memmap(self.path(number), np.uint8, mode="r", offset=len(_header(shape)), shape=shape)
        except (OSError, ValueError) as error:              # gone or cut short since
            raise self._damaged(number, str(error)) from None

    def _damaged(self, number: int, why: str) -> DamagedFile:
        with suppress(OSError):
            (self.folder / INDEX).unlink(missing_ok=True)
        return DamagedFile(f"{self.path(number)}: {why}; begin again, and the images are decoded again")


class Rows:
    """Some rows of the images on disk: (N, C, H, W) uint8 where a tensor is expected, read when indexed.

    `rows[i]`, `rows[a:b]` and `rows[tensor]` are tensors on `device`; `select` chooses further without reading.
    """

    dtype = torch.uint8

    def __init__(self, shards: Shards, rows: Tensor | None = None, device: str | torch.device = "cpu"):
        self._shards, self.device = shards, torch.device(device)
        self._rows = torch.arange(shards.count) if rows is None else rows
        self.shape = torch.Size((len(self._rows), *shards.shape))

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Rows({list(self.shape)} uint8 in {self._shards.folder}, for {self.device})"

    def __getitem__(self, index) -> Tensor:
        if not isinstance(index, (slice, list)):
            index = torch.as_tensor(index).cpu()
            if index.dim() == 0:
                return self[index[None]][0]
        return self.host(index).to(self.device, non_blocking=True)

    def host(self, index: Tensor | slice | list[int]) -> Tensor:
        """The same rows in memory, pinned where they are on their way to a GPU. May be called from any one thread at a time."""
        rows = self._rows[index].numpy()
        out = torch.empty((len(rows), *self._shards.shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        self._shards.read(rows, out.numpy())
        return out

    def __iter__(self) -> Iterator[Tensor]:
        return (image for block in self.blocks() for image in block)

    def select(self, rows: Tensor | slice) -> Rows:
        """Some of these rows; nothing is read."""
        return Rows(self._shards, self._rows[rows], self.device)

    def to(self, device: str | torch.device) -> Rows:
        """The same rows, whose tensors will be on `device`."""
        return Rows(self._shards, self._rows, device)

    def cpu(self) -> Rows:
        """The same rows, whose tensors will be in memory."""
        return self.to("cpu")

    def dim(self) -> int:
        """As a tensor's: 4."""
        return len(self.shape)

    def check(self) -> None:
        """Hash all shards that these rows lie in. Raises DamagedFile for one that does not fit."""
        for number in (self._rows // self._shards.each).unique().tolist():
            self._shards.check(number)

    def numel(self) -> int:
        """The bytes of all rows."""
        return self.shape.numel()

    def blocks(self) -> Iterator[Tensor]:
        """All rows in order, some tens of megabytes at a time."""
        each = max(1, BLOCK_BYTES // self.shape[1:].numel())
        return (self[start:start + each] for start in range(0, len(self), each))


Images = Tensor | Rows


def chosen(images: Images, rows: Tensor | slice) -> Images:
    """Some rows of images; of those on disk nothing is read."""
    return images.select(rows) if isinstance(images, Rows) else images[rows]


def blocks_of(images: Images) -> Iterator[Tensor]:
    """All images in order: those in memory as they are, those on disk block by block."""
    return images.blocks() if isinstance(images, Rows) else iter((images,))


class Writer:
    """Writes the shards of one part as its images come. At most one shard's rows are in memory."""

    def __init__(self, folder: Path, part: str):
        self._folder, self._part, self._count = folder, part, 0
        self._digests: list[str] = []
        self._buffer: np.ndarray | None = None
        self._filled = 0

    def add(self, pixels: np.ndarray) -> None:
        """(n, C, H, W) uint8, of one shape in all calls."""
        if self._buffer is None:
            self._buffer = np.empty((max(1, SHARD_BYTES // pixels[0].size), *pixels.shape[1:]), dtype=np.uint8)
        while len(pixels):
            fitting = min(len(pixels), len(self._buffer) - self._filled)
            self._buffer[self._filled:self._filled + fitting] = pixels[:fitting]
            self._filled += fitting
            pixels = pixels[fitting:]
            if self._filled == len(self._buffer):
                self._write()

    def finish(self) -> Shards:
        """Write what is left; the shards."""
        if self._filled:
            self._write()
        assert self._buffer is not None, "images came"
        return Shards(self._folder, self._part, self._count, self._buffer.shape[1:], len(self._buffer), tuple(self._digests))

    def _write(self) -> None:
        assert self._buffer is not None
        rows, number = self._buffer[:self._filled], len(self._digests)
        digest = hashlib.sha256()
        with open(self._folder / f"{self._part}-{number:05d}.npy", "wb") as file:
            for content in (_header(rows.shape), rows.data.cast("B")):
                digest.update(content)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._digests.append(digest.hexdigest())
        self._count, self._filled = self._count + len(rows), 0


def _header(shape: tuple[int, ...]) -> bytes:
    """What numpy writes before the pixels, so that its own tools can read a shard."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))})
    return header.getvalue()


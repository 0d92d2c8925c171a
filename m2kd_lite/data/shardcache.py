"""The cache of a data set that is more than memory: a folder of shards, whole or absent, made by one process at a time.

    CACHE/imagefolder-KEY/  index.json  train-00000.npy ...  test-00000.npy ...

It is written under another name and renamed when all is on disk; the index has the digests of all shards, and one of its own.
"""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from m2kd_lite.data.cache import folder, image_set
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.shards import INDEX, Rows, Shards, Writer
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.events import OnEvent
from m2kd_lite.files import storage

IN_MEMORY = 256 << 20           # a data set up to this is one file, read whole; CIFAR-100 takes 184 MB
SENSELESS = 100 << 30           # from here on pixels are better not stored at all
SPARE_BYTES = 64 << 20          # of the disk, for what else is written
PARTS = ("train", "test")

Sink = Callable[[str, np.ndarray], None]        # (part, (n, C, H, W) uint8), called again and again


@dataclass(frozen=True)
class Decoded:
    """What decoding a data set says beside its pixels: `labels` in rising order, by part."""

    class_names: tuple[str, ...]
    labels: dict[str, torch.Tensor]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]


def found(name: str, key: str, on_event: OnEvent) -> ImageSet | None:
    """The data set, if its shards are there and whole in number and size; None otherwise. Nothing of the pixels is read."""
    place = _place(name, key)
    if not (place / INDEX).exists():
        return None
    try:
        index = storage.load_json(place / INDEX)
        if index["key"] != key:
            raise DamagedFile(f"{place}: made from something else")
        tensors: dict[str, Any] = {}
        for part in PARTS:
            said = index["parts"][part]
            shards = Shards(place, part, said["count"], tuple(said["shape"]), said["each"], tuple(said["digests"]))
            shards.check_sizes()
            if min(said["per_class"]) < 0 or sum(said["per_class"]) != said["count"] or len(said["per_class"]) != len(index["class_names"]):
                raise DamagedFile(f"{place}: not one label per image")
            tensors[f"{part}_images"] = Rows(shards)
            tensors[f"{part}_labels"] = torch.repeat_interleave(torch.tensor(said["per_class"]))
        return image_set(name, tensors, index)
    except (DamagedFile, BadInput, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        on_event({"event": "notice", "text": f"{place / INDEX}: {error}; making it again"})
        return None


def made(name: str, key: str, need: int, decode: Callable[[Sink], Decoded], on_event: OnEvent) -> ImageSet:
    """Decode a data set into shards. Where another process is at it, wait and take what that has made.

    Parameters
    ----------
    need : bytes of the pixels, if no file is left out.
    decode : hands all pixels to a sink, part by part; may raise what it likes, and nothing is left then.

    Raises
    ------
    BadInput : so many that storing them is senseless.
    CannotWrite : the disk has not that much room, or gets full.
    """
    if need > SENSELESS:
        raise BadInput(f"{name}: {need / 1e9:,.0f} GB of decoded pixels are more than it is sensible to store; use fewer classes, or a "
                       "loader that decodes as it trains, as FFCV or WebDataset")
    place = _place(name, key)
    with alone(name, key, on_event):
        there = found(name, key, on_event)              # another process may have made it while we waited
        if there:
            return there
        for left in (place, *place.parent.glob(f".{place.name}.*.tmp")):        # damaged, or of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        _check_room(place.parent, need, on_event)
        return _written(name, key, place, decode, on_event)


def _written(name: str, key: str, place: Path, decode: Callable[[Sink], Decoded], on_event: OnEvent) -> ImageSet:
    beside: Path | None = None
    try:
        beside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".tmp"))
        writers = {part: Writer(beside, part) for part in PARTS}
        decoded = decode(lambda part, pixels: writers[part].add(pixels))
        shards = {part: writer.finish() for part, writer in writers.items()}
        on_event({"event": "notice", "text": f"{name}: hashing the decoded images"})
        train, test = (Rows(shards[part]) for part in PARTS)
        images = ImageSet(name, decoded.class_names, train, decoded.labels["train"], test, decoded.labels["test"],
                          decoded.left_out, decoded.remarks)
        storage.save_json(beside / INDEX, {
            "key": key, "data_sha256": images.sha256, "class_names": images.class_names, "left_out": images.left_out,
            "remarks": images.remarks,
            "parts": {part: {"count": own.count, "shape": own.shape, "each": own.each, "digests": own.digests,
                             "per_class": torch.bincount(decoded.labels[part], minlength=len(images.class_names)).tolist()}
                      for part, own in shards.items()}})
        os.chmod(beside, 0o777 & ~storage.umask())
        os.replace(beside, place)
    except OSError as error:
        raise CannotWrite(f"{place}: cannot write: {error.strerror or error}") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    for own in shards.values():
        own.folder = place
    return images


def _place(name: str, key: str) -> Path:
    return folder() / f"{name}-{key[:32]}"


@contextmanager
def alone(name: str, key: str, on_event: OnEvent) -> Iterator[None]:
    """While this is held, no other process decodes the same images. Where the cache cannot be written to, nobody is kept out."""
    place = _place(name, key)
    lock = FileLock(place.parent / f".{place.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_event({"event": "notice", "text": f"another process is decoding the same images into {place.parent}; waiting for it"})
            lock.acquire()
    except (OSError, NotImplementedError):          # no permission, or a file system without locks: whoever writes says so
        pass
    try:
        yield
    finally:
        lock.release()


def _check_room(parent: Path, need: int, on_event: OnEvent) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise CannotWrite(f"{parent}: cannot write: {error.strerror or error}") from error
    on_event({"event": "notice", "text": f"decoding to {need / 1e9:.1f} GB in {parent}, where {free / 1e9:.1f} GB are free"})
    if need + SPARE_BYTES > free:
        raise CannotWrite(f"{parent}: the decoded images take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, or name a "
                          "folder of a larger disk in M2KD_LITE_CACHE")

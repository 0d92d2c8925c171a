"""Your own images: ROOT/{train,test|val}/CLASS/ images, decoded in parallel once, then read from the cache.

The cache is keyed by the tree's content (every path and every byte), so a changed image is not missed and a copied tree is
not decoded twice. The key is remembered as long as the file system says that no file has changed. Files that are no
images, or broken ones, are left out and listed by name; what was guessed about a file is said (`pixels.py`).
"""
from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from joblib import cpu_count

from m2kd_lite.data import shardcache
from m2kd_lite.data.cache import cached, content_key, is_cached
from m2kd_lite.data.decode import LARGEST, SHORTER_SIDE, made_by
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.layout import Entry, counted, entries_of, few, out_of_place, parts_of, shown
from m2kd_lite.data.tree import CHUNK, Misfit, Tree, in_chunks
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent

NAME = "imagefolder"
# A file may change twice within one tick of the file system's clock, and then its times do not tell. The coarsest clocks
# tick every 2 s, so a file as young as that is read every time.
SETTLED_NS = 2_000_000_000
_READ_AT_ONCE = 1 << 20         # a larger file is hashed piece by piece


def load(data_root: str, on_event: OnEvent) -> ImageSet:
    """Read a tree of images as RGB.

    Raises
    ------
    BadInput : no such folder, no train or test part, a class without a usable image, or parts with unlike classes; a file
        that cannot be read.
    CannotWrite : the images are more than memory should hold, and the cache has no room for them.
    """
    root = Path(data_root)
    now = time.time_ns()            # before the files are looked at: what changes from here on is younger than this
    try:
        train, test, class_names = parts_of(data_root)
        tree = Tree(root, {"train": train, "test": test}, tuple(map(shown, class_names)),
                    {"train": entries_of(train, class_names), "test": entries_of(test, class_names)})
        odd = out_of_place(train, class_names) + out_of_place(test, class_names)
        every = tree.files["train"] + tree.files["test"]
        key = content_key(root, _signature(every, now), lambda: _hash_all(root, every), on_event)
    except OSError as error:        # no permission, or gone while we were looking
        raise BadInput(f"{shown(error.filename or root)}: cannot read: {error.strerror or error}") from None
    images = _images(tree, key, on_event)
    images = replace(images, left_out=(*odd, *images.left_out))
    if images.left_out:
        on_event({"event": "notice", "text": f"{shown(root)}: {counted(len(images.left_out), 'file')} left out: {few(images.left_out)}"})
    for remark in images.remarks:
        on_event({"event": "notice", "text": f"{shown(root)}: {remark}"})
    return images


def _images(tree: Tree, key: str, on_event: OnEvent) -> ImageSet:
    """From whichever cache has them; otherwise decoded, into memory and one file, or into shards where they are more than that."""
    there = shardcache.found(NAME, key, on_event)
    if there:
        return there
    if is_cached(NAME, key):
        return cached(NAME, key, lambda: _of_one_size(tree, lambda side: _decode_all(tree, side, on_event)), on_event)
    return _of_one_size(tree, lambda side: _made(tree, key, side, on_event))


def _of_one_size(tree: Tree, make: Callable[[int | None], ImageSet]) -> ImageSet:
    """`make` with the side that all images have, if they turn out to have one; otherwise with None, to resize them."""
    try:
        return make(tree.side())
    except Misfit:
        return make(None)


def _made(tree: Tree, key: str, side: int | None, on_event: OnEvent) -> ImageSet:
    if tree.bytes_at(side) <= shardcache.IN_MEMORY:
        with shardcache.alone(NAME, key, on_event):
            return cached(NAME, key, lambda: _decode_all(tree, side, on_event), on_event)
    return shardcache.made(NAME, key, tree.bytes_at(side), lambda sink: tree.decode(side, sink, on_event), on_event)


def _decode_all(tree: Tree, side: int | None, on_event: OnEvent) -> ImageSet:
    """Into memory."""
    pixels: dict[str, list[torch.Tensor]] = {part: [] for part in tree.files}
    decoded = tree.decode(side, lambda part, batch: pixels[part].append(torch.from_numpy(batch)), on_event)
    train, test = (torch.cat(pixels[part]) for part in ("train", "test"))
    return ImageSet(NAME, decoded.class_names, train, decoded.labels["train"], test, decoded.labels["test"], decoded.left_out, decoded.remarks)


def _signature(files: list[Entry], now: int) -> str | None:
    """SHA-256 over what the file system says of every file, none of them read; None where that proves nothing.

    Whoever rewrites a file can give it back its size and modification time, but not its change time (FAT keeps none), and
    another file put in its place has another inode. `now` is in nanoseconds since 1970.
    """
    if os.name != "posix":          # elsewhere st_ctime is the time of creation
        return None
    digest, youngest = hashlib.sha256(_decoding().encode()), 0
    for name, _, stat in files:
        youngest = max(youngest, stat.st_mtime_ns, stat.st_ctime_ns)
        line = f"{name}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}\0"
        digest.update(os.fsencode(line))
    return digest.hexdigest() if youngest <= now - SETTLED_NS else None


def _hash_all(root: Path, files: list[Entry]) -> str:
    """The content key: SHA-256 over every file's name below `root` and its bytes."""
    def digests_of(chunk: list[Entry]) -> list[bytes]:
        return [_digest(f"{root}/{file.name}") for file in chunk]
    total = hashlib.sha256(_decoding().encode())
    with ThreadPoolExecutor(cpu_count()) as pool:           # reading and hashing leave Python's lock
        for chunk, digests in zip(in_chunks(files, CHUNK), pool.map(digests_of, in_chunks(files, CHUNK)), strict=True):
            for file, digest in zip(chunk, digests, strict=True):
                total.update(os.fsencode(file.name) + b"\0" + digest)
    return total.hexdigest()


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:                          # half the time of Path.read_bytes on small files
        digest = hashlib.sha256(file.read(_READ_AT_ONCE))
        while piece := file.read(_READ_AT_ONCE):
            digest.update(piece)
        return digest.digest()


def _decoding() -> str:
    """What the decoded pixels depend on besides the files."""
    return f"{LARGEST} {SHORTER_SIDE} {made_by()}"

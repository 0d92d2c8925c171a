"""One file a decoded data set, in the user's cache folder, keyed by what it was made from.

Beside it, one small file a folder of images: the key of its content, so that nobody has to read every image to know it.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from m2kd_lite import storage
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.events import OnEvent


def folder() -> Path:
    """The cache: $M2KD_LITE_CACHE, or the platform's own place for caches."""
    return Path(os.environ.get("M2KD_LITE_CACHE") or platformdirs.user_cache_dir("m2kd-lite", appauthor=False))


def cached(name: str, key: str, make: Callable[[], ImageSet], on_event: OnEvent) -> ImageSet:
    """Read `name-key` from the cache; otherwise make it and keep it. A damaged file is made again, and said.

    A cache that cannot be written is no reason to fail: the images are in memory, and a notice says so.
    """
    path = folder() / f"{name}-{key[:32]}.safetensors"
    if path.exists():
        try:
            tensors, notes = storage.load_tensors(path)
            if notes["key"] != key:
                raise DamagedFile(f"{path}: made from something else")
            if not all(isinstance(text, str) for text in (notes["data_sha256"], *notes["class_names"], *notes["left_out"])):
                raise TypeError("names that are no text")
            # The digest of tensors and notes has just been checked, so the set's own need not be computed again.
            images = ImageSet(name, tuple(notes["class_names"]), **tensors, left_out=tuple(notes["left_out"]),
                              sha256=notes["data_sha256"])
            images.check()
            return images
        except (DamagedFile, KeyError, TypeError, ValueError) as error:
            on_event({"event": "notice", "text": f"{error}; making it again"})
    images = make()
    try:
        storage.save_tensors(path, images.tensors(), {
            "key": key, "class_names": images.class_names, "left_out": images.left_out, "data_sha256": images.sha256})
    except CannotWrite as error:
        on_event({"event": "notice", "text": f"{error}; going on without a cache"})
    return images


def content_key(root: Path, signature: str | None, hash_all: Callable[[], str], on_event: OnEvent) -> str:
    """The key of the content of the folder `root`: remembered for one `signature`, otherwise hashed.

    Parameters
    ----------
    signature : of the names, sizes and times of all files; None where it proves nothing, and all is hashed every time.
    hash_all : reads every file and returns the key.
    on_event : receives a notice where the remembered key is damaged.
    """
    if signature is None:
        return hash_all()
    path = folder() / f"key-of-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.json"
    try:
        seen = storage.load_json(path)
        if seen["signature"] == signature:
            return str(seen["key"])
    except BadInput:
        pass                        # this folder has not been read before
    except (DamagedFile, KeyError) as error:
        on_event({"event": "notice", "text": f"{error}; making it again"})
    key = hash_all()
    with contextlib.suppress(CannotWrite):          # only time is lost
        storage.save_json(path, {"signature": signature, "key": key})
    return key

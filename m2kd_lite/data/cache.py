"""One file a decoded data set, in the user's cache folder, keyed by what it was made from.

Beside it, one small file a folder of images: the key of its content, so that nobody has to read every image to know it.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.events import OnEvent
from m2kd_lite.files import storage
from m2kd_lite.files.places import cache as folder


def looked_in(data_root: str) -> str:
    """For an error: where a folder that is not there was looked for, if its name does not say so."""
    return "" if Path(data_root).is_absolute() else f"; it was looked for in {Path.cwd()}"


def _file(name: str, key: str) -> Path:
    return folder() / f"{name}-{key[:32]}.safetensors"


def is_cached(name: str, key: str) -> bool:
    """Whether there is a file for `cached` to read, damaged or not."""
    return _file(name, key).exists()


def cached(name: str, key: str, make: Callable[[], ImageSet], on_event: OnEvent) -> ImageSet:
    """Read `name-key` from the cache; otherwise make it and keep it. A damaged file is made again, and said.

    A cache that cannot be written is no reason to fail: the images are in memory, and a notice says so.
    """
    path = _file(name, key)
    if path.exists():
        try:
            tensors, notes = storage.load_tensors(path)
            if notes["key"] != key:
                raise DamagedFile(f"{path}: made from something else")
            return image_set(name, tensors, notes)
        except (DamagedFile, KeyError, TypeError, ValueError) as error:
            on_event({"event": "notice", "text": f"{error}; making it again"})
    images = make()
    try:
        storage.save_tensors(path, images.tensors(), {
            "key": key, "class_names": images.class_names, "left_out": images.left_out, "remarks": images.remarks,
            "data_sha256": images.sha256})
    except CannotWrite as error:
        on_event({"event": "notice", "text": f"{error}; going on without a cache"})
    return images


def image_set(name: str, tensors: Mapping[str, Any], notes: Mapping[str, Any]) -> ImageSet:
    """What a cache holds, as it was kept.

    Parameters
    ----------
    tensors : the four of `ImageSet.tensors`, by name.
    notes : class_names, left_out, remarks and data_sha256. Their digest has been checked, so the set's own is not computed again.

    Raises
    ------
    KeyError, TypeError, ValueError : they are not what a cache of ours holds.
    """
    texts = (notes["data_sha256"], *notes["class_names"], *notes["left_out"], *notes["remarks"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names that are no text")
    images = ImageSet(name, tuple(notes["class_names"]), **tensors, left_out=tuple(notes["left_out"]),
                      remarks=tuple(notes["remarks"]), sha256=notes["data_sha256"])
    images.check()
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

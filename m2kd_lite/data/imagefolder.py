"""Your own images: ROOT/{train,test|val}/CLASS/*.png|jpg, decoded in parallel once, then read from one cached file.

The cache is keyed by the tree's content (every path and every byte), so a changed image is not missed and a copied tree is
not decoded twice. The key is remembered as long as the file system says that no file has changed. Files that are no
images, or broken ones, are left out and listed by name.
"""
from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from joblib import Parallel, cpu_count, delayed
from torch.nn import functional as F

from m2kd_lite.data.cache import cached, content_key
from m2kd_lite.data.decode import decode_many
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent

# Square images of one size up to this are kept as they are. Anything else is brought to it as ImageNet usually is:
# shorter side to 256, then the central 224x224 (section 4.1: "input size 224 x 224").
LARGEST, SHORTER_SIDE = 224, 256
_CHUNK = 512
# A file may change twice within one tick of the file system's clock, and then its times do not tell. The coarsest clocks
# tick every 2 s, so a file as young as that is read every time.
SETTLED_NS = 2_000_000_000


class _File(NamedTuple):
    """One file of a class: its name below the root, with slashes, and what the file system says of it."""

    name: str
    label: int
    stat: os.stat_result


def load(data_root: str, on_event: OnEvent) -> ImageSet:
    """Read a tree of images as RGB.

    Raises
    ------
    BadInput : no such folder, no train or test part, a class without a usable image, or parts with unlike classes; a file
        that cannot be read.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise BadInput(f"--data-root {data_root}: not allowed; give a folder that exists")
    train, test = _part(root, "train"), _part(root, "test", "val")
    class_names = _classes(train)
    if class_names != _classes(test):
        odd = sorted(set(class_names) ^ set(_classes(test)))
        raise BadInput(f"{root}: {train.name} and {test.name} must hold the same class folders; not in both: {_few(odd)}")
    if len(class_names) < 2:
        raise BadInput(f"{train}: holds {len(class_names)} class folders; at least 2 are needed")
    now = time.time_ns()            # before the files are looked at: what changes from here on is younger than this
    try:
        files = {"train": _files(train, class_names), "test": _files(test, class_names)}
        every = files["train"] + files["test"]
        key = content_key(root, _signature(every, now), lambda: _hash_all(root, every), on_event)
    except OSError as error:        # no permission, or gone while we were looking
        raise BadInput(f"{error.filename or root}: cannot read: {error.strerror or error}") from None
    images = cached("imagefolder", key, lambda: _decode_all(root, class_names, files, on_event), on_event)
    if images.left_out:
        on_event({"event": "notice", "text": f"{root}: {len(images.left_out)} files left out: {_few(images.left_out)}"})
    return images


def _part(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise BadInput(f"--data-root {root}: not allowed; it must hold a folder {' or '.join(names)}")


def _classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _files(part: Path, class_names: tuple[str, ...]) -> list[_File]:
    """All files by class and name, but hidden ones, which file managers leave behind."""
    files = []
    for label, name in enumerate(class_names):
        with os.scandir(part / name) as entries:
            files += sorted(_File(f"{part.name}/{name}/{entry.name}", label, entry.stat())
                            for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return files


def _signature(files: list[_File], now: int) -> str | None:
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


def _hash_all(root: Path, files: list[_File]) -> str:
    """The content key: SHA-256 over every file's name below `root` and its bytes."""
    def digests_of(chunk: list[_File]) -> list[bytes]:
        return [_digest(f"{root}/{file.name}") for file in chunk]
    total = hashlib.sha256(_decoding().encode())
    with ThreadPoolExecutor(cpu_count()) as pool:           # reading and hashing leave Python's lock
        for chunk, digests in zip(_chunks(files), pool.map(digests_of, _chunks(files)), strict=True):
            for file, digest in zip(chunk, digests, strict=True):
                total.update(os.fsencode(file.name) + b"\0" + digest)
    return total.hexdigest()


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:                          # half the time of Path.read_bytes on small files
        return hashlib.sha256(file.read()).digest()


def _decoding() -> str:
    """What the decoded pixels depend on besides the files."""
    return f"{LARGEST} {SHORTER_SIDE}"


def _decode_all(root: Path, class_names: tuple[str, ...], files: dict[str, list[_File]], on_event: OnEvent) -> ImageSet:
    total = sum(map(len, files.values()))
    # Pillow holds Python's lock for most of a small image, so processes, not threads; their start costs a second.
    workers = cpu_count() if total > 4 * _CHUNK else 1
    done, left_out, parts = 0, [], {}
    on_event({"event": "progress", "what": "decoding images", "done": 0, "total": total})
    for part, entries in files.items():
        images, labels = [], []
        chunks = Parallel(n_jobs=workers, return_as="generator", batch_size=1)(
            delayed(decode_many)([f"{root}/{file.name}" for file in chunk]) for chunk in _chunks(entries))
        for chunk, results in zip(_chunks(entries), chunks, strict=True):
            for file, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    left_out.append(f"{file.name} ({result})")
                else:
                    images.append(torch.from_numpy(result))
                    labels.append(file.label)
            done += len(chunk)
            on_event({"event": "progress", "what": "decoding images", "done": done, "total": total})
        empty = sorted(set(range(len(class_names))) - set(labels))
        if empty:
            raise BadInput(f"{root}: no usable {part} image in class {_few([class_names[label] for label in empty])}")
        parts[part] = images, torch.tensor(labels)
    sizes = {tuple(image.shape[1:]) for images, _ in parts.values() for image in images}
    keep = len(sizes) == 1 and all(height == width <= LARGEST for height, width in sizes)
    stacked = {}
    for part, (images, labels) in parts.items():
        stacked[f"{part}_images"] = torch.stack(images if keep else [_central(image) for image in images])
        stacked[f"{part}_labels"] = labels
    return ImageSet("imagefolder", class_names, **stacked, left_out=tuple(left_out))


def _central(image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape[1:]
    scale = SHORTER_SIDE / min(height, width)
    size = [max(SHORTER_SIDE, round(height * scale)), max(SHORTER_SIDE, round(width * scale))]
    resized = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - LARGEST) // 2, (size[1] - LARGEST) // 2
    return resized[:, top:top + LARGEST, left:left + LARGEST].round().clamp(0, 255).to(torch.uint8)


def _chunks(items: list) -> Iterator[list]:
    return (items[start:start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _few(names) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""Your own images: ROOT/{train,test|val}/CLASS/*.png|jpg, decoded in parallel once, then read from one cached file.

The cache is keyed by the tree's content (every path and every byte), so a changed image is never missed and a copied
tree is never decoded twice. Files that are no images, or broken ones, are left out and listed by name.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed
from torch.nn import functional as F

from m2kd_lite.data.cache import cached
from m2kd_lite.data.decode import decode_many
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent

# Square images of one size up to this are kept as they are. Anything else is brought to it as ImageNet usually is:
# shorter side to 256, then the central 224x224 (section 4.1: "input size 224 x 224").
LARGEST, SHORTER_SIDE = 224, 256
_CHUNK = 512


def load(data_root: str, on_event: OnEvent) -> ImageSet:
    """Read a tree of images as RGB.

    Raises
    ------
    BadInput : no such folder, no train or test part, a class without a usable image, or parts with unlike classes.
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
    files = {part: [(label, path) for label, name in enumerate(class_names) for path in _files(folder / name)]
             for part, folder in (("train", train), ("test", test))}
    key = _content_key(root, [path for part in files.values() for _, path in part])
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


def _files(folder: Path) -> list[Path]:
    """All files of a class but hidden ones, which file managers leave behind."""
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))]


def _content_key(root: Path, paths: list[Path]) -> str:
    """SHA-256 over every path below `root` and the content of its file."""
    def digests_of(chunk: list[Path]) -> list[bytes]:
        return [hashlib.sha256(path.read_bytes()).digest() for path in chunk]
    total = hashlib.sha256(f"{LARGEST} {SHORTER_SIDE}".encode())
    with ThreadPoolExecutor(cpu_count()) as pool:           # reading and hashing leave Python's lock
        for chunk, digests in zip(_chunks(paths), pool.map(digests_of, _chunks(paths)), strict=True):
            for path, digest in zip(chunk, digests, strict=True):
                total.update(path.relative_to(root).as_posix().encode() + b"\0" + digest)
    return total.hexdigest()


def _decode_all(root: Path, class_names: tuple[str, ...], files: dict[str, list], on_event: OnEvent) -> ImageSet:
    total = sum(map(len, files.values()))
    # Pillow holds Python's lock for most of a small image, so processes, not threads; their start costs a second.
    workers = cpu_count() if total > 4 * _CHUNK else 1
    done, left_out, parts = 0, [], {}
    for part, entries in files.items():
        images, labels = [], []
        chunks = Parallel(n_jobs=workers, return_as="generator", batch_size=1)(
            delayed(decode_many)([str(path) for _, path in chunk]) for chunk in _chunks(entries))
        for chunk, results in zip(_chunks(entries), chunks, strict=True):
            for (label, path), result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    left_out.append(f"{path.relative_to(root).as_posix()} ({result})")
                else:
                    images.append(torch.from_numpy(result))
                    labels.append(label)
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

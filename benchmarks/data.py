"""Sixty thousand small images from a folder: decoding them once, and reading them from the cache ever after.

Uses `data/cifar100` where it is there, otherwise draws as many PNGs of noise. The files have been read before, so a disk plays
no part. The cache is a temporary folder.
"""
from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from joblib import cpu_count
from PIL import Image

from benchmarks import table
from benchmarks.table import Row
from m2kd_lite import data
from m2kd_lite.data.imagefolder import SETTLED_NS

REAL = Path(__file__).parents[1] / "data" / "cifar100"
CACHED_LOADS = 5


def draw_tree(root: Path) -> None:
    """100 classes of 500 + 100 PNGs of 32x32 noise, like CIFAR-100 in number and size."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 500), ("test", 100)):
        for label in range(100):
            folder = root / part / f"class{label:02d}"
            folder.mkdir(parents=True)
            for i, pixels in enumerate(generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)):
                Image.fromarray(pixels).save(folder / f"{i:03d}.png", compress_level=1)


def timed_load(root: Path) -> tuple[float, list[tuple[float, dict]]]:
    """(seconds, [(seconds since the start, progress event)])"""
    began, events = time.perf_counter(), []
    data.load("imagefolder", str(root), lambda event: events.append((time.perf_counter() - began, event)))
    return time.perf_counter() - began, [(at, event) for at, event in events if event["event"] == "progress"]


def measure(root: Path, what: str) -> Iterator[Row]:
    """The three figures of one tree."""
    for path in root.rglob("*.*"):
        path.read_bytes()
    import safetensors.torch                        # noqa: F401  with torch: imports are no part of any figure
    first, progress = timed_load(root)
    (began, _), (ended, last) = progress[0], progress[-1]
    yield Row("images decoded from a folder", last["total"] / (ended - began), "images/s", ">= 8000",
              f"{what}; {cpu_count()} processes, their start included")
    yield Row("first load of 60,000 images", first, "s", "", "listing, hashing, decoding and writing the cache")
    cached = [timed_load(root)[0] for _ in range(CACHED_LOADS)]
    yield Row("the same from the cache", statistics.median(cached), "s", "<= 1",
              f"median of {CACHED_LOADS}: every file's times looked up, every byte read checked by SHA-256")


def rows() -> Iterator[Row]:
    """Decoding rate, first load, cached load."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["M2KD_LITE_CACHE"] = str(Path(folder) / "cache")
        if (REAL / "train").is_dir():
            yield from measure(REAL, "CIFAR-100")
        else:
            draw_tree(Path(folder) / "tree")
            time.sleep(SETTLED_NS / 1e9)            # younger files are hashed at every load
            yield from measure(Path(folder) / "tree", "PNGs of noise")


if __name__ == "__main__":
    table.main(rows)

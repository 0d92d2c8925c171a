"""A folder of images that is more than memory: checked, cached, and taken through two steps of ResNet-18, cold and warm.

    python -m benchmarks.large --images 30000            # or 130000: the paper's subset of ImageNet, 19.6 GB decoded

2,000 JPEGs of 224x224 are drawn, and the tree is made of links to them. Each start is a process of its own. Memory is what it and its
workers have resident, summed twice a second and counted twice where they share it; the files have been read before, so a disk plays little
part. The cache is a temporary folder, and needs 0.15 GB a thousand images.
"""
from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from joblib import cpu_count
from PIL import Image

from benchmarks import table
from benchmarks.table import Row
from m2kd_lite.data.imagefolder import SETTLED_NS

DISTINCT, CLASSES, TEST_SHARE = 2000, 100, 25           # one image in 25 is for the test, as in ImageNet
GOALS = {30_000: 3.0, 130_000: 6.0}                     # GB resident
SAMPLE_SECONDS = 0.5
# Runs, and says when it has got where.
COMMAND = """
import sys, time
began = time.monotonic()
from m2kd_lite.config import RunConfig
from m2kd_lite.training import loop, train
first = loop.Update.__call__
def timed(self, *arguments, **options):
    if loop.Update.__call__ is timed:
        print("first update", time.monotonic() - began, flush=True)
        loop.Update.__call__ = first
    return first(self, *arguments, **options)
loop.Update.__call__ = timed
from m2kd_lite.data.stream import ClassStream
of_run = ClassStream.of_run
def timed_images(*arguments):
    before = time.monotonic()
    stream = of_run(*arguments)
    print("images", time.monotonic() - before, flush=True)
    return stream
ClassStream.of_run = timed_images
def listen(event):
    if event["event"] == "notice":
        print("notice", event["text"], file=sys.stderr, flush=True)
    if event["event"] == "progress" and event["what"] == "decoding images":
        print("decoded", event["done"], time.monotonic() - began, flush=True)
from pathlib import Path
config = RunConfig.make(dict(method="m2kd", dataset="imagefolder", data_root=sys.argv[1], class_batch=10, backbone="resnet18",
                             profile="smoke", steps=2))
train.run(config, Path(sys.argv[2]), on_event=listen)
print("end", time.monotonic() - began, flush=True)
"""


def draw_tree(folder: Path, count: int) -> Path:
    """CLASSES classes of links to DISTINCT smooth pictures, JPEG quality 90."""
    chance, drawn = np.random.default_rng(0), folder / "drawn"
    drawn.mkdir()
    for number in range(DISTINCT):
        blocks = Image.fromarray(chance.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        blocks.resize((224, 224), Image.Resampling.BICUBIC).save(drawn / f"{number}.jpg", quality=90)
    numbers = itertools.count()
    for part, share in (("train", count - count // TEST_SHARE), ("test", count // TEST_SHARE)):
        for label in range(CLASSES):
            place = folder / "tree" / part / f"class{label:03d}"
            place.mkdir(parents=True)
            for number in range(share // CLASSES):
                os.link(drawn / f"{next(numbers) % DISTINCT}.jpg", place / f"{number:05d}.jpg")
    return folder / "tree"


def watched_run(tree: Path, out: Path, cache: Path) -> tuple[list[list[str]], float]:
    """Run in a process of its own: what it said, as words, and the most gigabytes it and its workers had."""
    said = out.with_suffix(".txt")              # a pipe that nobody reads would stop it
    with open(said, "w") as file:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, str(tree), str(out)], stdout=file,
                                   env=os.environ | {"M2KD_LITE_CACHE": str(cache)})
    root, most = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        try:
            for one in (root, *root.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.Error:                    # one has just ended
            pass
        most = max(most, total)
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}")
    return [line.split() for line in said.read_text().splitlines()], most / 1e9


def measure(count: int) -> Iterator[Row]:
    """Cold and warm: memory, rates, and the time to the first update."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = draw_tree(folder, count)
        time.sleep(SETTLED_NS / 1e9)            # younger files are hashed at every start
        for kind in ("cold", "warm"):
            said, most = watched_run(tree, folder / kind, folder / "cache")
            seconds = {words[0]: float(words[-1]) for words in said}
            decoded = [(int(words[1]), float(words[2])) for words in said if words[0] == "decoded"]
            yield Row(f"{count:,} images of 224x224, {kind}: most memory", most, "GB", f"<= {GOALS.get(count, 6.0)}",
                      f"two steps of ResNet-18, {cpu_count()} cores")
            if kind == "cold":
                (begun, _), (ended, number) = ((at, done) for done, at in (decoded[0], decoded[-1]))
                yield Row("  decoded and written", number / (ended - begun), "images/s", "", "its processes' start included")
            yield Row(f"  {kind} start, until the first update", seconds["first"], "s", "<= 5" if kind == "warm" else "", "imports included")
            work = "listing, looking up, opening" if kind == "warm" else "listing, hashing, decoding, writing, hashing again"
            yield Row("    of which the images", seconds["images"], "s", "", work)
            yield Row(f"  {kind} run", seconds["end"], "s")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=30_000)
    arguments.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = arguments.parse_args()
    table.main(lambda: measure(asked.images))

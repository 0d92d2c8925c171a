"""Every reader of files, under fuzz with 2 GB of memory: what it raises must be one of our own errors, whatever it is given.

    python -m benchmarks.fuzz --seconds 600

Each round takes a valid file of each kind and changes it: bytes, or, where a digest would notice that at once, the values inside, signed
again. Hypothesis makes the changes, from another seed each round. Ends with status 1 at the first error that is not ours, and says how
to repeat it.
"""
from __future__ import annotations

import argparse
import copy
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import table
from benchmarks.memory import peak_mb
from benchmarks.table import Row
from m2kd_lite.config import RunConfig
from m2kd_lite.course.student import student_version
from m2kd_lite.data import shardcache
from m2kd_lite.data.decode import decode
from m2kd_lite.errors import M2KDError, printable
from m2kd_lite.events import ignore
from m2kd_lite.files import places, storage
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.results import bank
from m2kd_lite.sweeps.spec import runs
from m2kd_lite.training.rundir import _load_state, read_config, read_run
from m2kd_lite.training.train import run
from m2kd_lite.training.witness import Witness

LIMIT = 2 << 30
SPEC = {"base": {"method": "m2kd", "seed": 0}, "grid": {"seed": [0, 1]}, "exclude": [{"seed": 1}], "include": [{"seed": 3}]}
EXAMPLES = 12           # changes of each kind of file in a round

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(),
                    st.sampled_from([0, -1, 2**31, 2**63, 2**70, 10**12, 1e308, "", "\x1b[2J", "a" * 2000]),
                    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), st.text(max_size=8))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
                      max_leaves=6)


class Kind(NamedTuple):
    """A kind of file: how an example is changed and written, and what reads it."""

    change: Callable[[Any, Path], None]         # (hypothesis's data, where to)
    read: Callable[[Path], Any]
    allowed: tuple[type[Exception], ...] = (M2KDError,)


def changed_bytes(raw: bytes) -> Callable:
    """Cuts, insertions and flips."""
    def change(data, path: Path) -> None:
        out = bytearray(raw)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(len(out) - 1, 0)))
            out[at:at + data.draw(st.sampled_from([0, 1, 1, 4, 100]))] = data.draw(st.binary(max_size=8))
        path.write_bytes(out)
    return change


def changed_value(content: Any, data) -> Any:
    """A copy with one to three values, anywhere inside, exchanged or taken out."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = content
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(at[key], (dict, list)) and at[key] and data.draw(st.booleans()):
                at = at[key]
                continue
            if isinstance(at, dict) and data.draw(st.integers(0, 4)) == 0:
                del at[key]
            else:
                at[key] = data.draw(VALUES)
            break
    return content


def changed_json(content: dict) -> Callable:
    """Values inside, signed again."""
    return lambda data, path: storage.save_json(path, changed_value(content, data))


def changed_tensors(tensors: dict, notes: dict) -> Callable:
    """Notes, and the shapes, types and names of tensors, signed again."""
    def change(data, path: Path) -> None:
        new = dict(tensors)
        for _ in range(data.draw(st.integers(0, 2))):
            name = data.draw(st.sampled_from(sorted(new)))
            tensor = new.pop(name)
            how = data.draw(st.sampled_from(["gone", "renamed", "flat", "cut", "type", "bytes", "scalar"]))
            if how == "renamed":
                new[data.draw(st.text(max_size=6))] = tensor
            elif how == "bytes" and tensor.dtype == torch.uint8 and tensor.numel():
                tensor = tensor.clone()
                tensor[data.draw(st.integers(0, len(tensor) - 1))] ^= data.draw(st.integers(1, 255))
                new[name] = tensor
            elif how != "gone":
                new[name] = {"flat": tensor.reshape(-1), "cut": tensor[:1] if tensor.dim() else tensor, "type": tensor.double(),
                             "scalar": torch.tensor(1.0)}.get(how, tensor)
        storage.save_tensors(path, new, changed_value(notes, data))
    return change


def in_a_folder(name: str, read: Callable, beside: dict[str, bytes] | None = None) -> Callable[[Path], Any]:
    """Reads a folder in which the file has this name."""
    def look(path: Path):
        folder = path.parent / f"folder-{name}"
        folder.mkdir(exist_ok=True)
        for other, content in (beside or {}).items():
            (folder / other).write_bytes(content)
        (folder / name).write_bytes(path.read_bytes())
        return read(folder)
    return look


def all_models(path: Path) -> None:
    past = Snapshots.load(path)
    for step in range(1, len(past) + 1):
        past.reconstruct(step)


def decoded(path: Path) -> None:
    out = decode(str(path))
    assert (out.pixels is None) == bool(out.problem)


def counted(path: Path) -> None:
    for text in bank.load(path)["confusion"]:
        if isinstance(text, str) and text:
            bank.confusion_matrix(text)


def pictures() -> Iterator[tuple[str, bytes]]:
    """One small picture of each format, with everything that a header may hold."""
    picture = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = picture.copy()
    clear.putalpha(Image.linear_gradient("L").resize((24, 16)))
    for suffix, image, options in (("png", clear, {"exif": exif}), ("jpg", picture, {"exif": exif}),
                                   ("gif", picture, {"save_all": True, "append_images": [clear]}), ("webp", clear, {}),
                                   ("bmp", picture, {}), ("tif", picture.convert("L").convert("I"), {}), ("tga", clear, {})):
        file = io.BytesIO()
        image.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
        yield suffix, file.getvalue()


def shards(folder: Path) -> Kind:
    """The index of a cache of shards, and what reads it: a changed one is said, and nothing is raised."""
    os.environ["M2KD_LITE_CACHE"], key = str(folder), "f" * 64

    def two_images(sink) -> shardcache.Decoded:
        for part in shardcache.PARTS:
            sink(part, np.zeros((2, 3, 4, 4), np.uint8))
        return shardcache.Decoded(("a", "b"), {part: torch.tensor([0, 1]) for part in shardcache.PARTS}, (), ())

    shardcache.made("fuzz", key, 0, two_images, ignore)
    index = folder / f"fuzz-{key[:32]}" / "index.json"

    def read(path: Path) -> None:
        index.write_bytes(path.read_bytes())
        images = shardcache.found("fuzz", key, ignore)
        if images:
            images.train_images[:], images.test_images[0]

    return Kind(changed_json(storage.load_json(index)), read)


def kinds(folder: Path) -> dict[str, Kind]:
    """All readers, each with a valid file to begin from: those of a run of seconds, and small pictures."""
    config = RunConfig.make(dict(method="m2kd", dataset="digits", class_batch=4, profile="smoke", train_per_class=8, test_per_class=4,
                                 steps=2, batch_size=16))
    run(config, folder / "run")
    settings_file, results = (folder / "run" / name for name in ("config.json", "metrics.json"))
    bank.save(bank.rows(storage.load_json(results)), folder / "bank.csv")
    spec = places.find("experiments/example.yaml").read_bytes()
    lesson = places.find(places.FULL_RUN).read_bytes()[:20_000]
    state_notes = storage.load_tensors(folder / "run" / "checkpoint" / "state-a.safetensors")
    return {
        "snapshots": Kind(changed_tensors(*storage.load_tensors(folder / "run" / "snapshots.safetensors")), all_models),
        "snapshots, bytes": Kind(changed_bytes((folder / "run" / "snapshots.safetensors").read_bytes()), all_models),
        "live logits": Kind(changed_tensors(*storage.load_tensors(folder / "run" / "live.safetensors")), Witness.load),
        "checkpoint": Kind(changed_tensors(*state_notes), _load_state),
        "settings": Kind(changed_json(storage.load_json(settings_file)), in_a_folder("config.json", read_config)),
        "settings, bytes": Kind(changed_bytes(settings_file.read_bytes()), in_a_folder("config.json", read_config)),
        "results": Kind(changed_json(storage.load_json(results)),
                        in_a_folder("metrics.json", read_run, {"config.json": settings_file.read_bytes()})),
        "sweep": Kind(changed_bytes(spec), runs),
        "sweep, values": Kind(lambda data, path: path.write_text(json.dumps(changed_value(SPEC, data))), runs),
        "bank": Kind(changed_bytes((folder / "bank.csv").read_bytes()), counted, (M2KDError, ValueError)),
        "shards": shards(folder),
        "notebook": Kind(changed_bytes(lesson), student_version),
        **{f"picture.{suffix}": Kind(changed_bytes(raw), decoded, ()) for suffix, raw in pictures()},
    }


def fuzz(name: str, kind: Kind, folder: Path, number: int) -> int:
    """One round of one kind; the files read. Raises what the reader raised, if it is not ours."""
    count = 0

    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def once(data) -> None:
        nonlocal count
        path = folder / f"file{Path(name).suffix}"
        kind.change(data, path)
        count += 1
        try:
            kind.read(path)
        except kind.allowed as error:
            printable(str(error)).encode()          # an error that cannot be printed is none

    once()
    return count


def fuzz_all(seconds: float) -> Iterator[Row]:
    """Rounds of all kinds, until the time is up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        every = kinds(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        began, count, number = time.monotonic(), 0, 0
        while time.monotonic() - began < seconds:
            number += 1
            for what, kind in every.items():
                try:
                    count += fuzz(what, kind, folder, number)
                except Exception as error:
                    raise RuntimeError(f"{what}, seed {number}: {type(error).__name__}: {error}") from error
                if time.monotonic() - began > seconds:
                    break
        yield Row("files read under fuzz", count, "files", "",
                  f"{len(every)} kinds, {number} rounds, {seconds:.0f} s; none raised what is not ours")
        yield Row("  most memory meanwhile", peak_mb(), "MB", "<= 2048")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=600.0)
    arguments.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = arguments.parse_args(sys.argv[1:])
    table.main(lambda: fuzz_all(asked.seconds))

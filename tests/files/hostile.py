"""Files of under 1 MB that were made to fill the machine which reads them, read in a process that may have 2 GB.

`python -m tests.files.hostile FOLDER` writes each, reads it, and prints what came of it as one JSON object. Used by `test_hostile.py`.
"""
import json
import resource
import struct
import sys
import time
import zlib
from pathlib import Path

import torch
import yaml

from benchmarks.memory import peak_mb
from m2kd_lite import data
from m2kd_lite.course.student import student_version
from m2kd_lite.data.decode import decode_many
from m2kd_lite.errors import M2KDError
from m2kd_lite.files import storage
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.results import bank
from m2kd_lite.sweeps.spec import runs
from m2kd_lite.training.rundir import RunFolder, _load_state, read_config, read_run
from m2kd_lite.training.witness import Witness

LIMIT = 2 << 30
CASES = {}


def case(read):
    """Register a function that writes a file; `read` is then called with its path."""
    def register(write):
        CASES[write.__name__] = write, read
        return write
    return register


def zeros_frame(size: int) -> torch.Tensor:
    """A zstd frame of `size` zeros by hand, four bytes for each 128 kB: what no packer of floats would write."""
    whole, rest = divmod(size, 1 << 17)
    blocks = [1 << 17] * whole + [rest] * bool(rest)
    body = b"".join(struct.pack("<I", (number == len(blocks)) | 1 << 1 | length << 3)[:3] + b"\0" for number, length in enumerate(blocks, 1))
    return torch.frombuffer(bytearray(b"\x28\xb5\x2f\xfd\xc0\x38" + struct.pack("<Q", size) + body), dtype=torch.uint8)


def one_model():
    net, past = IncrementalNet("resnet8", 3, False, seed=0), Snapshots("resnet8", 3, False)
    net.grow_heads(4, 1)
    past.add(net, {})
    return past.to_tensors()


@case(Snapshots.load)
def snapshots_of_sixteen_million_classes(path):
    tensors, notes = one_model()
    tensors["step001/heads"] = zeros_frame(4 * 2**24 * 65)
    storage.save_tensors(path, tensors, notes | {"classes": [2**24]})


@case(Snapshots.load)
def snapshots_of_many_steps_each_of_a_size_that_one_might_have(path):
    tensors, notes = one_model()
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("step001/") and name.split("/")[1] not in ("heads", "batch_norm")}
    first = next(iter(weights))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in weights} | {first: weights[first][:1, :1]}
    for step in range(1, 301):
        tensors[f"step{step:03d}/heads"] = zeros_frame(4 * 250_000 * 65)
        tensors[f"step{step:03d}/batch_norm"] = tensors["step001/batch_norm"].clone()
    storage.save_tensors(path, tensors, notes | {"classes": [250_000] * 300})


@case(Witness.load)
def live_logits_that_say_they_are_larger_than_the_file(path):
    header = json.dumps({"__metadata__": {"m2kd_lite": json.dumps({"notes": "{}", "sha256": "0"})},
                         "step001": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@case(Witness.load)
def live_logits_whose_header_says_it_is_larger_than_the_file(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


@case(_load_state)
def a_checkpoint_whose_notes_are_deep(path):
    deep = '{"serial": ' + "[" * 200_000 + "]" * 200_000 + "}"
    tensors = {"net/x": torch.zeros(1)}
    import safetensors.torch
    path.write_bytes(safetensors.torch.save(tensors, {"m2kd_lite": json.dumps({"notes": deep, "sha256": storage.tensors_digest(tensors, deep)})}))


def load_checkpoint(path):
    from m2kd_lite.config import RunConfig
    folder = path.parent / "run"
    (folder / "checkpoint").mkdir(parents=True)
    for what in ("state-a", "state-b", "models-a", "models-b"):
        (folder / "checkpoint" / f"{what}.safetensors").write_bytes(path.read_bytes())
    with RunFolder(path.parent / "run2", RunConfig.make({}), resume=False) as run:
        run.path = folder
        return run.load_checkpoint(lambda event: None, torch.device("cpu"))


@case(load_checkpoint)
def models_of_a_checkpoint_that_unpack_to_gigabytes(path):
    snapshots_of_sixteen_million_classes(path)


def read_as_config(path):
    (path.parent / "config").mkdir()
    (path.parent / "config" / "config.json").write_bytes(path.read_bytes())
    return read_config(path.parent / "config")


@case(read_as_config)
def settings_that_are_deep(path):
    path.write_text('{"config": ' + "[" * 200_000 + "]" * 200_000 + ', "sha256": "0"}')


@case(read_as_config)
def settings_with_a_number_of_half_a_million_digits(path):
    path.write_text('{"config": {"seed": ' + "9" * 500_000 + '}, "sha256": "0"}')


@case(read_as_config)
def settings_as_long_as_the_file(path):
    storage.save_json(path, {"config": {"milestones": list(range(50_000)), "seed": 0}})


def read_as_run(path):
    from m2kd_lite.config import RunConfig
    folder = path.parent / "results"
    folder.mkdir()
    storage.save_json(folder / "config.json", {"config": RunConfig.make({}).model_dump(mode="json")})
    (folder / "metrics.json").write_bytes(path.read_bytes())
    return read_run(folder)


@case(read_as_run)
def results_of_a_step_of_classes_that_are_not_there(path):
    storage.save_json(path, {"schema": 1, "steps": [{"step": 1, "classes_seen": 2**40, "confusion": [[0]]}] * 1000})


def bomb(levels=30):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    return "\n".join(lines + [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, levels)]) + "\n"


@case(runs)
def a_sweep_of_aliases_of_aliases(path):
    text = bomb(12)
    path.write_text("base:\n" + "".join(f"  {line}\n" for line in text.splitlines()) + "  method: *a11\n")
    assert yaml.compose(path.read_text())


@case(runs)
def a_sweep_whose_grid_is_aliases(path):
    values = "[" + ", ".join(map(str, range(1000))) + "]"
    path.write_text(f"grid:\n  seed: &v {values}\n" + "".join(f"  {name}: *v\n" for name in ("epochs", "class_batch", "exemplars", "batch_size", "finetune_epochs")))


@case(runs)
def a_sweep_that_contains_itself(path):
    path.write_text("base: &b\n  seed: *b\n  method: [*b, *b]\n")


@case(runs)
def a_sweep_that_is_deep(path):
    path.write_text("base: " + "[" * 100_000)


@case(runs)
def a_sweep_of_many_keys(path):
    path.write_text("base: {" + ", ".join(f"k{i}: 0" for i in range(20_000)) + "}")


@case(runs)
def a_sweep_with_a_number_of_many_digits(path):
    path.write_text("base: {seed: " + "9" * 100_000 + "}")


@case(runs)
def a_sweep_longer_than_any(path):
    path.write_text("base: {}\n" + "#" * 600_000)


@case(bank.load)
def a_bank_of_a_hundred_thousand_columns(path):
    path.write_text(",".join(f"c{i}" for i in range(50_000)) + "\n" + "a\n" * 300_000)


@case(lambda path: bank.confusion_matrix(path.read_text()))
def a_confusion_matrix_of_a_million_classes(path):
    path.write_text(";" * 999_000)


@case(bank.load)
def a_bank_that_is_no_text(path):
    path.write_bytes(bytes(range(256)) * 1000)


@case(student_version)
def a_notebook_that_is_deep(path):
    path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": ' + '{"a": ' * 20_000 + "{}" + "}" * 20_000 + ', "cells": []}')


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def flat_png(width, height, *extra, colour=2):
    """A PNG of one colour, whose rows are packed as they are made."""
    packer, channels = zlib.compressobj(6), {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + channels * width)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def read_image(path):
    """As a folder of images would."""
    batch = decode_many([str(path)], None)
    return f"left out: {batch.left_out[0]}" if batch.left_out else f"read: {batch.pixels.shape}"


@case(read_image)
def a_picture_that_is_as_large_as_pillow_allows_png(path):
    path.write_bytes(flat_png(13_000, 13_000, colour=0))


@case(read_image)
def a_picture_of_one_pixel_by_sixty_thousand_png(path):
    path.write_bytes(flat_png(1, 60_000))


@case(read_image)
def a_picture_with_a_text_that_unpacks_to_200_megabytes_png(path):
    packer = zlib.compressobj(6)
    text = b"".join(packer.compress(bytes(1 << 24)) for _ in range(12)) + packer.flush()
    path.write_bytes(flat_png(8, 8, chunk(b"zTXt", b"note\0\0" + text)))


@case(read_image)
def a_picture_with_a_profile_that_unpacks_to_200_megabytes_png(path):
    packer = zlib.compressobj(6)
    profile = b"".join(packer.compress(bytes(1 << 24)) for _ in range(12)) + packer.flush()
    path.write_bytes(flat_png(8, 8, chunk(b"iCCP", b"wide\0\0" + profile)))


@case(read_image)
def a_scan_that_says_it_is_four_gigapixels_tif(path):
    tags = [(256, 65_000), (257, 65_000), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 65_000), (279, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4))


def load_cache(path):
    """A foreign file in place of the cached images."""
    from m2kd_lite.data import cache
    from m2kd_lite.data.images import ImageSet
    import os
    os.environ["M2KD_LITE_CACHE"] = str(path.parent)
    pixels, labels = torch.zeros((2, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 1])
    path.rename(path.parent / "tiny-key.safetensors")
    said = []
    cache.cached("tiny", "key", lambda: ImageSet("tiny", ("a", "b"), pixels, labels, pixels.clone(), labels.clone()), said.append)
    return said[0]["text"]


@case(load_cache)
def a_cache_that_says_it_is_larger_than_the_file(path):
    live_logits_that_say_they_are_larger_than_the_file(path)


def main(folder: Path) -> dict[str, dict]:
    data.load("digits")             # what the readers import on first use is no part of what they need
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    outcomes = {}
    for name, (write, read) in CASES.items():
        place = folder / name
        place.mkdir()
        path = place / (f"file.{name[-3:]}" if name[-3:] in ("png", "tif") else "file")
        write(path)
        size, begun = path.stat().st_size, time.monotonic()
        try:
            outcome, kind = str(read(path)), "read"
        except (M2KDError, ValueError) as error:
            outcome, kind = str(error), type(error).__name__
        except BaseException as error:
            outcome, kind = repr(error)[:300], "not ours"
        outcomes[name] = {"seconds": round(time.monotonic() - begun, 1), "kind": kind, "text": outcome, "bytes": size,
                          "peak_mb": peak_mb()}
    return outcomes


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))

"""Data sets that are more than memory: the same bytes through shards, made once, whole or absent."""
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m2kd_lite import data
from m2kd_lite.config import RunConfig
from m2kd_lite.data import imagefolder, shardcache, shards, tree
from m2kd_lite.data.shards import Rows, Writer
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method.nets import IncrementalNet, at_once
from m2kd_lite.training import feed, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six classes of 12 + 3 pictures, and a file that is none."""
    folder, chance = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for name in "abcdef":
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / part / name / f"{number:02d}.png")
    (folder / "train" / "b" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def in_memory(root):
    """The same tree as one tensor."""
    return data.load("imagefolder", str(root))


@pytest.fixture
def large(monkeypatch, tmp_path):
    """From here on every tree is more than memory, and a shard has five images."""
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shardcache, "IN_MEMORY", 0)
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 3 * 32 * 32)
    monkeypatch.setattr(shards, "BLOCK_BYTES", 7 * 3 * 32 * 32)
    return tmp_path / "cache"


def load(root):
    """The images, and what was said."""
    said = []
    return data.load("imagefolder", str(root), said.append), [event["text"] for event in said if event["event"] == "notice"]


def folder_of(cache):
    (folder,) = cache.glob("imagefolder-*/")
    return folder


def test_through_shards_come_the_same_bytes_and_the_second_time_nothing_is_decoded(root, in_memory, large, monkeypatch):
    for _ in range(2):
        images, said = load(root)
        assert isinstance(images.train_images, Rows) and images.sha256 == in_memory.sha256
        assert torch.equal(images.train_images[:], in_memory.train_images) and torch.equal(images.test_images[:], in_memory.test_images)
        assert torch.equal(images.train_labels, in_memory.train_labels) and images.class_names == in_memory.class_names
        assert images.left_out == in_memory.left_out and any("1 file left out" in text for text in said)
        monkeypatch.setattr(tree.Tree, "decode", lambda *a: pytest.fail("decoded again"))


def test_numpys_own_tools_read_a_shard_and_a_start_reads_none(root, in_memory, large, monkeypatch):
    load(root)
    first = np.lib.format.open_memmap(folder_of(large) / "train-00000.npy", mode="r")
    assert first.shape == (5, 3, 32, 32) and np.array_equal(first, in_memory.train_images[:5].numpy())
    monkeypatch.setattr(shards.Shards, "_open", lambda *a: pytest.fail("read"))
    images, _ = load(root)
    assert len(images.fewer(2, 1).train_images) == 12 and len(ClassStream.of(images, "natural", 2, 0).train(2)[0]) == 24


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_indexed_as_a_tensor_is(tmp_path_factory, data):
    count, shape = data.draw(st.integers(1, 12)), (2, 3, 3)
    pixels = torch.from_numpy(np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8))
    writer = Writer(tmp_path_factory.mktemp("rows"), "train")
    for part in pixels.split(data.draw(st.integers(1, 12))):
        writer.add(part.numpy())
    own = writer.finish()
    own.each, chosen = own.each, Rows(own)
    for _ in range(3):
        kind = data.draw(st.sampled_from(["row", "slice", "list", "tensor", "select", "mask"]))
        place = st.integers(-len(pixels), len(pixels) - 1) if len(pixels) else st.nothing()
        if not len(pixels):
            break
        if kind == "row":
            row = data.draw(place)
            assert torch.equal(chosen[row], pixels[row]) and torch.equal(chosen[torch.tensor(row)], pixels[row])
        elif kind == "slice":
            cut = slice(data.draw(place), data.draw(place), data.draw(st.sampled_from([None, 1, 2])))
            assert torch.equal(chosen[cut], pixels[cut])
        elif kind == "mask":
            mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(pixels), max_size=len(pixels))))
            assert torch.equal(chosen[mask], pixels[mask])
        else:
            rows = data.draw(st.lists(place, max_size=8))
            if kind == "list" and rows:
                assert torch.equal(chosen[rows], pixels[rows])
            picked = torch.tensor(rows, dtype=torch.int64)
            if kind == "select":
                chosen, pixels = chosen.select(picked), pixels[picked]
            assert torch.equal(chosen[picked] if kind != "select" else chosen[:], pixels[picked] if kind != "select" else pixels)
        assert chosen.shape == pixels.shape and len(chosen) == len(pixels) and chosen.numel() == pixels.numel()
    assert [image.tolist() for image in chosen] == pixels.tolist()


def test_pixel_statistics_do_not_depend_on_blocks(root, in_memory, large):
    images, _ = load(root)
    nets = [IncrementalNet("resnet8", 3, False, 0) for _ in range(2)]
    for net, source in zip(nets, (in_memory.train_images, images.train_images), strict=True):
        net.set_pixel_statistics(source)
    assert torch.equal(nets[0].pixel_mean, nets[1].pixel_mean) and torch.equal(nets[0].pixel_std, nets[1].pixel_std)


@pytest.mark.parametrize("method, step_bytes", [("m2kd", 0), ("icarl-m2kd", 0), ("joint", 0), ("m2kd", 1 << 30)])
def test_a_run_from_disk_ends_with_the_bytes_of_one_from_memory(method, step_bytes, root, in_memory, large, monkeypatch, tmp_path):
    monkeypatch.setattr(feed, "STEP_BYTES", step_bytes)
    ends, said = [], []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(shardcache, "IN_MEMORY", limit)
        monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / str(limit)))
        config = RunConfig.make(dict(method=method, dataset="imagefolder", data_root=str(root), class_batch=3, profile="smoke", epochs=2, batch_size=8,
                                     **({"exemplars": 12} if method.startswith("icarl") else {})))
        out = tmp_path / f"run{limit}"
        metrics = train.run(config, out, on_event=said.append)
        ends.append(((out / "snapshots.safetensors").read_bytes(), [{name: value for name, value in step.items() if "seconds" not in name} for step in metrics["steps"]],
                     metrics["data_sha256"], metrics.get("exemplars")))
    assert ends[0] == ends[1]
    where = "left on disk and read batch by batch" if step_bytes == 0 else "in the memory of cpu"
    assert sum(where in event.get("text", "") for event in said) == 2            # a line a step


def test_batches_are_read_ahead_and_a_change_of_mind_costs_nothing(root, in_memory, large):
    images, _ = load(root)
    source = feed.Feed(images.train_images, 4)
    plan = [torch.tensor(rows) for rows in ([0, 70, 3, 3], [9, 8, 7, 6], [1, 2, 3, 4])]
    source.fill(plan[0], plan[1])
    assert torch.equal(source.batch, in_memory.train_images[plan[0]])
    source.fill(plan[1], plan[0])
    assert torch.equal(source.batch, in_memory.train_images[plan[1]])
    source.fill(plan[2], None)                  # not what was announced
    assert torch.equal(source.batch, in_memory.train_images[plan[2]])


def test_networks_look_at_fewer_large_images_at_once():
    sizes = {side: at_once(torch.empty((1, 3, side, side), dtype=torch.uint8), 500) for side in (8, 32, 64, 224, 4096)}
    assert sizes == {8: 500, 32: 500, 64: 500, 224: 40, 4096: 1}


# ---- damage ---------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_before_the_row_is_used_and_the_next_start_decodes_again(root, in_memory, large):
    load(root)
    shard = folder_of(large) / "train-00002.npy"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    images, _ = load(root)
    assert torch.equal(images.train_images[:10], in_memory.train_images[:10])           # other shards are fine
    with pytest.raises(DamagedFile, match=r"train-00002.npy: its content does not match its SHA-256; begin again"):
        images.train_images[12]
    again, _ = load(root)
    assert torch.equal(again.train_images[:], in_memory.train_images)


def test_data_check_reads_every_shard(root, large, capsys):
    from m2kd_lite import cli
    for harm, status in ((False, 1), (True, 1)):            # 1 for the file that was left out
        load(root)
        if harm:
            shard = folder_of(large) / "train-00013.npy"
            shard.write_bytes(shard.read_bytes()[:-1] + b"!")
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", "check", "imagefolder", "--data-root", str(root)])
        assert ended.value.code == status and ("train-00013.npy: its content" in capsys.readouterr().err) == harm


@pytest.mark.parametrize("harm", [
    lambda folder: (folder / "test-00001.npy").unlink(),
    lambda folder: (folder / "test-00001.npy").write_bytes(b"x"),
    lambda folder: (folder / "index.json").write_bytes((folder / "index.json").read_bytes()[:-40]),
    lambda folder: (folder / "index.json").write_text("[1]"),
])
def test_what_is_gone_or_torn_is_said_and_made_again(harm, root, in_memory, large):
    load(root)
    harm(folder_of(large))
    images, said = load(root)
    assert any("making it again" in text for text in said) and torch.equal(images.test_images[:], in_memory.test_images)


@pytest.mark.parametrize("change", [
    {"count": 2**60}, {"count": 2**70}, {"count": -1}, {"count": 0}, {"each": 0}, {"each": 2**62}, {"shape": [3, 2**40, 2**40]}, {"shape": [3, 32]}, {"shape": None},
    {"digests": []}, {"digests": ["0"] * 10**5}, {"per_class": [2**40] * 6}, {"per_class": [72]}, {"per_class": [-1, 73, 0, 0, 0, 0]}, {"per_class": "no"}, {"count": "72"}], ids=str)
def test_an_index_that_we_did_not_write_is_said_and_made_again(change, root, in_memory, large):
    load(root)
    index = storage.load_json(folder_of(large) / "index.json")
    index["parts"]["train"] |= change
    storage.save_json(folder_of(large) / "index.json", index)
    images, said = load(root)
    assert any("making it again" in text for text in said) and torch.equal(images.train_images[:], in_memory.train_images)


# ---- the disk -------------------------------------------------------------------------------------------------------------


def test_the_need_is_said_before_decoding(root, large):
    _, said = load(root)
    assert any(text.startswith("decoding to 0.0 GB in") and "GB are free" in text for text in said)


def test_too_little_room_is_one_line_before_anything_is_decoded(root, large, monkeypatch):
    monkeypatch.setattr(shardcache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr(tree.Tree, "decode", lambda *a: pytest.fail("decoded"))
    with pytest.raises(CannotWrite, match=r"the decoded images take 0.0 GB, and 0.0 GB are free; make room, or name a folder .* M2KD_LITE_CACHE") as error:
        load(root)
    assert "\n" not in str(error.value)


def test_a_disk_that_gets_full_is_one_line_and_leaves_no_half_cache(root, in_memory, large, monkeypatch):
    with monkeypatch.context() as patch:
        written, real = [], Writer._write

        def write(self):
            written.append(1)
            if len(written) > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(self)

        patch.setattr(Writer, "_write", write)
        with pytest.raises(CannotWrite, match="cannot write: No space left on device") as error:
            load(root)
    assert "\n" not in str(error.value) and not [path for path in large.iterdir() if path.is_dir()]
    assert torch.equal(load(root)[0].train_images[:], in_memory.train_images)


def test_what_a_killed_process_left_is_removed(root, large):
    load(root)
    folder = folder_of(large)
    left = large / f".{folder.name}.abcdefgh.tmp"
    folder.rename(left)                         # as if it had been killed before the last act
    load(root)
    assert not left.exists() and folder.exists()


TWO = """
import sys, time
from m2kd_lite import data
from m2kd_lite.data import shardcache, tree
shardcache.IN_MEMORY = int(sys.argv[2])
real = tree.Tree.decode
def decode(*arguments):
    print("decodes", flush=True)
    time.sleep(2)
    return real(*arguments)
tree.Tree.decode = decode
images = data.load("imagefolder", sys.argv[1], lambda event: print(event.get("text", ""), flush=True))
print("sha", images.sha256)
"""


@pytest.mark.system
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_two_processes_decode_the_same_tree_once(limit, root, in_memory, large):
    both = [subprocess.Popen([sys.executable, "-c", TWO, str(root), str(limit)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sum("decodes" in text for text in said) == 1 and all(f"sha {in_memory.sha256}" in text for text in said)
    assert sum("another process is decoding the same images" in text for text in said) == 1


def test_a_cache_folder_that_cannot_be_made_is_one_line(root, large, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CannotWrite, match="cannot write") as error:
        load(root)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(shardcache, "IN_MEMORY", 1 << 30)                       # what fits goes on without
    assert any("going on without a cache" in text for text in load(root)[1])


def test_so_many_that_storing_is_senseless_are_pointed_elsewhere(root, large, monkeypatch):
    monkeypatch.setattr(shardcache, "SENSELESS", 1000)
    with pytest.raises(BadInput, match="more than it is sensible to store; use fewer classes, or a loader that decodes as it trains, as FFCV or WebDataset"):
        load(root)


def test_no_more_is_under_way_than_is_stated(root, large, monkeypatch):
    monkeypatch.setattr(tree, "CHUNK_BYTES", 4 * 3 * 32 * 32)
    monkeypatch.setattr(tree, "cpu_count", lambda: 1)
    groups, sizes, real = [], [], tree.Parallel.__call__
    monkeypatch.setattr(tree.Parallel, "__call__", lambda self, calls: groups.append(list(calls)) or real(self, groups[-1]))
    found = imagefolder.load(str(root), lambda event: None)
    sizes = [sum(len(arguments[0]) for _, arguments, _ in calls) for calls in groups]
    assert max(sizes) <= tree.AHEAD * 4 and sum(sizes) == len(found.train_images) + len(found.test_images) + 1


def test_unlike_sizes_and_an_unlike_one_at_the_end_are_resized_in_either_cache(tmp_path, monkeypatch):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "tree" / part / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (32, 32), (number, 200, 0)).save(tmp_path / "tree" / part / name / f"{number}.png")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "tree" / "test" / "b" / "9.png")
    hashes = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(shardcache, "IN_MEMORY", limit)
        monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / str(limit)))
        images = data.load("imagefolder", str(tmp_path / "tree"))
        assert images.test_images.shape == (5, 3, 224, 224)
        hashes.append(images.sha256)
    assert hashes[0] == hashes[1] and len(json.dumps(hashes))

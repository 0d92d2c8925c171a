"""Data sets and the class stream, on real trees, real fonts and a real (local) server."""
import functools
import http.server
import os
import shutil
import tarfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from m2kd_lite import data
from m2kd_lite.data import cache as data_cache, downloads, glyphs, imagefolder, layout, tree
from m2kd_lite.data.decode import decode_many
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.stream import ClassStream, class_columns, class_order
from m2kd_lite.errors import BadInput

# ---- glyphs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    return data.load("glyphs")


def test_glyphs_are_the_expected_bytes(drawn):
    assert drawn.train_images.shape == (10_000, 3, 32, 32) and drawn.test_images.shape == (3_000, 3, 32, 32)
    assert drawn.train_images.dtype == torch.uint8 and drawn.train_labels.dtype == torch.int64
    assert torch.bincount(drawn.train_labels).tolist() == [100] * 100
    assert torch.bincount(drawn.test_labels).tolist() == [30] * 100
    assert drawn.sha256 == glyphs.EXPECTED_SHA256


def test_glyphs_are_ten_families_of_ten_distinct_characters():
    assert [len(chars) for chars in glyphs.FAMILIES.values()] == [10] * 10
    assert len(set(glyphs.characters())) == 100 == len(set(glyphs.class_names()))


def test_every_face_used_really_holds_the_character():
    from fontTools.ttLib import TTFont
    covers = {}
    for char in glyphs.characters():
        faces = glyphs.faces_of(char)
        assert len(faces) >= 5, f"{char}: many faces"
        for face in faces:
            if face.path not in covers:
                covers[face.path] = TTFont(face.path, lazy=True).getBestCmap()
            assert ord(char) in covers[face.path], (char, face.path)


def outline(char, face):
    """A glyph stretched to its box and blurred a little, as a unit vector picture of (36, 36)."""
    ink = glyphs._mask(char, face).resize((28, 28))
    picture = torch.nn.functional.pad(torch.from_numpy(np.asarray(ink, dtype=np.float32)), (4, 4, 4, 4))
    picture = torch.nn.functional.avg_pool2d(picture[None], 3, 1, 1)[0]
    picture = picture - picture.mean()
    return picture / picture.norm().clamp_min(1e-6)         # a face without the glyph may draw nothing at all


def likeness(chars, mirrored):
    """(n, n) mean correlation of characters, or of one and the other's mirror image, over the upright faces of both."""
    total, count = np.zeros((len(chars),) * 2), np.zeros((len(chars),) * 2)
    for face in glyphs._fonts():
        if "Oblique" in face.path or "Ita" in face.path:            # a mirror slants them the other way
            continue
        has = np.array([glyphs._mask(c, face).tobytes() != glyphs._mask("\uffff", face).tobytes() for c in chars], dtype=float)
        pictures = torch.stack([outline(char, face) for char in chars])
        other = pictures.flip(2) if mirrored else pictures
        total += np.outer(has, has) * (pictures.flatten(1) @ other.flatten(1).T).numpy()
        count += np.outer(has, has)
    return total / count.clip(1)


ALIKE, MIRRORED, BY_THE_MIRROR = 0.86, 0.85, 0.15


@pytest.mark.parametrize("pair", ["O0", "OО", "HН", "Σ∑", "PР", "nп", "B8"])
def test_the_measure_finds_known_look_alikes(pair):
    assert likeness(pair, False)[0, 1] > ALIKE


@pytest.mark.parametrize("pair", ["NИ", "RЯ", "←→", "↖↗", "≤≥", "bd", "↩↪", "aБ"])
def test_the_measure_finds_known_mirror_images(pair):
    mirrored = likeness(pair, True)[0, 1]
    assert mirrored > MIRRORED and mirrored > likeness(pair, False)[0, 1] + BY_THE_MIRROR


def test_no_look_alikes_across_families_and_no_mirror_images():
    chars = glyphs.characters()
    same, mirrored = likeness(chars, False), likeness(chars, True)
    families = [family for family, members in glyphs.FAMILIES.items() for _ in members]
    for i, a in enumerate(chars):
        for j, b in enumerate(chars[:i]):
            assert families[i] == families[j] or same[i, j] < ALIKE, f"{a} looks like {b}: {same[i, j]:.2f}"
            # a mirror image is one that only the mirror makes alike (spades and clubs are as alike without it)
            by_the_mirror = mirrored[i, j] > MIRRORED and mirrored[i, j] > same[i, j] + BY_THE_MIRROR
            assert not by_the_mirror, f"{a} mirrors {b}: {mirrored[i, j]:.2f}, {same[i, j]:.2f} without"


@pytest.mark.system
def test_another_drawing_is_reported_plainly(monkeypatch, tmp_path):
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr(glyphs, "EXPECTED_SHA256", "0" * 64)
    said = []
    data.load("glyphs", on_event=said.append)
    assert any(event["event"] == "notice" and "expected 000000000000" in event["text"] for event in said)
    assert any(event["event"] == "progress" for event in said)


# ---- the cache ----------------------------------------------------------------------------------------------------


def test_cache_is_read_the_second_time_and_made_again_when_damaged(monkeypatch, tmp_path, images):
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path))
    pixels, labels = images
    made, said = [], []

    def make():
        made.append(1)
        return ImageSet("tiny", tuple("abcdef"), pixels, labels, pixels.clone(), labels.clone(), ("x.txt (no)",))

    first = data_cache.cached("tiny", "key", make, said.append)
    second = data_cache.cached("tiny", "key", make, said.append)
    assert len(made) == 1 and second.sha256 == first.sha256 and torch.equal(second.train_images, pixels)
    assert second.left_out == ("x.txt (no)",)
    (file,) = tmp_path.glob("tiny-*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-10] ^= 4
    file.write_bytes(raw)
    third = data_cache.cached("tiny", "key", make, said.append)
    assert len(made) == 2 and third.sha256 == first.sha256 and "making it again" in said[-1]["text"]


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(monkeypatch, tmp_path, images):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("M2KD_LITE_CACHE", str(blocked / "cache"))
    said = []
    out = data_cache.cached("tiny", "key", lambda: ImageSet("tiny", tuple("abcdef"), *images, *(t.clone() for t in images)), said.append)
    assert len(out.train_images) == 24 and "going on without a cache" in said[0]["text"]


# ---- digits, downloads --------------------------------------------------------------------------------------------


def test_digits_are_real_handwriting_at_32_pixels():
    digits = data.load("digits")
    assert digits.train_images.shape[1:] == (1, 32, 32) and len(digits.train_images) + len(digits.test_images) == 1797
    assert digits.class_names == tuple("0123456789") and digits.train_images.max() == 255


def test_digits_from_the_cache_are_those_of_scikit_learn(monkeypatch, tmp_path):
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path))
    fresh = data.load("digits")
    monkeypatch.setattr("sklearn.datasets.load_digits", None)           # not asked again
    kept = data.load("digits")
    assert kept.sha256 == fresh.sha256 and all(kept.tensors()[name].equal(tensor) for name, tensor in fresh.tensors().items())


def test_fashion_mnist_is_read_from_its_idx_files(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels, labels = np.arange(20 * 784, dtype=np.uint8).reshape(20, 28, 28), np.arange(20, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            np.array([2051, 20, 28, 28], dtype=">i4").tobytes() + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, 20], dtype=">i4").tobytes() + labels.tobytes())
    fashion = data.load("fashion-mnist", str(tmp_path))
    assert fashion.train_images.shape == (20, 1, 32, 32) and fashion.class_names[9] == "Ankle boot"
    assert np.array_equal(fashion.train_images[3, 0, 2:30, 2:30].numpy(), pixels[3])


def make_cifar_archive(folder):
    base = folder / "cifar-100-binary"
    base.mkdir()
    (base / "fine_label_names.txt").write_text("\n".join(f"class{i:02d}" for i in range(100)))
    rows = np.random.default_rng(0).integers(0, 256, (200, 2 + 3072)).astype(np.uint8)
    rows[:, 1] = np.arange(200) % 100
    for part in ("train", "test"):
        (base / f"{part}.bin").write_bytes(rows.tobytes())
    with tarfile.open(folder / "cifar-100-binary.tar.gz", "w:gz") as archive:
        archive.add(base, "cifar-100-binary")
    return rows


@pytest.fixture
def server(tmp_path):
    """A real HTTP server on this machine, serving tmp_path/served."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as live:
        threading.Thread(target=live.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{live.server_address[1]}"
        live.shutdown()


def test_cifar100_is_downloaded_checked_and_read_without_pickle(server, tmp_path, monkeypatch):
    from torchvision.datasets.utils import calculate_md5
    served, address = server
    rows = make_cifar_archive(served)
    monkeypatch.setattr(downloads, "CIFAR100_URL", f"{address}/cifar-100-binary.tar.gz")
    monkeypatch.setattr(downloads, "CIFAR100_MD5", calculate_md5(str(served / "cifar-100-binary.tar.gz")))
    root = tmp_path / "root"
    root.mkdir()
    images = data.load("cifar100", str(root))
    assert images.train_images.shape == (200, 3, 32, 32) and images.class_names[42] == "class42"
    assert np.array_equal(images.train_images[7].numpy().reshape(-1), rows[7, 2:]) and images.train_labels[7] == 7
    assert data.load("cifar100", str(root)).sha256 == images.sha256         # the second time from the folder


def test_a_download_that_was_tampered_with_is_refused(server, tmp_path, monkeypatch):
    served, address = server
    make_cifar_archive(served)
    monkeypatch.setattr(downloads, "CIFAR100_URL", f"{address}/cifar-100-binary.tar.gz")      # the published MD5 stays
    with pytest.raises(BadInput, match="cifar100: could not be downloaded"):
        data.load("cifar100", str(tmp_path))


def test_no_network_is_said_plainly(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "CIFAR100_URL", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(BadInput, match="could not be downloaded .*; give --data-root"):
        data.load("cifar100", str(tmp_path))


# ---- image folders ------------------------------------------------------------------------------------------------


def make_tree(root, sizes=((32, 32),), test="test", mode="RGB", suffix=".png"):
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), (test, 2)):
        for name in ("ant", "bee", "cat"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = sizes[i % len(sizes)]
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / part / name / f"{i}{suffix}")
    return root


def test_imagefolder_decodes_what_pillow_decodes(tmp_path):
    root = make_tree(tmp_path)
    images = data.load("imagefolder", str(root))
    assert images.class_names == ("ant", "bee", "cat") and images.train_images.shape == (12, 3, 32, 32)
    assert images.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for i, (name, number) in enumerate([("ant", 0), ("ant", 1)]):
        expected = np.asarray(Image.open(root / "train" / name / f"{number}.png")).transpose(2, 0, 1)
        assert np.array_equal(images.train_images[i].numpy(), expected)


@pytest.mark.parametrize("mode, suffix", [("L", ".png"), ("P", ".png"), ("RGBA", ".png"), ("L", ".jpg"), ("RGB", ".jpeg")])
def test_any_image_mode_becomes_rgb(tmp_path, mode, suffix):
    assert data.load("imagefolder", str(make_tree(tmp_path, mode=mode, suffix=suffix))).train_images.shape == (12, 3, 32, 32)


def test_val_stands_in_for_test_and_unlike_sizes_become_224(tmp_path):
    images = data.load("imagefolder", str(make_tree(tmp_path, sizes=((40, 60), (300, 200)), test="val")))
    assert images.train_images.shape == (12, 3, 224, 224) and images.test_images.shape == (6, 3, 224, 224)


def test_broken_and_foreign_files_are_left_out_by_name_every_time(tmp_path):
    root = make_tree(tmp_path)
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / "bee" / "torn.png").write_bytes((root / "train" / "bee" / "0.png").read_bytes()[:60])
    (root / "test" / "cat" / "empty.jpg").write_bytes(b"")
    (root / "test" / "cat" / ".DS_Store").write_bytes(b"junk")                  # file managers leave these: no word
    for _ in range(2):                                                          # decoded, then from the cache
        said = []
        images = data.load("imagefolder", str(root), on_event=said.append)
        assert len(images.train_images) == 12 and len(images.left_out) == 3
        text = " ".join(event["text"] for event in said if event["event"] == "notice")
        assert "train/ant/notes.txt (not an image file)" in text and "train/bee/torn.png" in text and "test/cat/empty.jpg" in text


def test_many_files_are_decoded_by_several_processes_in_order(tmp_path, monkeypatch):
    root = make_tree(tmp_path)
    alone = data.load("imagefolder", str(root))
    monkeypatch.setattr(tree, "CHUNK", 4)           # 18 files are now many
    monkeypatch.setattr(data_cache, "cached", lambda name, key, make, on_event: make())
    monkeypatch.setattr(imagefolder, "cached", data_cache.cached)
    said = []
    together = data.load("imagefolder", str(root), on_event=said.append)
    assert together.sha256 == alone.sha256
    first, last = ({"event": "progress", "what": "decoding images", "done": done, "total": 18} for done in (0, 18))
    assert said[0] == first and said[-1] == last            # a bar is there before the processes have started


def test_images_of_one_shape_travel_between_processes_as_one_array(tmp_path):
    root = make_tree(tmp_path, sizes=((32, 32), (32, 48)))
    paths = [str(root / "train" / "ant" / f"{i}.png") for i in range(4)]
    alike = decode_many(paths[::2], 32).pixels
    assert isinstance(alike, np.ndarray) and alike.shape == (2, 3, 32, 32)
    assert decode_many(paths, 32) is None and decode_many(paths, None).pixels.shape == (4, 3, 224, 224)
    assert decode_many(["a.txt", "b.txt"], 32).left_out == {0: "not an image file", 1: "not an image file"}


def test_the_cache_is_keyed_by_content(tmp_path, monkeypatch):
    root = make_tree(tmp_path / "tree")
    first = data.load("imagefolder", str(root))
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr(imagefolder, "_decode_all", lambda *a: pytest.fail("decoded a copy again"))
    assert data.load("imagefolder", str(tmp_path / "copy")).sha256 == first.sha256


@pytest.fixture
def clock(monkeypatch):
    """`clock(root, age)`: from now on the youngest file below `root` is `age` nanoseconds old."""
    def set_to(root, age):
        stats = [path.stat() for path in root.rglob("*") if path.is_file()]
        now = max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats) + age
        monkeypatch.setattr(imagefolder, "time", SimpleNamespace(time_ns=lambda: now))
    return set_to


@pytest.fixture
def hashings(monkeypatch):
    """A list that grows by the folder's name whenever all its files are read for their hashes."""
    seen, hash_all = [], imagefolder._hash_all
    monkeypatch.setattr(imagefolder, "_hash_all", lambda root, files: (seen.append(root.name), hash_all(root, files))[1])
    return seen


def swap_a_pixel(file):
    """Another image under the same name, with the same size and modification time."""
    before, pixels = file.stat(), np.asarray(Image.open(file)).copy()
    pixels[0, 0] ^= 1
    for level in range(10):
        Image.fromarray(pixels).save(file, compress_level=level)
        if file.stat().st_size <= before.st_size:
            break
    with open(file, "ab") as end:                           # a PNG may be followed by anything
        end.write(bytes(before.st_size - file.stat().st_size))
    while file.stat().st_ctime_ns == before.st_ctime_ns or file.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.parametrize("age", [0, 10**12])
def test_swapped_data_are_noticed_whether_or_not_the_key_was_remembered(tmp_path, clock, hashings, age):
    root = make_tree(tmp_path)
    clock(root, age)
    first = data.load("imagefolder", str(root))
    swap_a_pixel(root / "train" / "ant" / "0.png")
    second = data.load("imagefolder", str(root))
    assert second.sha256 != first.sha256 and len(hashings) == 2
    assert (second.train_images != first.train_images).any(dim=(1, 2, 3)).tolist() == [True] + [False] * 11


posix = pytest.mark.skipif(os.name != "posix", reason="there is no change time to go by: all is hashed every time")


@posix
def test_unchanged_folders_are_hashed_once(tmp_path, clock, hashings):
    trees = [make_tree(tmp_path / name) for name in ("one", "two")]
    clock(tmp_path, 10**12)
    first = [data.load("imagefolder", str(root)).sha256 for root in trees]
    assert [data.load("imagefolder", str(root)).sha256 for root in trees] == first and hashings == ["one", "two"]
    (trees[0] / "train" / "ant" / "0.png").unlink()
    assert len(data.load("imagefolder", str(trees[0])).train_images) == 11 and hashings == ["one", "two", "one"]


@posix
@pytest.mark.parametrize("age, times", [(imagefolder.SETTLED_NS, 1), (imagefolder.SETTLED_NS - 1, 2), (-10**12, 2)])
def test_young_files_may_still_change_unseen_and_are_hashed_every_time(tmp_path, clock, hashings, age, times):
    root = make_tree(tmp_path)
    clock(root, age)
    for _ in range(2):
        data.load("imagefolder", str(root))
    assert len(hashings) == times


@posix
def test_every_sign_of_change_changes_the_signature(monkeypatch):
    def signature(name="train/ant/0.png", **changes):
        stat = dict(st_size=1, st_mtime_ns=2, st_ctime_ns=3, st_ino=4) | changes
        return imagefolder._signature([layout.Entry(name, 0, SimpleNamespace(**stat))], 10**12)
    same = signature()
    assert same == signature() and same is not None
    assert same not in [signature(name="train/ant/1.png"), signature(st_size=9), signature(st_mtime_ns=9),
                        signature(st_ctime_ns=9), signature(st_ino=9)]
    monkeypatch.setattr(imagefolder, "LARGEST", 64)         # the same files now make other pixels
    assert signature() != same


def flip_a_bit(file):
    raw = bytearray(file.read_bytes())
    raw[raw.index(b'"key"') + 10] ^= 1
    file.write_bytes(raw)


@posix
@pytest.mark.parametrize("damage", [flip_a_bit, lambda file: file.write_bytes(file.read_bytes()[:50]),
                                    lambda file: file.write_bytes(b""), lambda file: file.write_text("[1]")])
def test_a_damaged_remembered_key_is_made_again(tmp_path, monkeypatch, clock, hashings, damage):
    root = make_tree(tmp_path / "tree")
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / "cache"))
    clock(root, 10**12)
    said, first = [], data.load("imagefolder", str(root))
    (file,) = (tmp_path / "cache").glob("key-of-*.json")
    damage(file)
    assert data.load("imagefolder", str(root), on_event=said.append).sha256 == first.sha256
    assert len(hashings) == 2 and [event["text"] for event in said if "making it again" in event["text"]]
    data.load("imagefolder", str(root))
    assert len(hashings) == 2, "remembered again"


@posix
def test_a_key_that_cannot_be_remembered_is_no_reason_to_fail(tmp_path, monkeypatch, clock, hashings):
    root = make_tree(tmp_path / "tree")
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / "cache"))
    clock(root, 10**12)
    first = data.load("imagefolder", str(root))
    (file,) = (tmp_path / "cache").glob("key-of-*.json")
    file.unlink()
    file.mkdir()                                            # can be neither read as a file nor replaced by one
    (file / "full").touch()
    assert data.load("imagefolder", str(root)).sha256 == first.sha256 and len(hashings) == 2


@pytest.mark.parametrize("spoil, message", [
    (lambda root: shutil.rmtree(root / "test"), "must hold a folder test or val"),
    (lambda root: shutil.rmtree(root / "test" / "cat"), "not in both: cat"),
    (lambda root: [file.write_bytes(b"x") for file in (root / "train" / "bee").iterdir()], "no usable train image in class bee"),
])
def test_trees_that_cannot_be_used(tmp_path, spoil, message):
    root = make_tree(tmp_path)
    spoil(root)
    with pytest.raises(BadInput, match=message):
        data.load("imagefolder", str(root))


@pytest.mark.system
def test_the_real_cifar_100_when_it_is_there():
    from pathlib import Path
    root = Path(__file__).parents[2] / "data" / "cifar100"
    if not (root / "train").is_dir():
        pytest.skip("data/cifar100 is not there: README, 'Your own images', says how to lay it out")
    images = data.load("imagefolder", str(root))
    assert images.train_images.shape == (50_000, 3, 32, 32) and torch.bincount(images.test_labels).tolist() == [100] * 100
    assert images.class_names[:3] == ("apple", "aquarium_fish", "baby") and not images.left_out


# ---- the class stream ---------------------------------------------------------------------------------------------


def test_the_two_orders_called_1993():
    assert class_order("seed1993", 100, 0)[:5] == [68, 56, 78, 8, 23]
    assert class_order("icarl", 100, 0)[:8] == [87, 0, 52, 58, 44, 91, 68, 97]


@pytest.mark.parametrize("name", ["natural", "seed1993", "icarl", "random"])
def test_orders_are_permutations_and_only_random_depends_on_the_seed(name):
    assert sorted(class_order(name, 30, 1)) == list(range(30))
    assert (class_order(name, 30, 1) != class_order(name, 30, 2)) == (name == "random")
    assert class_order(name, 30, 1) == class_order(name, 30, 1)


def test_a_class_batch_that_does_not_divide_gives_a_smaller_last_step():
    assert class_columns(10, 4) == [range(0, 4), range(4, 8), range(8, 10)]


def test_labels_are_positions_and_names_follow(drawn):
    stream = ClassStream.of(drawn, "seed1993", 20, seed=0)
    natural = class_order("seed1993", 100, 0)
    assert stream.class_names[:2] == (drawn.class_names[68], drawn.class_names[56])
    pixels, labels = stream.train(2)
    assert len(pixels) == 2000 and set(labels.tolist()) == set(range(20, 40))
    row = (labels == 23).nonzero()[0].item()
    assert torch.equal(pixels[row], drawn.train_images[drawn.train_labels == natural[23]][0])
    assert len(stream.test(2)[0]) == 40 * 30 and len(stream.train(2, all_seen=True)[0]) == 4000


def test_fewer_images_are_the_first_of_each_class(drawn):
    few = drawn.fewer(3, None)
    assert torch.bincount(few.train_labels).tolist() == [3] * 100 and len(few.test_images) == 3000
    assert torch.equal(few.train_images[:3], drawn.train_images[:3]) and few.sha256 == drawn.sha256


@pytest.mark.parametrize("class_batch", [0, 101])
def test_class_batches_that_cannot_be(drawn, class_batch):
    with pytest.raises(BadInput, match=f"--class-batch {class_batch}: not allowed; give a whole number from 1 to 100"):
        ClassStream.of(drawn, "natural", class_batch, 0)


def test_the_first_step_may_bring_more_classes():
    from m2kd_lite.data.stream import class_columns
    assert class_columns(100, 10, 50) == [range(50), *(range(start, start + 10) for start in range(50, 100, 10))]
    assert class_columns(10, 4, 3) == [range(3), range(3, 7), range(7, 10)] and class_columns(10, 4) == class_columns(10, 4, 4)
    assert class_columns(10, 4, 10) == [range(10)]
    stream = ClassStream.of(data.load("digits"), "natural", 2, 0, first_class_batch=5)
    assert [len(own) for own in stream.columns] == [5, 2, 2, 1] and set(stream.train(1)[1].tolist()) == set(range(5))
    with pytest.raises(BadInput, match="--first-class-batch 11: not allowed; give a whole number from 1 to 10, the classes of digits"):
        ClassStream.of(data.load("digits"), "natural", 2, 0, first_class_batch=11)

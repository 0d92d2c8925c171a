"""Pixels as a person sees them: every mode and format against what a reference viewer shows, and trees that are laid out otherwise."""
import importlib
import io
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from m2kd_lite import data
from m2kd_lite.data import decode as decoding
from m2kd_lite.data.decode import decode
from m2kd_lite.errors import BadInput

WHITE = np.array([255, 255, 255])
SHADES = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def decoded(path):
    """(H, W, 3) int of a file, and what was remarked."""
    out = decode(str(path))
    assert out.pixels is not None, out.problem
    return out.pixels.transpose(1, 2, 0).astype(int), out.remarks


def image_magick():
    """The command of a real ImageMagick, if there is one."""
    for name in ("magick", "/usr/bin/convert", "convert"):
        found = shutil.which(name)
        if found and subprocess.run([found, "-version"], capture_output=True, text=True).stdout.startswith("Version: ImageMagick"):
            return found
    return None


def seen_by_image_magick(path):
    """(H, W, 3) int: upright, on white, eight bits, the first frame."""
    command = [image_magick(), f"{path}[0]", "-auto-orient", "-background", "white", "-alpha", "remove", "-colorspace", "sRGB",
               "-type", "TrueColor", "-depth", "8", "ppm:-"]
    return np.asarray(Image.open(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))).astype(int)


needs_image_magick = pytest.mark.skipif(image_magick() is None, reason="ImageMagick is not installed")


# ---- turned upright -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_the_camera_was_held(tmp_path, orientation, suffix):
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)         # each corner its own colour
    # What the sensor saw: the inverse of each turn, by hand from the EXIF standard's table.
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
              6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a{suffix}", exif=exif, **({"quality": 95} if suffix == ".jpg" else
                                                       {"lossless": True} if suffix == ".webp" else {}))
    pixels, _ = decoded(tmp_path / f"a{suffix}")
    assert pixels.shape == upright.shape
    assert np.abs(pixels[[3, 3, 12, 12], [5, 26, 5, 26]] - upright[[3, 3, 12, 12], [5, 26, 5, 26]]).max() <= 8


def test_torn_exif_turns_nothing_and_loses_nothing(tmp_path):
    Image.fromarray(SHADES).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 20)
    assert np.array_equal(decoded(tmp_path / "a.png")[0], SHADES)


# ---- more than eight bits -----------------------------------------------------------------------------------------------


WIDE = {"16-bit PNG": (np.uint16, 65535, ".png"), "16-bit TIFF": (np.uint16, 65535, ".tif"), "16-bit PGM": (np.uint16, 65535, ".pgm"),
        "32-bit TIFF": (np.int32, 65535, ".tif"), "float TIFF": (np.float32, 1.0, ".tif"), "large floats": (np.float32, 65535.0, ".tif")}


@pytest.mark.parametrize("kind", WIDE)
def test_a_ramp_from_black_to_white_stays_one(tmp_path, kind):
    dtype, most, suffix = WIDE[kind]
    ramp = np.linspace(0, most, 256).reshape(16, 16).astype(dtype)
    Image.fromarray(ramp).save(tmp_path / f"a{suffix}")
    pixels, remarks = decoded(tmp_path / f"a{suffix}")
    assert np.array_equal(pixels[..., 0].ravel(), np.arange(256)) and (pixels == pixels[..., :1]).all()
    assert bool(remarks) == (kind not in ("16-bit PNG", "16-bit TIFF", "16-bit PGM"))      # only what was guessed is said


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 65535), st.sampled_from(["png", "tiff"]))
def test_constant_images_stay_constant_at_their_own_grey(tmp_path_factory, value, suffix):
    path = tmp_path_factory.mktemp("constant") / f"a.{suffix}"
    Image.fromarray(np.full((3, 4), value, dtype=np.uint16)).save(path)
    assert np.unique(decoded(path)[0]).tolist() == [round(value / 257)]


def test_floats_that_are_no_numbers_are_black(tmp_path):
    Image.fromarray(np.array([[np.nan, 1.0], [np.inf, -np.inf]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert decoded(tmp_path / "a.tif")[0][0, 0].tolist() == [0, 0, 0]


def write_tiff(path, raw, width, height, bits, photometric=1, sample_format=1):
    """The smallest TIFF: one strip, little-endian, for what Pillow does not write."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1),
            (278, 3, height), (279, 4, len(raw)), (339, 3, sample_format)]
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(tags)) + entries + bytes(4))


def test_the_range_is_the_formats_not_the_images(tmp_path):
    write_tiff(tmp_path / "signed.tif", np.array([-32768, 0, 32767], "<i2").tobytes(), 3, 1, 16, sample_format=2)
    assert decoded(tmp_path / "signed.tif")[0][0, :, 0].tolist() == [0, 128, 255]
    write_tiff(tmp_path / "inverse.tif", np.array([0, 257, 65535], "<u2").tobytes(), 3, 1, 16, photometric=0)
    assert decoded(tmp_path / "inverse.tif")[0][0, :, 0].tolist() == [255, 254, 0]
    write_tiff(tmp_path / "large.tif", np.array([0, 2**31, 2**32 - 1], "<u4").tobytes(), 3, 1, 32)
    assert decoded(tmp_path / "large.tif")[0][0, :, 0].tolist() == [0, 128, 255]


# ---- on white -----------------------------------------------------------------------------------------------------------


def on_white(colours, alpha):
    """By the definition: a share of the colour and a share of white."""
    share = np.asarray(alpha, dtype=float)[..., None] / 255
    return colours * share + WHITE * (1 - share)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([("RGBA", "png"), ("RGBA", "tiff"), ("RGBA", "webp"), ("LA", "png"), ("LA", "tiff"), ("RGBA", "tga")]))
def test_transparent_pixels_show_white_and_not_what_they_hide(tmp_path_factory, seed, kind):
    (mode, suffix), chance = kind, np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("clear") / f"a.{suffix}"
    pixels = chance.integers(0, 256, (5, 7, len(mode)), dtype=np.uint8)
    pixels[0, :, -1], pixels[1, :, -1] = 0, 255
    Image.fromarray(pixels).save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    seen, _ = decoded(path)
    assert np.abs(seen - on_white(np.broadcast_to(pixels[..., :-1], (5, 7, 3)), pixels[..., -1])).max() <= 1
    assert (seen[0] == 255).all() and np.array_equal(seen[1], np.broadcast_to(pixels[1, :, :-1], (7, 3)))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_clear_entry_of_a_palette_shows_white(tmp_path, suffix):
    image = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / f"a{suffix}", transparency=0)
    assert decoded(tmp_path / f"a{suffix}")[0].reshape(-1, 3).tolist() == [[255] * 3, [0, 200, 0], [0, 0, 200], [255] * 3]


def test_a_palette_may_be_clear_by_degrees_and_grey_may_name_one_clear_shade(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
    assert np.abs(decoded(tmp_path / "p.png")[0] - on_white(np.array([[[200, 0, 0], [0, 200, 0]]]), [[0, 128]])).max() <= 1
    Image.fromarray(np.array([[7, 8]], dtype=np.uint8)).save(tmp_path / "l.png", transparency=7)
    assert decoded(tmp_path / "l.png")[0][0, :, 0].tolist() == [255, 8]
    Image.fromarray(np.array([[257 * 7, 257 * 8]], dtype=np.uint16)).save(tmp_path / "w.png", transparency=257 * 7)
    assert decoded(tmp_path / "w.png")[0][0, :, 0].tolist() == [255, 8]
    Image.fromarray(SHADES).save(tmp_path / "rgb.png", transparency=tuple(map(int, SHADES[2, 3])))
    expected = SHADES.astype(int)
    expected[2, 3] = 255
    assert np.array_equal(decoded(tmp_path / "rgb.png")[0], expected)


# ---- formats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".tga", ".gif", ".jp2", ".jpg", ".jfif", ".avif", ".PNG", ".TIF"])
def test_what_pillow_reads_is_read(tmp_path, suffix):
    if suffix.lower() not in Image.registered_extensions():
        pytest.skip("this Pillow is built without it")
    flat = np.broadcast_to(SHADES[:1, :1], (32, 32, 3))             # one colour, which lossy formats keep
    Image.fromarray(np.ascontiguousarray(flat)).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert np.abs(decoded(tmp_path / f"a{suffix}")[0] - flat).max() <= 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([
    (mode, suffix) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16") for suffix in ("png", "tiff", "bmp", "webp", "gif", "ppm", "jpg")
    if not (mode in ("CMYK", "YCbCr") and suffix in ("png", "bmp", "gif", "ppm", "webp") or mode in ("LA", "RGBA", "P") and suffix in ("jpg", "ppm", "bmp")
            or mode == "I;16" and suffix in ("bmp", "webp", "gif", "jpg"))]))
def test_each_mode_in_each_format_looks_as_pillow_shows_it(tmp_path_factory, seed, kind):
    (mode, suffix), chance = kind, np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("modes") / f"a.{suffix}"
    colours = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    if mode == "I;16":
        colours = Image.fromarray(chance.integers(0, 65536, (8, 8), dtype=np.uint16))
    elif mode in ("LA", "RGBA"):
        colours.putalpha(Image.fromarray(chance.integers(0, 256, (8, 8), dtype=np.uint8)))
        colours = colours.convert(mode)
    else:
        colours = colours.convert(mode)
    colours.save(path)
    with Image.open(path) as image:
        if image.mode.startswith("I"):
            expected = np.round(np.asarray(image)[..., None].astype(float) / 257) + np.zeros(3)
        else:
            image = image.convert("RGBA")
            expected = np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")).astype(int)
    assert np.abs(decoded(path)[0] - expected).max() <= 1


@needs_image_magick
@pytest.mark.parametrize("kind", ["rgba.png", "la.png", "p.png", "p.gif", "grey16.png", "grey16.tif", "rgba.tif", "rgb.bmp", "turned.jpg", "turned.tif", "bit.png", "frames.gif"])
def test_image_magick_shows_the_same(tmp_path, kind):
    path, picture = tmp_path / kind, Image.fromarray(SHADES)
    clear = np.random.default_rng(1).integers(0, 256, SHADES.shape[:2], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    if kind in ("rgba.png", "rgba.tif"):
        picture.putalpha(Image.fromarray(clear))
        picture.save(path)
    elif kind == "la.png":
        picture = picture.convert("L")
        picture.putalpha(Image.fromarray(clear))
        picture.save(path)
    elif kind in ("p.png", "p.gif"):
        picture.convert("P").save(path, transparency=3)
    elif kind.startswith("grey16"):
        Image.fromarray(SHADES[..., 0].astype(np.uint16) * 256 + SHADES[..., 1]).save(path)
    elif kind.startswith("turned"):
        Image.fromarray(np.broadcast_to(SHADES[:, :1], (6, 9, 3)).repeat(8, 0).repeat(8, 1)).save(path, exif=exif, quality=95, subsampling=0)
    elif kind == "bit.png":
        picture.convert("1").save(path)
    elif kind == "frames.gif":
        picture.save(path, save_all=True, append_images=[ImageOps.invert(picture)])
    else:
        picture.save(path)
    assert np.abs(decoded(path)[0] - seen_by_image_magick(path)).max() <= 2


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_taken_and_said(tmp_path, suffix):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second], **({"lossless": True} if suffix == ".webp" else {}))
    pixels, remarks = decoded(tmp_path / f"a{suffix}")
    assert (pixels == [255, 0, 0]).all() and remarks == ("the first frame of several",)


def test_remarks_are_counted_and_said_at_every_load(tmp_path):
    root = tree(tmp_path / "tree", "train/ant", "train/bee", "test/ant", "test/bee")
    for name in ("train/ant/x.gif", "test/bee/y.gif"):
        Image.new("RGB", (8, 8), "red").save(root / name, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    for _ in range(2):                                                          # decoded, then from the cache
        said = []
        images = data.load("imagefolder", str(root), said.append)
        assert images.remarks == ("the first frame of several: 2 files, such as train/ant/x.gif",) and not images.left_out
        assert any("the first frame of several: 2 files" in event.get("text", "") for event in said)


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])
def test_heic_is_named_with_the_plug_in_that_reads_it(tmp_path, name):
    if importlib.util.find_spec("pillow_heif"):
        pytest.skip("pillow-heif is installed")
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))             # phones send it under .jpg, too
    assert "Pillow reads it with its plug-in pillow-heif" in decode(str(tmp_path / name)).problem


def test_a_plug_in_that_is_installed_is_used(tmp_path, monkeypatch):
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import BmpImagePlugin, Image\n"
        "class Stand(BmpImagePlugin.BmpImageFile):\n    format = 'HEIF'\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', Stand, lambda start: start[:2] == b'BM')\n    Image.register_extension('HEIF', '.heic')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    Image.fromarray(SHADES).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").rename(tmp_path / "a.heic")
    before = decoding.made_by()
    code = f"from m2kd_lite.data import decode; print(decode.decode({str(tmp_path / 'a.heic')!r}).pixels.sum(), decode.made_by(), sep='|')"
    out = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"], capture_output=True, text=True, check=True)
    total, made_by = out.stdout.strip().split("|")
    assert int(total) == SHADES.sum() and made_by == f"{before.replace(' pillow_heif', '')} pillow_heif"


def test_files_that_other_programs_would_run_are_not_opened(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    shutil.copy(tmp_path / "a.eps", tmp_path / "b.png")
    assert decode(str(tmp_path / "a.eps")).problem == "not an image file"
    assert "no image is in it" in decode(str(tmp_path / "b.png")).problem


# ---- colour profiles ----------------------------------------------------------------------------------------------------


def profile(space, tags):
    """An ICC profile of version 2 by hand, for Pillow can make few."""
    bodies, table, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    white = struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    size = offset + len(bodies)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr" if space == b"CMYK" else b"mntr", space,
                         b"Lab " if space == b"CMYK" else b"XYZ ") + bytes(12) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def text(words):
    return b"desc" + bytes(4) + struct.pack(">I", len(words) + 1) + words + bytes(1 + 78)


def xyz(values):
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


# The primaries of Display P3 as seen under D50, as columns: Apple's profile has them to five digits.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def display_p3(gamma=2.0):
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    columns = {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3.T, strict=True)}
    return profile(b"RGB ", {b"desc": text(b"Wide"), b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz((0.9642, 1, 0.8249)), **columns,
                             b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def p3_to_srgb(pixels, gamma=2.0):
    """By the definition: linear light, XYZ, sRGB's primaries, sRGB's curve."""
    linear = (pixels / 255) ** gamma @ P3.T @ np.linalg.inv(SRGB).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode, suffix", [("RGB", ".png"), ("RGB", ".tif"), ("RGB", ".jpg"), ("P", ".png"), ("RGBA", ".png")])
def test_wide_gamut_colours_are_converted_to_srgb(tmp_path, mode, suffix):
    colours = np.array([[[200, 100, 50], [30, 180, 90]], [[90, 90, 200], [128, 128, 128]]], dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(colours)
    if mode == "P":
        image = image.quantize(4)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.full(colours.shape[:2], 128, np.uint8)))
    image.save(tmp_path / f"a{suffix}", icc_profile=display_p3(), **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}))
    expected = p3_to_srgb(colours)
    if mode == "RGBA":
        expected = on_white(expected, np.full(colours.shape[:2], 128))
    seen, remarks = decoded(tmp_path / f"a{suffix}")
    assert np.abs(seen - expected).max() <= 3 and not remarks
    assert np.abs(seen - colours).max() > 10            # the profile was needed


def test_srgbs_own_profile_changes_no_bit(tmp_path):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(SHADES).save(tmp_path / "a.png", icc_profile=own)
    assert np.array_equal(decoded(tmp_path / "a.png")[0], SHADES)


def cmyk_profile():
    """Ink to Lab by a table of two points an ink: any full ink of C, M, Y or K halves the lightness left."""
    corners = [bytes([round(255 * 0.5 ** bin(i).count("1")), 128, 128]) for i in range(16)]
    straight = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65536 * (i == j)) for i in range(3) for j in range(3))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + straight * 4 + b"".join(corners) + straight * 3
    return profile(b"CMYK", {b"desc": text(b"Inks"), b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz((0.9642, 1, 0.8249)), b"A2B0": table})


def test_inks_are_seen_through_their_profile(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    seen, remarks = decoded(tmp_path / "a.tif")
    lightness = np.array([100, 50, 25, 6.25])           # of these inks, and of all four: the deepest black that there is
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    luminance = (luminance[:3] - luminance[3]) / (1 - luminance[3])             # which a screen shows as black
    expected = 255 * np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)
    assert not remarks and np.abs(seen[0] - expected[:, None]).max() <= 2
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "b.tif")
    assert decoded(tmp_path / "b.tif")[0][0, :, 0].tolist() == [255, 0, 0]          # without one: black ink is black


@pytest.mark.parametrize("bad", [b"rubbish", b"", display_p3()[:200], cmyk_profile()])
def test_a_profile_that_cannot_be_used_is_said(tmp_path, bad):
    Image.fromarray(SHADES).save(tmp_path / "a.png", icc_profile=bad)
    seen, remarks = decoded(tmp_path / "a.png")
    assert np.array_equal(seen, SHADES)
    assert remarks == (("a colour profile that cannot be used with RGB, ignored",) if bad else ())


# ---- other layouts ------------------------------------------------------------------------------------------------------


def tree(root, *folders):
    """An image in each folder."""
    for name in folders:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(root / name / "1.png")
    return root


@pytest.mark.parametrize("folders, message", [
    (["train/animals/cat", "train/animals/dog", "test/animals/cat", "test/animals/dog"],
     r"train: holds 1 class folder; at least 2 are needed; found in .*train: 1 folder \(animals\), with folders in them: animals/cat"),
    (["train/pets/cat", "train/wild/fox", "test/pets/cat", "test/wild/fox"],
     r"no usable train image in class pets, wild; found in .*train/pets: 1 folder \(cat\), with images in cat"),
    (["train", "test"], r"holds 0 class folders; at least 2 are needed; found in .*train: 1 image directly in it"),
    (["cat", "dog"], r"must hold a folder train; found in .*: 2 folders \(cat, dog\), with images in cat, dog"),
    (["train/cat", "train/dog"], r"must hold a folder test or val; found in .*: 1 folder \(train\).*\(a single train/: move a part of each class"),
    (["mine/train/cat", "mine/test/cat"], r"must hold a folder train; found in .*\(train/ is one folder deeper: give --data-root .*/mine\)"),
    (["pictures"], r"must hold a folder train; found in .*: 1 folder \(pictures\), with images in pictures"),
])
def test_a_tree_that_is_laid_out_otherwise_is_told_what_was_found_and_what_is_wanted(tmp_path, folders, message):
    tree(tmp_path / "tree", *folders)
    with pytest.raises(BadInput, match=message) as caught:
        data.load("imagefolder", str(tmp_path / "tree"))
    assert "wanted: ROOT/train/CLASS/image.jpg and ROOT/test/CLASS/image.jpg" in str(caught.value) and "\n" not in str(caught.value)


def test_what_lies_beside_the_classes_or_inside_one_is_said_and_not_used(tmp_path):
    root = tree(tmp_path / "tree", "train/ant", "train/bee", "test/ant", "test/bee", "train/ant/more")
    shutil.copy(root / "train/ant/1.png", root / "train/stray.png")
    for _ in range(2):                                                          # decoded, then from the cache
        said = []
        images = data.load("imagefolder", str(root), said.append)
        assert len(images.train_images) == 2 and images.left_out == (
            "train/stray.png (beside the class folders, in no class)", "train/ant/more/ (a folder inside a class; its files are not looked at)")
        assert any("train/stray.png" in event.get("text", "") for event in said)

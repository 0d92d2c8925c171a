"""An image file's pixels as a person sees them: turned upright, on white, in sRGB, with eight bits a colour.

`as_seen` is asked by `decode.py`, in worker processes, so nothing here loads torch. What had to be guessed or given up comes back as
remarks, in words that are the same for every file of a kind, so that they can be counted.
"""
from __future__ import annotations

import contextlib
import functools
import io
import itertools

import numpy as np
from PIL import Image, ImageCms, ImageOps

BACKGROUND = (255, 255, 255)        # what shows through a transparent image: white, as on a page
# Ranges that files of 32 bits are written in. Their formats allow far more than anybody uses, so the smallest one that holds an image
# is taken, and said.
USUAL = {"F": (1, 255, 65535), "I": (255, 65535, 2**31 - 1, 2**32 - 1)}
_BITS, _WHITE_IS_ZERO, _SAMPLE_FORMAT = 258, 262, 339       # tags of a TIFF
_SIGNED = 2


def as_seen(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """An opened image in mode RGB, and remarks about it. Raises whatever a broken file makes Pillow raise."""
    remarks = []
    if getattr(image, "is_animated", False) and image.format != "MPO":      # a phone's MPO is a photograph and its small copy
        remarks.append("the first frame of several")
    image.load()
    profile = image.info.get("icc_profile")
    _turn_upright(image)
    if image.mode[0] in "IF":
        image, more = _eight_bits(image)
        remarks += more
    alpha = _alpha(image)
    image, more = _in_srgb(image, profile)
    remarks += more
    if alpha is not None:
        page = Image.new("RGB", image.size, BACKGROUND)
        page.paste(image, mask=alpha)
        image = page
    return image, remarks


def _turn_upright(image: Image.Image) -> None:
    """Turn it as the camera was held (EXIF orientation 1 to 8), in place. EXIF that cannot be read turns nothing."""
    with contextlib.suppress(Exception):        # a hostile or torn note beside the pixels is no reason to lose them
        ImageOps.exif_transpose(image, in_place=True)


# ---- more than eight bits ----------------------------------------------------------------------------------------------


def _eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Grey of more bits, or of floats, in mode L: by the range of the format, never by that of the image, so black stays black."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits, signed = _first(tags.get(_BITS, 0)), _first(tags.get(_SAMPLE_FORMAT, 1)) == _SIGNED
    low, high, remarks = 0, 65535, []
    if image.mode.startswith("I;16"):
        high = 2 ** (bits or 16) - 1
    elif bits == 16 and signed:
        low, high = -2**15, 2**15 - 1
    elif image.mode == "F" or bits == 32 or image.format not in ("PNG", "PPM", "TIFF"):        # Pillow opens their 16 bits as "I", too
        if image.mode == "I" and bits == 32 and not signed:
            values = values.view(np.uint32)                 # Pillow takes them for signed
        usual, largest = USUAL[image.mode], np.nanmax(values, initial=0)
        high = next((most for most in usual if largest <= most), usual[-1])
        what = "floats" if image.mode == "F" else "32 bits"
        remarks = [f"{what}: 0 to {high} taken for black to white"]
    inverse = image.format == "TIFF" and _first(tags.get(_WHITE_IS_ZERO, 1)) == 0          # Pillow minds it with eight bits only
    seen = np.empty(values.shape, dtype=np.uint8)
    for rows in range(0, len(values), 64):                  # a few at a time: as floats of 64 bits an image takes eight times its room
        part = np.nan_to_num(values[rows:rows + 64].astype(np.float64), nan=0.0)
        shade = ((part - low) * (255 / (high - low))).clip(0, 255)
        seen[rows:rows + 64] = np.floor((255 - shade if inverse else shade) + 0.5)
    grey = Image.fromarray(seen)
    clear = image.info.get("transparency")
    if isinstance(clear, int):                              # a 16-bit PNG may name one grey that is clear
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey, remarks


def _first(tag) -> int:
    return tag[0] if isinstance(tag, tuple) and tag else tag


# ---- transparency ------------------------------------------------------------------------------------------------------


def _alpha(image: Image.Image) -> Image.Image | None:
    """How opaque each pixel is, as mode L; None for an image that hides nothing."""
    if image.mode in ("RGBa", "La"):
        return image.convert("RGBA" if image.mode == "RGBa" else "LA").getchannel("A")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return (image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).getchannel("A")
    return None


# ---- colour profiles ---------------------------------------------------------------------------------------------------


def _in_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """In mode RGB without alpha: by the file's own profile where it has one, otherwise as Pillow converts."""
    if image.mode == "LAB":                                 # its own colour space, which needs no profile
        return _transformed(image, _from_lab()), []
    if image.mode in ("La", "RGBa"):                        # multiplied by alpha; Pillow undoes that in this order only
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    plain = image if image.mode in ("L", "CMYK") else _without_alpha(image)
    if not profile:
        return plain.convert("RGB"), []
    try:
        transform = _transform(profile, plain.mode)
    except Exception:       # lcms and Pillow raise several types, and a profile is a file of somebody else's making
        return plain.convert("RGB"), [f"a colour profile that cannot be used with {plain.mode}, ignored"]
    return (plain.convert("RGB") if transform is None else _transformed(plain, transform)), []


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    new = ImageCms.applyTransform(image, transform)
    assert new is not None          # only a transform in place gives none
    return new


def _without_alpha(image: Image.Image) -> Image.Image:
    """The colours alone, those that are hidden too. A palette's grey is taken for colour."""
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode == "RGB":
        return image
    return image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")


@functools.lru_cache(maxsize=32)                            # a folder's images come from few cameras
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where that changes nothing, as most profiles are sRGB's own."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    steps = range(0, 256, 51) if mode == "RGB" else range(256)
    colours = list(itertools.product(steps, repeat=3 if mode == "RGB" else 1))
    grid = Image.fromarray(np.array(colours, dtype=np.uint8).reshape((1, -1, 3) if mode == "RGB" else (1, -1)))
    change = np.asarray(ImageCms.applyTransform(grid, transform)).astype(int) - np.asarray(grid.convert("RGB"))
    return None if np.abs(change).max() <= 1 else transform


@functools.lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")

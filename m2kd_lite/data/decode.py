"""Files to pixels. Apart from the rest because worker processes import it, and need not load torch for it."""
from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from m2kd_lite.data.pixels import as_seen

# Square images of one size up to this are kept as they are; all others are brought to it (`resize.py`).
LARGEST, SHORTER_SIDE = 224, 256
# A phone's largest photograph has 108 million pixels, which take 1.5 GB on their way to 224x224. What is narrower than a hundredth of its
# length would be resized to something larger than memory.
MOST_PIXELS, MOST_ASPECT = 128_000_000, 100
VERSION = 2             # of what pixels are made of a file; caches of another one are not used again
# What Pillow opens but is no picture of pixels, or is drawn by another program that would run a stranger's file.
_NOT_PIXELS = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
# Suffix: the module that teaches Pillow to read it, and its name in the package index.
PLUG_INS = {".heic": ("pillow_heif", "pillow-heif"), ".heif": ("pillow_heif", "pillow-heif"), ".hif": ("pillow_heif", "pillow-heif"),
            ".avif": ("pillow_avif", "pillow-avif-plugin"), ".jxl": ("pillow_jxl", "pillow-jxl-plugin")}
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1")         # a phone's pictures, whatever the file is called


class Decoded(NamedTuple):
    """What became of a file.

    Attributes
    ----------
    pixels : (3, H, W) uint8 in RGB; None where there are none.
    problem : why not: "not an image file", "cannot be decoded: ...".
    remarks : what was guessed or given up, in words that are the same for every file of a kind.
    """

    pixels: np.ndarray | None
    problem: str = ""
    remarks: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Files decoded one after another.

    Attributes
    ----------
    pixels : (n, 3, side, side) uint8, of those that could be; one array, which costs the receiving process half of what a list does.
    left_out : position among the files to why it could not be.
    remarks : position to remarks.
    """

    pixels: np.ndarray
    left_out: dict[int, str]
    remarks: dict[int, tuple[str, ...]]


def decode(path: str) -> Decoded:
    """The first picture of a file as a person sees it (`pixels.py`). Whatever the file provokes, it is left out and the run goes on."""
    suffix = Path(path).suffix.lower()
    if suffix not in _suffixes():
        return Decoded(None, _needs_plug_in(suffix) if suffix in PLUG_INS else "not an image file")
    try:
        # What Pillow warns of is decided here.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS or max(image.size) > MOST_ASPECT * min(image.size):
                return Decoded(None, f"{image.width}x{image.height} pixels: at most {MOST_PIXELS:,} are read, and a length of "
                                     f"{MOST_ASPECT} times the width")
            seen, remarks = as_seen(image)
            return Decoded(np.ascontiguousarray(np.asarray(seen).transpose(2, 0, 1)), "", tuple(remarks))
    except UnidentifiedImageError:
        return Decoded(None, _unidentified(path))
    except Exception as error:      # a broken file can break a decoder anywhere; the run goes on without it
        return Decoded(None, f"cannot be decoded: {type(error).__name__}")


def decode_many(paths: Sequence[str], side: int | None) -> Batch | None:
    """`decode`, one file after another.

    Parameters
    ----------
    side : of all images, if they are to be kept as they are; None to resize and crop each (`resize.py`).

    Returns
    -------
    Batch, or None where an image is not square or of another side.
    """
    pixels, left_out, remarks = [], {}, {}
    for position, path in enumerate(paths):
        decoded = decode(path)
        if decoded.pixels is None:
            left_out[position] = decoded.problem
            continue
        if decoded.remarks:
            remarks[position] = decoded.remarks
        if side is None:
            from m2kd_lite.data.resize import central        # loads torch, in those workers only that need it
            pixels.append(central(decoded.pixels))
        elif decoded.pixels.shape == (3, side, side):
            pixels.append(decoded.pixels)
        else:
            return None
    return Batch(np.stack(pixels) if pixels else np.empty((0, 3, side or 1, side or 1), np.uint8), left_out, remarks)


def looks_like_an_image(name: str) -> bool:
    """Whether a file is called like one, plug-ins' suffixes included."""
    suffix = Path(name).suffix.lower()
    return suffix in PLUG_INS or suffix in _suffixes()


def made_by() -> str:
    """What decoded pixels depend on beside the files: our own rules, Pillow, and its plug-ins that are installed."""
    there = sorted({module for module, _ in PLUG_INS.values() if importlib.util.find_spec(module)})
    return " ".join([str(VERSION), PIL.__version__, *there])


@functools.cache
def _formats() -> tuple[str, ...]:
    """What Pillow opens, with the plug-ins that are installed."""
    Image.init()
    for module in {module for module, _ in PLUG_INS.values()}:
        with contextlib.suppress(Exception):        # a plug-in that cannot be loaded is as good as none
            getattr(importlib.import_module(module), "register_heif_opener", lambda: None)()        # the others register themselves
    return tuple(name for name in Image.OPEN if name not in _NOT_PIXELS)


@functools.cache
def _suffixes() -> frozenset[str]:
    formats = _formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def _needs_plug_in(suffix: str) -> str:
    return f"{suffix[1:].upper()}: Pillow reads it with its plug-in {PLUG_INS[suffix][1]}; install it, or convert the files"


def _unidentified(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(12)
    return _needs_plug_in(".heic") if start[4:] in _HEIC_BRANDS else "cannot be decoded: no image is in it"

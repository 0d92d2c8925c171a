"""Data sets, decoded once as uint8, in memory or on disk: `load(name)` gives an `ImageSet`, whatever the source.

`SOURCES` is the table. The class stream, which turns a data set into incremental steps, is in `stream.py`.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent, ignore


@dataclass(frozen=True)
class Source:
    """One row of the table: what a data set is and how it is read."""

    about: str
    where: str                  # "embedded", "download" or "folder"
    read: Callable


def _glyphs(data_root, on_event):
    from m2kd_lite.data import embedded
    return embedded.glyphs(on_event)


def _digits(data_root, on_event):
    from m2kd_lite.data import embedded
    return embedded.digits(on_event)


def _fashion_mnist(data_root, on_event):
    from m2kd_lite.data import downloads
    return downloads.fashion_mnist(data_root, on_event)


def _cifar100(data_root, on_event):
    from m2kd_lite.data import downloads
    return downloads.cifar100(data_root, on_event)


def _imagefolder(data_root, on_event):
    from m2kd_lite.data import imagefolder
    return imagefolder.load(data_root, on_event)


SOURCES = {
    "glyphs": Source("100 classes of drawn characters, 32x32 colour, 100 + 30 images a class", "embedded", _glyphs),
    "digits": Source("10 classes of real handwriting (scikit-learn), resized to 32x32 grey", "embedded", _digits),
    "fashion-mnist": Source("10 classes of clothing, padded to 32x32 grey, 6000 + 1000 images a class", "download", _fashion_mnist),
    "cifar100": Source("100 classes of photographs, 32x32 colour, 500 + 100 images a class", "download", _cifar100),
    "imagefolder": Source("your own ROOT/{train,test|val}/CLASS/ images (--data-root ROOT)", "folder", _imagefolder),
}


def load(name: str, data_root: str | None = None, on_event: OnEvent = ignore):
    """Read a data set, from its cache where it has been read before.

    Parameters
    ----------
    name : a key of `SOURCES`.
    data_root : a folder, for the sources that are not embedded.
    on_event : receives progress and notices (`events.py`).

    Returns
    -------
    ImageSet : uint8 images (N, C, H, W) with int64 labels.

    Raises
    ------
    BadInput : no such data set, no such folder, or nothing usable in it.
    """
    if name not in SOURCES:
        raise BadInput(f"{name}: no such data set; give one of {', '.join(SOURCES)}")
    return SOURCES[name].read(data_root, on_event)


load_data = load            # as the package offers it: `m2kd_lite.load_data("glyphs")`

"""How a folder of images has to be laid out, what is there instead, and in which words that is said.

ROOT/train/CLASS/image and ROOT/test/CLASS/image, or val. Called by `imagefolder.py`.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from m2kd_lite.data.cache import looked_in
from m2kd_lite.data.decode import looks_like_an_image
from m2kd_lite.errors import BadInput, printable

WANTED = "wanted: ROOT/train/CLASS/image.jpg and ROOT/test/CLASS/image.jpg (or ROOT/val/...), with --data-root ROOT"
TEST = ("test", "val")
LOOKS = 1000            # entries of a folder that are looked at to say what it holds


class Entry(NamedTuple):
    """One file of a class: its name below the root, with slashes, and what the file system says of it."""

    name: str
    label: int
    stat: os.stat_result


def parts_of(data_root: str) -> tuple[Path, Path, tuple[str, ...]]:
    """The folders of training and of test images, and the classes, in the order of their names.

    Raises
    ------
    BadInput : no such folder; or it is laid out in another way: what was found, where, and what is wanted.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise BadInput(f"--data-root {printable(data_root)}: not allowed; give a folder that exists{looked_in(data_root)}")
    train, test = _part(root, ("train",)), _part(root, TEST)
    class_names = _folders(train)
    if class_names != _folders(test):
        odd = sorted(set(class_names) ^ set(_folders(test)))
        raise BadInput(f"{shown(root)}: {train.name} and {test.name} must hold the same class folders; not in both: {few(odd)}")
    if len(class_names) < 2:
        raise BadInput(f"{shown(train)}: holds {counted(len(class_names), 'class folder')}; at least 2 are needed; {_found(train)}; {WANTED}")
    return train, test, class_names


def entries_of(part: Path, class_names: tuple[str, ...]) -> list[Entry]:
    """All files by class and name, but hidden ones, which file managers leave behind."""
    files = []
    for label, name in enumerate(class_names):
        with os.scandir(part / name) as entries:
            files += sorted(Entry(f"{part.name}/{name}/{entry.name}", label, entry.stat())
                            for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return files


def out_of_place(part: Path, class_names: tuple[str, ...]) -> list[str]:
    """What lies where no image is looked for: files beside the classes, folders inside a class. Each with the reason."""
    odd = [f"{shown(part.name)}/{shown(name)} (beside the class folders, in no class)" for name in _names(part, os.DirEntry.is_file)]
    for label in class_names:
        odd += [f"{shown(part.name)}/{shown(label)}/{shown(name)}/ (a folder inside a class; its files are not looked at)"
                for name in _names(part / label, os.DirEntry.is_dir)]
    return odd


def nothing_in(part: Path, class_names: Sequence[str]) -> BadInput:
    """The error for classes of a part without a usable image: says what is there instead."""
    return BadInput(f"{shown(part.parent)}: no usable {part.name} image in class {few(class_names)}; {_found(part / class_names[0])}; "
                    f"{WANTED}")


def few(names: Iterable[str]) -> str:
    """The first five names, and how many more there are."""
    names = [printable(name, lines=False) for name in names]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def counted(number: int, what: str) -> str:
    """"1 file", "2 files"."""
    return f"{number} {what}" + ("s" if number != 1 else "")


def shown(name: str | Path) -> str:
    """A name of somebody else's making, as it may be printed on a line of ours."""
    return printable(str(name), lines=False)


def _part(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise BadInput(f"--data-root {shown(root)}: not allowed; it must hold a folder {' or '.join(names)}; {_found(root)}{_advice(root)}; "
                   f"{WANTED}")


def _advice(root: Path) -> str:
    """For the trees that people bring most: one level too high, or not yet divided."""
    folders = _folders(root)
    deeper = [name for name in folders if (root / name / "train").is_dir()]
    if deeper:
        return f" (train/ is one folder deeper: give --data-root {shown(root / deeper[0])})"
    if folders == ("train",):
        return " (a single train/: move a part of each class, as a fifth, into test/)"
    return ""


def _found(folder: Path) -> str:
    """What a folder holds, and what its first folders hold, in a few words."""
    if not folder.is_dir():         # as where its name was escaped to be shown
        return f"found in {shown(folder)}: nothing"
    folders, files = _folders(folder), _names(folder, os.DirEntry.is_file)
    images = sum(map(looks_like_an_image, files))
    said = []
    if folders:
        inner = [name for name in folders[:LOOKS] if any(map(looks_like_an_image, _names(folder / name, os.DirEntry.is_file)))]
        nested = [f"{name}/{below}" for name in folders[:LOOKS] if name not in inner for below in _folders(folder / name)[:1]]
        said.append(f"{counted(len(folders), 'folder')} ({few(folders)})"
                    + (f", with images in {few(inner)}" if inner else "") + (f", with folders in them: {few(nested)}" if nested else ""))
    if images:
        said.append(f"{counted(images, 'image')} directly in it")
    if len(files) > images:
        said.append(counted(len(files) - images, "other file"))
    return f"found in {shown(folder)}: {'; '.join(said) or 'nothing'}"


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(_names(folder, os.DirEntry.is_dir))


def _names(folder: Path, kind) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if kind(entry) and not entry.name.startswith("."))

"""Where things are: what comes with the package, the lessons one works in, and where runs land.

In a clone, lessons, experiments, results banks and the paper's tables lie at its top; an installed wheel has the same folders in
`m2kd_lite/project/`. A copy of the lessons (`m2kd-lite lessons`) is laid out in the same way, and comes first for whoever works in it.
"""
from __future__ import annotations

import importlib.resources
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from m2kd_lite.errors import BadInput

FULL_RUN = "notebooks/06_full_run.ipynb"
RUNS = "M2KD_LITE_RUNS"         # environment variable: where runs land, whatever else there is
CACHE = "M2KD_LITE_CACHE"       # environment variable: where decoded images are kept


def shipped() -> Path:
    """The folder of what comes with the package: notebooks/, experiments/, data/results/, data/paper/, docs/."""
    package = Path(str(importlib.resources.files("m2kd_lite")))
    inside = package / "project"
    return inside if inside.is_dir() else package.parent


def lessons() -> Path:
    """The nearest folder, from the current one upwards, that holds the lessons; else what came with the package."""
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / FULL_RUN).is_file()), shipped())


def find(name: str) -> Path:
    """A file or folder of the project, as "data/results/lessons.csv": of the lessons one works in, or as it came with the package.

    Raises
    ------
    BadInput : neither has it.
    """
    for root in (lessons(), shipped()):
        if (root / name).exists():
            return root / name
    raise BadInput(f"{name}: neither in {lessons()} nor in the package; reinstall it")


def runs() -> Path:
    """Where runs land: $M2KD_LITE_RUNS; else runs/ beside the lessons; else the user's data folder; whichever can be written to.

    Who has neither, as in a container without a home, gets a temporary folder, and so does whatever this process starts.
    """
    if os.environ.get(RUNS):
        return Path(os.environ[RUNS])
    beside = lessons() / "runs"
    if not _is_inside_package(beside) and can_write(beside):
        return beside
    mine = _of_the_user(platformdirs.user_data_path)
    if mine and can_write(mine / "runs"):
        return mine / "runs"
    os.environ[RUNS] = tempfile.mkdtemp(prefix="m2kd-lite-runs-")
    return Path(os.environ[RUNS])


def cache() -> Path:
    """Where decoded images are kept: $M2KD_LITE_CACHE, or the platform's own place for caches; without a home, a temporary folder."""
    if not os.environ.get(CACHE):
        mine = _of_the_user(platformdirs.user_cache_path)
        if mine:
            return mine
        os.environ[CACHE] = tempfile.mkdtemp(prefix="m2kd-lite-cache-")
    return Path(os.environ[CACHE])


def _of_the_user(folder: Callable[..., Path]) -> Path | None:
    """One of the user's own folders; None for a user without a home, of whom platformdirs complains or, once, made a folder "~" here."""
    try:
        path = folder("m2kd-lite", appauthor=False)
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def _is_inside_package(path: Path) -> bool:
    return Path(str(importlib.resources.files("m2kd_lite"))) in path.parents


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, which is made if it is not there. Permissions alone do not tell: a disk may be read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

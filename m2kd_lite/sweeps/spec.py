"""What a sweep is: a YAML file becomes cells, one run each, all of them checked before anything starts.

`base` holds settings of every cell, `grid` lists values of which every combination is a cell (or is a list of such grids),
`exclude` leaves out what matches, `include` adds cells. A cell is known by a hash of its settings, its images and the code,
and lies in a folder of that name: so what was finished is found again, and what changed is another cell. Called by `cli.py`.
"""
from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from m2kd_lite import data
from m2kd_lite.config import RunConfig, allowed
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, LayerExhausted
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.method.table import METHODS, check_possible, unused_settings
from m2kd_lite.sweeps.cell import code_sha256
from m2kd_lite.sweeps.specfile import MOST_CELLS, Settings, named_in, read



@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes
    ----------
    key : 16 hexadecimal digits, the name of its folder.
    label : what tells it from the others, in words.
    config : its settings; `data_root` is absolute.
    steps : incremental steps.
    image_shape : (C, H, W).
    passes : how many training images' time it takes: those trained on, and a third for those that are only looked at.
    """

    key: str
    label: str
    config: RunConfig
    steps: int
    image_shape: tuple[int, int, int]
    passes: float


@dataclass(frozen=True)
class Plan:
    """A whole sweep: its cells in the order of the file, how many more would have been the same, and the code's hash."""

    cells: tuple[Cell, ...]
    same: int
    code: str


def plan(path: Path, on_event: OnEvent = ignore) -> Plan:
    """Read and check a specification. Reads the data sets it names, so that no worker has to decode them.

    Raises
    ------
    BadInput : not such a file; a key or a value that is not allowed; or cells that cannot be run, one line each.
    """
    configs, impossible, asked = _asked(Path(path), on_event)
    code, cells = code_sha256(), {}
    for (dataset, data_root), group in _by_data(configs).items():
        images = data.load(dataset, data_root, on_event)
        for config in group:
            try:
                cells[config] = _cell(config, configs[config], images, code)
            except (BadInput, LayerExhausted) as error:
                impossible.append(f"{configs[config]}: {error}")
    _refuse(path, impossible, asked)
    return Plan(tuple(cells[config] for config in configs), asked - len(configs), code)


def runs(path: Path) -> tuple[RunConfig, ...]:
    """The runs of a specification, each once, as far as they are known before any image is read.

    Raises
    ------
    BadInput : not such a file, or a key or a value that is not allowed.
    """
    configs, impossible, asked = _asked(Path(path), ignore)
    _refuse(path, impossible, asked)
    return tuple(configs)


def _asked(path: Path, on_event: OnEvent) -> tuple[dict[RunConfig, str], list[str], int]:
    """The runs with their labels, what is wrong with the cells that are none, and how many cells the file has."""
    spec = read(path)
    count = sum(math.prod(map(len, grid.values())) for grid in spec["grid"]) + len(spec["include"])
    if count > MOST_CELLS:
        raise BadInput(f"{path}: asks for {count} cells; at most {MOST_CELLS} are allowed")
    asked, named = [*_grid_cells(spec, on_event), *_included_cells(spec)], named_in(spec)
    impossible: list[str] = []
    configs: dict[RunConfig, str] = {}
    for settings in asked:
        try:
            config = _without_what_makes_no_difference(_absolute(RunConfig.make(settings)))
            configs.setdefault(config, _label(config.model_dump(mode="json"), named))
        except BadInput as error:
            impossible.append(f"{_label(settings, named)}: {error}")
    if not asked:
        raise BadInput(f"{path}: no cell is left; give grid or include")
    return configs, impossible, len(asked)


def _refuse(path: Path, impossible: Sequence[str], asked: int) -> None:
    if impossible:
        raise BadInput("\n  ".join([f"{path}: {len(impossible)} of {asked} cells cannot be run, and nothing was started; "
                                    "exclude can leave them out:", *impossible]))


# ---- cells ----------------------------------------------------------------------------------------------------------


def _grid_cells(spec: Mapping[str, Any], on_event: OnEvent) -> Iterator[Settings]:
    """Every combination of each grid over `base`, but for what an entry of `exclude` matches."""
    entries = unused = [_typed(entry) for entry in spec["exclude"]]
    for grid in spec["grid"]:
        for values in itertools.product(*grid.values()):
            settings = spec["base"] | dict(zip(grid, values, strict=True))
            try:
                have = RunConfig.make(settings).model_dump()
            except BadInput:        # no run at all: it is left out by what is written, or an error later
                have = _typed(settings, strict=False)
            matching = [entry for entry in entries if entry.items() <= have.items()]
            unused = [entry for entry in unused if entry not in matching]
            if not matching:
                yield settings
    for entry in unused:
        on_event({"event": "notice", "text": f"exclude: no cell has {_label(entry, entry)}"})


def _included_cells(spec: Mapping[str, Any]) -> Iterator[Settings]:
    return (spec["base"] | entry for entry in spec["include"])


def _typed(settings: Settings, strict: bool = True) -> Settings:
    """Values as `RunConfig` holds them, so that 5 and "5" are the same; one that cannot be is an error if `strict`."""
    typed = {}
    for name, value in settings.items():
        try:
            value = value.split(",") if name == "milestones" and isinstance(value, str) else value
            kind: Any = RunConfig.model_fields[name].annotation
            typed[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError:
            if strict:
                raise BadInput(f"exclude: {name}: {value}: not allowed; give {allowed(name)}") from None
            typed[name] = str(value)
    return typed


def _absolute(config: RunConfig) -> RunConfig:
    """A folder of images is meant from where the command is typed; workers are elsewhere."""
    return config.model_copy(update={"data_root": str(Path(config.data_root).resolve())}) if config.data_root else config


def _without_what_makes_no_difference(config: RunConfig) -> RunConfig:
    """The same run for all values of settings that its method does not look at: those settings at their defaults."""
    idle = unused_settings(METHODS[config.method])
    given = {name: value for name, value in config.model_dump().items() if name not in idle}
    return RunConfig.make(given) if idle else config


def _by_data(configs: Iterable[RunConfig]) -> dict[tuple[str, str | None], list[RunConfig]]:
    groups: dict[tuple[str, str | None], list[RunConfig]] = {}
    for config in configs:
        groups.setdefault((config.dataset, config.data_root), []).append(config)
    return groups


def _cell(config: RunConfig, label: str, images: ImageSet, code: str) -> Cell:
    """Raises BadInput or LayerExhausted where this run cannot be."""
    stream = ClassStream.of(images, config.class_order, config.class_batch, config.seed, config.first_class_batch)
    method, steps = METHODS[config.method], stream.last_step(config.steps)
    channels, height, width = images.train_images.shape[1:]
    classes = len(images.class_names)
    check_possible(method, config, images.train_images.shape, classes, steps)
    a_class = min(config.train_per_class or len(images.train_images), len(images.train_images) // classes)
    a_test = min(config.test_per_class or len(images.test_images), len(images.test_images) // classes)
    passes = 0.0
    for step in range(1, steps + 1):
        columns = stream.columns[:step]
        trained = a_class * (columns[-1].stop if method.memory == "all images" else len(columns[-1]))
        if step > 1:
            trained += min(config.exemplars, a_class * columns[-1].start)
        if method.paints:       # its update takes about as long; drawn images of old classes are trained on besides
            passes += config.generator_epochs * trained
            trained += a_class * columns[-1].start
        epochs = config.epochs + (config.finetune_epochs if method.prunes else 0)
        views = epochs if config.augment == "crop" else 2           # of each image, that every teacher is asked about
        looked_at = views * trained * len(method.teachers(columns)) + a_test * columns[-1].stop
        passes += trained * epochs + looked_at / 3          # forward alone is a third of forward and backward
    return Cell(cell_key(config, images.sha256, code), label, config, steps, (channels, height, width), passes)


def _label(settings: Mapping[str, Any], names) -> str:
    return ", ".join(f"{name} {settings[name]}" for name in names if name in settings) or "the one cell"


# ---- what a cell is known by ----------------------------------------------------------------------------------------


def cell_key(config: RunConfig, data_sha256: str, code: str) -> str:
    """The hash that names a cell's folder: 16 hexadecimal digits.

    Of the settings, all but `data_root` count: where images lie is no part of an experiment, their content is.
    `data_sha256` is of the decoded images, as the run records it: reading them once before the workers do leaves them in
    the cache for all. `device` counts as it was asked for, because other hardware rounds otherwise; with `auto`, cells may
    be begun here and finished elsewhere. Versions of libraries do not count: metrics.json names them.
    """
    settings = config.model_dump(mode="json", exclude={"data_root"})
    parts = json.dumps([settings, data_sha256, code], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]

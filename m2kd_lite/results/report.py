"""Finished runs side by side, as one self-contained HTML page: curves, confusion matrices, forgetting, bytes.

Runs that differ in their seed alone are one line, bar or matrix, so that a whole sweep can be looked at. Beside the page lies
results.csv, the same runs as a results bank (`bank.py`), which grows with each report in the folder.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from m2kd_lite.config import METHOD_NAMES, RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.files import storage
from m2kd_lite.method.table import METHODS, unused_settings
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.explorer import Curve
from m2kd_lite.pictures.frontier import Point, accuracy_against_bytes
from m2kd_lite.pictures.paper import accuracy_panels
from m2kd_lite.results import bank, paper
from m2kd_lite.training.rundir import FinishedRun, read_run

BANK = "results.csv"
_NAMING = ("dataset", "class_batch", "first_class_batch", "profile", "seed", "pruning_ratio")    # told apart by these first
_NOT_NAMING = ("method", "data_root", "device")
PANELS, BARS = 3, 4             # side by side in a figure; bars beside each other

# Table 2: "we directly calculate the storage difference between the last and the initial step", ten classes a step.
PAPER_TABLE_2 = {"the paper's M²KD, ResNet-32, CIFAR-100": 0.84e6, "the paper's M²KD, ResNet-18, ImageNet subset": 9.80e6,
                 "the paper's iCaRL, CIFAR-100": 9.4e6, "the paper's iCaRL, ImageNet subset": 68.0e6}


def write_report(folders: Sequence[Path], out: Path, mix_profiles: bool = False, lead: Sequence[str] = (),
                 before: pd.DataFrame | None = None, frontier: bool = False) -> None:
    """Read finished runs, write the page, and add the runs to results.csv beside it.

    Parameters
    ----------
    folders : run folders. They are shown by data set, class batch, method and settings.
    out : an .html file; replaced if it exists, for a report can always be made again.
    lead : paragraphs that the page begins with.
    before : a bank. Where it has two or more runs with the settings of one, their spread is drawn behind its curve.
    frontier : also draw accuracy against the bytes carried.

    Raises
    ------
    BadInput : a folder is no finished run, or is named twice; or `out` is no .html file; or the bank would hold runs of
        more than one profile without `mix_profiles`.
    CannotWrite : `out` cannot be written.
    """
    storage.check_local(out)
    paths = [Path(folder).resolve() for folder in folders]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise BadInput(f"{twice[0]}: named twice")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {out}: not allowed; give a file that ends in .html")
    runs = [read_run(path) for path in paths]
    page = render(runs, lead, before, frontier).encode()
    bank.add([row for run in runs for row in bank.rows(run.metrics)], Path(out).with_name(BANK), mix_profiles)
    storage.write_bytes(Path(out), page)


def render(runs: Sequence[FinishedRun], lead: Sequence[str] = (), before: pd.DataFrame | None = None, frontier: bool = False) -> str:
    """The page as text; see `write_report`."""
    runs = sorted(runs, key=lambda run: _place(run.config))
    by_name = dict(zip(labels([run.config for run in runs]), runs, strict=True))
    seeds = {name: group for name, group in by_setting(runs).items() if len(group) > 1}
    known = {name: _before(before, group[0].config) for name, group in by_setting(runs).items()}
    known = {name: found for name, found in known.items() if found}
    figures = list(_figures(runs, known, frontier))
    environment = jinja2.Environment(loader=jinja2.PackageLoader("m2kd_lite"), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(
        runs=by_name, lead=lead, known=known,
        means={f"{name}: {len(group)} runs": _means(group) for name, group in seeds.items()}
        | {f"{name}: {len(found)} runs measured before": _means_before(found) for name, found in known.items()},
        figures=[plots.html_image(figure) for figure in figures], alts=[plots.alt_text(figure) for figure in figures],
        components=plots.COMPONENTS, added={name: _added(run) for name, run in by_name.items()}, paper=PAPER_TABLE_2,
        most_steps=max(len(run.metrics["steps"]) for run in runs), settings=_settings(by_name), environments=_environments(by_name))


def labels(configs: Sequence[RunConfig]) -> list[str]:
    """A short distinct name for each run: its method, and what else it differs in from runs of that method."""
    out: list = []
    fields = [*_NAMING, *(name for name in RunConfig.model_fields if name not in _NAMING + _NOT_NAMING)]
    for config in configs:
        same_method = [other for other in configs if other.method == config.method]
        differing = [f"{name.replace('_', ' ')} {getattr(config, name)}" for name in fields
                     if name not in unused_settings(METHODS[config.method])
                     and len({str(getattr(other, name)) for other in same_method}) > 1]
        name = ", ".join([METHODS[config.method].title, *differing[:3]])
        out.append(name if name not in out else f"{name} ({len(out) + 1})")
    return out


def by_setting(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs of the same images that differ in their seed alone, under one name each."""
    found: dict[tuple, list[FinishedRun]] = {}
    for run in runs:
        setting = {"variant": "", **run.config.model_dump(), "data_sha256": run.metrics["data_sha256"], "seed": "",
                   "precision": bank.provenance(run.metrics)["precision"]}
        found.setdefault(bank.key(setting), []).append(run)
    names = labels([group[0].config.model_copy(update={"seed": 0}) for group in found.values()])
    return dict(zip(names, found.values(), strict=True))


def _figures(runs: Sequence[FinishedRun], known: Mapping[str, list[paper.Run]], frontier: bool = False) -> Iterator[Figure]:
    """Curves of every stream, a panel each; then stream by stream what is left, matrices and bytes. Seeds are taken together."""
    streams: dict[str, list[FinishedRun]] = {}
    for run in runs:
        first = f", {run.config.first_class_batch} in the first" if run.config.first_class_batch else ""
        streams.setdefault(f"{run.config.dataset}, {run.config.class_batch} classes a step{first}", []).append(run)
    parts = {name: by_setting(part) for name, part in streams.items()}
    names = dict.fromkeys(name for part in parts.values() for name in part)         # a name has one style in all panels
    styles = {name: i % len(plots.STYLES) for i, name in enumerate(names)}
    panels: dict[str, tuple] = {}
    for stream, settings in parts.items():
        for i, part in enumerate(_chunks(list(settings.items()), len(plots.STYLES))):
            curves = {name: Curve.of_runs(styles[name], [run.metrics["steps"] for run in group], before=known.get(name, []))
                      for name, group in part}
            panels[f"{stream} ({i + 1})" if i else stream] = curves, []
    for part in _chunks(list(panels.items()), PANELS):
        yield accuracy_panels(dict(part), "Accuracy falls as classes arrive")
    for stream, settings in parts.items():
        which = f": {stream}" if len(parts) > 1 else ""
        if frontier:
            points = {name: Point.of_runs([bank.rows(run.metrics) for run in group]) for name, group in settings.items()}
            yield accuracy_against_bytes(points, "Accuracy against bytes carried" + which)
        seen = [step["classes_seen"] for step in max((run.metrics["steps"] for run in streams[stream]), key=len)]
        ends = {name: [run.metrics["steps"][-1] for run in group] for name, group in settings.items()}
        for part in _chunks(list(ends.items()), BARS):
            means = {name: np.mean([end["accuracy_by_step"] for end in group], axis=0) for name, group in part}
            yield plots.accuracy_by_step(means, "What is left of each step's classes at the end" + which)
        for part in _chunks(list(ends.items()), PANELS):
            sums = {name: np.sum([end["confusion"] for end in group], axis=0) for name, group in part}
            yield plots.confusion_matrices(sums, seen, "Where the images of each class go, after the last step" + which)
        for part in _chunks(list(settings.items()), PANELS):
            yield plots.byte_ledgers({name: group[0].metrics["bytes"]["per_step"] for name, group in part},
                                     "What is carried from step to step" + which)


def _means(group: Sequence[FinishedRun]) -> list[str]:
    """Mean ± standard deviation of the columns that the table of runs begins with."""
    return [bank.spread(values) for values in (
        [run.metrics["average_incremental_accuracy"] for run in group], [run.metrics["final_accuracy"] for run in group],
        [run.metrics["steps"][-1]["accuracy_by_step"][0] for run in group], [run.metrics["forgetting"] for run in group])]


def _before(table: pd.DataFrame | None, config: RunConfig) -> list[paper.Run]:
    """Runs of a bank with these settings, whatever their seed; none where there are too few to have a spread."""
    found = [] if table is None else paper.runs(table, config)
    return found if len(found) > 1 else []


def _means_before(found: Sequence[paper.Run]) -> list[str]:
    """What `_means` says, of runs from a bank."""
    ends = [run[-1] for run in found]
    return [bank.spread(values) for values in (
        [end["average_incremental_accuracy"] for end in ends], [end["top1"] for end in ends],
        [end["accuracy_by_step"][0] for end in ends], [end["forgetting"] for end in ends])]


def _place(config: RunConfig) -> tuple:
    """Sorts runs: those of a sweep come in the order of their folders' hashes."""
    return (config.dataset, config.class_batch, METHOD_NAMES.index(config.method), config.exemplars, config.pruning_ratio,
            config.seed)


def _added(run: FinishedRun) -> list[dict[str, int]]:
    """What each step after the first added to what is carried, by component; last, all of them together."""
    steps = run.metrics["bytes"]["per_step"]
    keys = (*plots.COMPONENTS, "total")
    pairs = [*zip(steps, steps[1:], strict=False), (steps[0], steps[-1])]
    return [{key: after[key] - before[key] for key in keys} for before, after in pairs]


def _environments(runs: dict[str, FinishedRun]) -> list[tuple[str, list[str]]]:
    """Where each run was computed: a row a thing, all that it was, one after the other, where it changed on the way."""
    rows = []
    for what in next(iter(runs.values())).metrics["environment"]:
        each = [[environment.get(what, "not recorded") for environment in run.metrics.get("environments") or [run.metrics["environment"]]]
                for run in runs.values()]
        rows.append((what.replace("_", " "), [", then ".join(map(str, dict.fromkeys(values))) for values in each]))
    return rows


def _settings(runs: dict[str, FinishedRun]) -> list[tuple[str, list[str]]]:
    return [(name, [str(getattr(run.config, name)) for run in runs.values()]) for name in RunConfig.model_fields]


def _chunks(items: list, size: int) -> list[list]:
    """Parts of `size` at most, as equal as can be: four are two and two, not three and one."""
    count = -(-len(items) // size)
    edges = [round(i * len(items) / count) for i in range(count + 1)]
    return [items[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]

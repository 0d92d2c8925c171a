"""Finished runs side by side, as one self-contained HTML page: curves, confusion matrices, forgetting, bytes.

Beside the page lies results.csv, the same runs as a results bank (`bank.py`), which grows with each report in the folder.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from m2kd_lite import bank, plots, storage
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.methods import METHODS
from m2kd_lite.rundir import FinishedRun, read_run

BANK = "results.csv"
_NAMING = ("dataset", "class_batch", "profile", "seed", "pruning_ratio")    # told apart by these first
_NOT_NAMING = ("method", "data_root", "device")

# Table 2: "we directly calculate the storage difference between the last and the initial step", ten classes a step.
PAPER_TABLE_2 = {"the paper's M²KD, ResNet-32, CIFAR-100": 0.84e6, "the paper's M²KD, ResNet-18, ImageNet subset": 9.80e6,
                 "the paper's iCaRL, CIFAR-100": 9.4e6, "the paper's iCaRL, ImageNet subset": 68.0e6}


def write_report(folders: Sequence[Path], out: Path, mix_profiles: bool = False) -> None:
    """Read finished runs, write the page, and add the runs to results.csv beside it.

    Parameters
    ----------
    folders : run folders, in the order in which they are shown.
    out : an .html file; replaced if it exists, for a report can always be made again.

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
    page = render(runs).encode()
    bank.add([row for run in runs for row in bank.rows(run.metrics)], Path(out).with_name(BANK), mix_profiles)
    storage.write_bytes(Path(out), page)


def render(runs: Sequence[FinishedRun]) -> str:
    """The page as text."""
    names = labels([run.config for run in runs])
    by_name = dict(zip(names, runs, strict=True))
    batches = {run.config.class_batch for run in runs}
    figures = [
        plots.accuracy_curves({name: ([step["classes_seen"] for step in run.metrics["steps"]],
                                      [step["top1"] for step in run.metrics["steps"]]) for name, run in by_name.items()},
                              "Accuracy falls as classes arrive"),
        plots.accuracy_by_step({name: run.metrics["steps"][-1]["accuracy_by_step"] for name, run in by_name.items()},
                               "What is left of each step's classes at the end"),
    ]
    for batch in sorted(batches):       # matrices of unlike class batches have their lines in different places
        confusions = {name: run.metrics["steps"][-1]["confusion"] for name, run in by_name.items()
                      if run.config.class_batch == batch}
        figures += [plots.confusion_matrices(dict(part), batch, "Where the images of each class go, after the last step")
                    for part in _chunks(list(confusions.items()), 3)]
    ledgers = [(name, run.metrics["bytes"]["per_step"]) for name, run in by_name.items()]
    figures += [plots.byte_ledgers(dict(part), "What is carried from step to step") for part in _chunks(ledgers, 3)]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("m2kd_lite"), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(
        runs=by_name, figures=[plots.html_image(figure) for figure in figures], alts=[f.alt_text for f in figures],
        components=plots.COMPONENTS, added={name: _added(run) for name, run in by_name.items()}, paper=PAPER_TABLE_2,
        most_steps=max(len(run.metrics["steps"]) for run in runs), settings=_settings(by_name))


def labels(configs: Sequence[RunConfig]) -> list[str]:
    """A short distinct name for each run: its method, and what else it differs in from runs of that method."""
    out = []
    fields = [*_NAMING, *(name for name in RunConfig.model_fields if name not in _NAMING + _NOT_NAMING)]
    for config in configs:
        same_method = [other for other in configs if other.method == config.method]
        differing = [f"{name.replace('_', ' ')} {getattr(config, name)}" for name in fields
                     if len({str(getattr(other, name)) for other in same_method}) > 1]
        name = ", ".join([METHODS[config.method].title, *differing[:3]])
        out.append(name if name not in out else f"{name} ({len(out) + 1})")
    return out


def _added(run: FinishedRun) -> list[dict[str, int]]:
    """What each step after the first added to what is carried, by component; last, all of them together."""
    steps = run.metrics["bytes"]["per_step"]
    keys = (*plots.COMPONENTS, "total")
    pairs = [*zip(steps, steps[1:], strict=False), (steps[0], steps[-1])]
    return [{key: after[key] - before[key] for key in keys} for before, after in pairs]


def _settings(runs: dict[str, FinishedRun]) -> list[tuple[str, list[str]]]:
    return [(name, [str(getattr(run.config, name)) for run in runs.values()]) for name in RunConfig.model_fields]


def _chunks(items: list, size: int) -> list[list]:
    return [items[i:i + size] for i in range(0, len(items), size)]

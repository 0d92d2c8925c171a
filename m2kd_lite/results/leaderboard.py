"""A leaderboard of the runs of a class: accuracy against bytes carried, of those runs alone whose results can be found again.

Each run is measured once more from its models and the images (`training/recompute.py`); what the page shows is what was found. A run
that cannot be verified is named with the reason. How a model was trained cannot be seen in it: a board is for a class, not for prizes.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, M2KDError
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.files import storage
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.frontier import Point, accuracy_against_bytes, best_of
from m2kd_lite.results import bank
from m2kd_lite.results.report import by_setting
from m2kd_lite.training import recompute
from m2kd_lite.training.rundir import FinishedRun, read_run

# Runs that saw the same classes in the same order, with the same images to learn and to be asked about, can be compared.
PROTOCOL = ("dataset", "class_batch", "first_class_batch", "class_order", "train_per_class", "test_per_class", "steps")


@dataclass(frozen=True)
class Entry:
    """A run under the name of whoever handed it in."""

    who: str
    run: FinishedRun


def find(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """All run folders below, as (who, folder): `who` is the first folder on the way, or the folder itself.

    Raises
    ------
    BadInput : no such folder, or no run in any of them.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder")
        for config in sorted(folder.rglob("config.json")):
            inside = config.parent.relative_to(folder).parts
            found.append((inside[0] if inside else folder.resolve().name, config.parent))
    if not found:
        raise BadInput(f"{', '.join(map(str, folders))}: no run folders (none holds a config.json)")
    return found


def verify(found: Sequence[tuple[str, Path]], data_root: str | None = None, on_event: OnEvent = ignore) -> tuple[list[Entry], list[tuple[str, Path, str]]]:
    """The runs that can be verified, with what was found in place of what was said; and the others, with a reason each.

    Parameters
    ----------
    data_root : where the images of a folder or a download lie here; without it, where the run says.
    """
    entries: list[Entry] = []
    refused: list[tuple[str, Path, str]] = []
    streams: dict[tuple, ClassStream] = {}
    for i, (who, path) in enumerate(found, 1):
        on_event({"event": "progress", "what": f"verifying {path}", "done": i, "total": len(found)})
        try:
            run = read_run(path)
            config = run.config.model_copy(update={"data_root": data_root}) if data_root and run.config.data_root else run.config
            arrival = config.seed if config.class_order == "random" else None
            key = (arrival, *(str(getattr(config, name)) for name in (*PROTOCOL, "data_root")))
            if key not in streams:
                streams[key] = ClassStream.of_run(config)
            again = recompute.again(run, streams[key])
            wrong = recompute.differences(run.metrics, again)
        except M2KDError as error:
            wrong = [str(error)]
        except Exception as error:          # whatever a hostile folder provokes, it is the folder's fault
            wrong = [f"cannot be read ({type(error).__name__})"]
        if wrong:
            refused.append((who, path, "; ".join(wrong)))
        else:
            entries.append(Entry(who, replace(run, metrics=again)))
    return entries, refused


def write(folders: Sequence[Path], out: Path, data_root: str | None = None, on_event: OnEvent = ignore) -> tuple[int, int]:
    """Find, verify and draw; gives how many runs were verified and how many refused.

    Raises
    ------
    BadInput : see `find`; or `out` is no .html file.
    """
    storage.check_local(out)
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {out}: not allowed; give a file that ends in .html")
    entries, refused = verify(find(folders), data_root, on_event)
    storage.write_bytes(Path(out), render(entries, refused).encode())
    return len(entries), len(refused)


def render(entries: Sequence[Entry], refused: Sequence[tuple[str, Path, str]]) -> str:
    """The page as text: a board a protocol, best average first."""
    boards = [board(protocol, own) for protocol, own in _by_protocol(entries).items()]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("m2kd_lite"), autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("leaderboard.html.j2").render(boards=boards, refused=refused, verified=len(entries))


def board(title: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """What the page shows of one protocol: a row a setting and person, and the figure."""
    settings: dict[str, list[FinishedRun]] = {}
    people: dict[str, str] = {}
    for who in dict.fromkeys(entry.who for entry in entries):
        for name, runs in by_setting([entry.run for entry in entries if entry.who == who]).items():
            settings[f"{name} ({who})"], people[f"{name} ({who})"] = runs, who
    points = {name: Point.of_runs([bank.rows(run.metrics) for run in runs]) for name, runs in settings.items()}
    order = sorted(points, key=lambda name: -float(np.mean(points[name].accuracy)))
    best, figure = best_of(points), accuracy_against_bytes({name: points[name] for name in order}, "Accuracy against bytes carried")
    rows = [_row(name, people[name], settings[name], points[name], name in best) for name in order]
    return {"title": title, "rows": rows, "image": plots.html_image(figure), "alt": plots.alt_text(figure)}


def _row(name: str, who: str, runs: Sequence[FinishedRun], point: Point, on_frontier: bool) -> dict[str, Any]:
    config: RunConfig = runs[0].config
    ends = [run.metrics["steps"][-1] for run in runs]
    return {"who": who, "name": name, "network": f"{config.backbone}, {config.epochs} epochs",
            "seeds": ", ".join(str(run.config.seed) for run in runs), "average": bank.spread(point.accuracy),
            "last": bank.spread([end["top1"] for end in ends]), "left": bank.spread([end["accuracy_by_step"][0] for end in ends]),
            "forgetting": bank.spread([run.metrics["forgetting"] for run in runs]),
            "bytes": f"{np.mean(point.carried):,.0f}", "frontier": on_frontier}


def _by_protocol(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        config = entry.run.config
        said = {name: getattr(config, name) for name in PROTOCOL}
        first = f", {said['first_class_batch']} in the first" if said["first_class_batch"] else ""
        few = [f"{said[name]} {what} a class" for name, what in (("train_per_class", "training images"), ("test_per_class", "test images"))
               if said[name]]
        few += [f"the first {said['steps']} steps"] if said["steps"] else []
        title = ", ".join([f"{config.dataset}, {config.class_batch} classes a step{first}", f"order {config.class_order}", *few,
                           f"images {entry.run.metrics['data_sha256'][:8]}"])
        found.setdefault(title, []).append(entry)
    return dict(sorted(found.items()))

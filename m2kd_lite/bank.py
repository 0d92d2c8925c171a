"""The results bank: measured runs as tidy tables, one row a run and step, with where each number comes from.

Figures and sentences that speak of more than one run read these tables, `data/results/*.csv`, through `load` and
`load_all`. `rows` makes them from a finished run's metrics. Used by the notebooks and the explorer; filled by
`python -m benchmarks.fill`.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from m2kd_lite import storage
from m2kd_lite.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = ("method", "dataset", "class_batch", "backbone", "epochs", "pruning_ratio", "alpha", "lambda_aux", "seed",
            "profile", "precision")
MEASURED = ("step", "classes_seen", "top1", "top5", "accuracy_by_step", "average_incremental_accuracy", "forgetting",
            "bytes_total")
CONFUSION = "confusion"         # of the last step; banks that were filled before it was recorded lack the column
PROVENANCE = ("device", "threads", "revision", "data_sha256")
COLUMNS = ("variant", *SETTINGS, *MEASURED, *PROVENANCE, CONFUSION)


def key(row: Mapping[str, Any]) -> tuple:
    """What a run is known by, from one of its rows. Only m2kd prunes: the ratio tells no other runs apart."""
    return (row["variant"], *(row[name] for name in SETTINGS if name != "pruning_ratio" or row["method"] == "m2kd"))


def rows(metrics: Mapping[str, Any], variant: str = "") -> list[dict[str, Any]]:
    """The rows of one finished run.

    Parameters
    ----------
    metrics : what `metrics.json` holds.
    variant : where the run is not the plain row of `methods.py` that `method` names: in which way.

    Returns
    -------
    one mapping a step, with the keys `COLUMNS`. Accuracies and forgetting in per cent and percentage points, rounded
    to 0.001; `accuracy_by_step` is a list, one number a step; bytes are those carried on after the step; `confusion` is a
    text on the last step's row, which `confusion_matrix` reads, and empty on the others.
    """
    environment = metrics["environment"]
    of_run = {"variant": variant, **{name: metrics["config"][name] for name in SETTINGS},
              "precision": environment["precision"],
              "average_incremental_accuracy": round(metrics["average_incremental_accuracy"], 3),
              "forgetting": round(metrics["forgetting"], 3),
              "device": environment["device"], "threads": environment["threads"], "revision": environment["revision"],
              "data_sha256": metrics["data_sha256"][:16]}
    return [of_run | {"step": step["step"], "classes_seen": step["classes_seen"], "top1": round(step["top1"], 3),
                      "top5": round(step["top5"], 3), "bytes_total": carried["total"],
                      "accuracy_by_step": [round(accuracy, 3) for accuracy in step["accuracy_by_step"]],
                      CONFUSION: _sparse(step[CONFUSION]) if step is metrics["steps"][-1] else ""}
            for step, carried in zip(metrics["steps"], metrics["bytes"]["per_step"], strict=True)]


def save(table: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, whole or not at all; `accuracy_by_step` as numbers with blanks between."""
    import pandas as pd
    written = [row | {"accuracy_by_step": " ".join(f"{accuracy:.3f}" for accuracy in row["accuracy_by_step"])} for row in table]
    storage.write_bytes(Path(path), pd.DataFrame(written, columns=list(COLUMNS)).to_csv(index=False).encode())


def load(path: Path) -> pd.DataFrame:
    """A bank, one row a run and step; `accuracy_by_step` as a list of numbers.

    Raises
    ------
    BadInput : there is no such file, or a column is missing.
    """
    import pandas as pd
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such results bank") from None
    if CONFUSION not in table:
        table[CONFUSION] = ""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise BadInput(f"{path}: not a results bank; it has no column {missing[0]}")
    table["accuracy_by_step"] = [[float(part) for part in str(text).split()] for text in table["accuracy_by_step"]]
    return table


def load_all(*paths: Path) -> pd.DataFrame:
    """Several banks as one table. Of a run that is in more than one, the rows of the bank named last.

    Raises
    ------
    BadInput : see `load`.
    """
    import pandas as pd
    banks = [load(path) for path in paths]
    if not banks:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(banks, ignore_index=True)
    which = [(key(row), i) for i, bank in enumerate(banks) for row in bank.to_dict("records")]
    newest = dict(which)
    return table[[newest[run] == i for run, i in which]].reset_index(drop=True)


def load_paper(path: Path) -> pd.DataFrame:
    """Numbers that the paper reports, data/paper/*.csv: one row a number, with the table it stands in (`source`).

    Raises
    ------
    BadInput : there is no such file.
    """
    import pandas as pd
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: the paper's numbers are not there; run this from a clone of the project") from None


def add(new: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Put the rows of runs into a bank, made if it is not there; rows of the same runs are replaced.

    Raises
    ------
    BadInput : the file is no bank.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):       # two notebooks may finish a run at once
        old = load(path).to_dict("records") if path.exists() else []
        replaced = {key(row) for row in new}
        save([*(row for row in old if key(row) not in replaced), *new], path)


def confusion_matrix(text: str) -> np.ndarray:
    """(classes, classes) int64 counts, rows the true class: what `rows` wrote as text.

    Raises
    ------
    ValueError : not such a text.
    """
    lines = text.split(";")
    counts = np.zeros((len(lines), len(lines)), dtype=np.int64)
    for true, line in enumerate(lines):
        for entry in line.split():
            predicted, count = entry.split(":")
            counts[true, int(predicted)] = int(count)
    return counts


def _sparse(counts: Sequence[Sequence[int]]) -> str:
    """A row of the matrix after each other, "predicted:count" for what is not zero: most of it is."""
    return ";".join(" ".join(f"{predicted}:{count}" for predicted, count in enumerate(row) if count) for row in counts)

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
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.methods import METHODS, unused_settings

if TYPE_CHECKING:
    import pandas as pd

# All settings but where a run was made and from which folder. The first ones stand in every bank; one that was filled before the
# others were recorded lacks those, and has what the profile says.
ALWAYS = ("method", "dataset", "class_batch", "backbone", "epochs", "pruning_ratio", "alpha", "lambda_aux", "seed", "profile", "precision")
SETTINGS = (*ALWAYS, *(name for name in RunConfig.model_fields if name not in (*ALWAYS, "device", "data_root")))
MEASURED = ("step", "classes_seen", "top1", "top5", "accuracy_by_step", "average_incremental_accuracy", "forgetting",
            "bytes_total")
CONFUSION = "confusion"         # of the last step
# What banks that were filled earlier lack, and what it is then taken for.
OPTIONAL = {"bytes_exemplars": 0, "top1_network": "", CONFUSION: ""}
PROVENANCE = ("device", "threads", "revision", "data_sha256")
COLUMNS = ("variant", *SETTINGS, *MEASURED, *PROVENANCE, *OPTIONAL)


def key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run is known by, from one of its rows: the settings that its method looks at, and the images of a folder."""
    unused = unused_settings(METHODS[row["method"]])
    images = row["data_sha256"] if row["dataset"] == "imagefolder" else ""
    return (row["variant"], images, *(str(_plain(row[name])) for name in SETTINGS if name not in unused))


def rows(metrics: Mapping[str, Any], variant: str = "") -> list[dict[str, Any]]:
    """The rows of one finished run.

    Parameters
    ----------
    metrics : what `metrics.json` holds.
    variant : where the run is not the plain row of `methods.py` that `method` names: in which way.

    Returns
    -------
    one mapping a step, with the keys `COLUMNS`. Accuracies and forgetting in per cent and percentage points, rounded
    to 0.001; `accuracy_by_step` is a list, one number a step; bytes are those carried on after the step,
    `bytes_exemplars` those of them that are images; `top1_network` is the network's own argmax, where another decision
    made `top1`; `confusion` is a text on the last step's row, which `confusion_matrix` reads, and empty on the others.
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
                      "bytes_exemplars": carried["exemplars"],
                      "top1_network": round(step["network"]["top1"], 3) if "network" in step else "",
                      "accuracy_by_step": [round(accuracy, 3) for accuracy in step["accuracy_by_step"]],
                      CONFUSION: _sparse(step[CONFUSION]) if step is metrics["steps"][-1] else ""}
            for step, carried in zip(metrics["steps"], metrics["bytes"]["per_step"], strict=True)]


def save(table: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, whole or not at all; `accuracy_by_step` as numbers with blanks between."""
    import pandas as pd
    written = [row | {name: _plain(row[name]) for name in SETTINGS}
               | {"accuracy_by_step": " ".join(f"{accuracy:.3f}" for accuracy in row["accuracy_by_step"])} for row in table]
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
    for name, lacking in OPTIONAL.items():
        if name not in table:
            table[name] = lacking
    missing = [name for name in COLUMNS if name not in table and name not in SETTINGS[len(ALWAYS):]]
    if missing:
        raise BadInput(f"{path}: not a results bank; it has no column {missing[0]}")
    table["top1_network"] = [value if value == "" else float(value) for value in table["top1_network"]]
    table["accuracy_by_step"] = [[float(part) for part in str(text).split()] for text in table["accuracy_by_step"]]
    return _with_all_settings(table)


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


def add(new: Sequence[Mapping[str, Any]], path: Path, mix_profiles: bool = False) -> None:
    """Put the rows of runs into a bank, made if it is not there; rows of the same runs are replaced.

    Raises
    ------
    BadInput : the file is no bank; or it would hold runs of more than one profile, and nobody said that it may.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):       # two notebooks may finish a run at once
        old = load(path).to_dict("records") if path.exists() else []
        replaced = {key(row) for row in new}
        rows = [*(row for row in old if key(row) not in replaced), *new]
        profiles = sorted({row["profile"] for row in rows})
        if len(profiles) > 1 and not mix_profiles:
            raise BadInput(f"{path}: would hold runs of profiles {' and '.join(profiles)}, which do not compare; "
                           "use another folder for each, or --mix-profiles")
        save(rows, path)


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


def spread(values: Sequence[float]) -> str:
    """Numbers of several runs as mean ± standard deviation (n - 1), to a tenth; of one run, the number."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _with_all_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Settings that a bank does not name, as the profile has them."""
    lacking = [name for name in SETTINGS if name not in table]
    if lacking:
        runs = list(table[list(ALWAYS)].astype(str).itertuples(index=False, name=None))
        made = {run: RunConfig.make(dict(zip(ALWAYS, run, strict=True))) for run in set(runs)}
        for name in lacking:
            table[name] = [_plain(getattr(made[run], name)) for run in runs]
    return table


def _plain(value: Any) -> Any:
    """A setting as a cell of a table."""
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _sparse(counts: Sequence[Sequence[int]]) -> str:
    """A row of the matrix after each other, "predicted:count" for what is not zero: most of it is."""
    return ";".join(" ".join(f"{predicted}:{count}" for predicted, count in enumerate(row) if count) for row in counts)

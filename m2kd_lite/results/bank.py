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

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput, CannotWrite, printable
from m2kd_lite.files import storage
from m2kd_lite.method.table import METHODS, unused_settings

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
MIXED = "mixed"                 # in place of a device, or another of these, where a run has had several
PROVENANCE = ("device", "threads", "revision", "data_sha256")
MOST_CLASSES = 10_000           # of a confusion matrix, which is as large as their square
_FORMULA = tuple("=+-@\t\r")    # what a spreadsheet takes for the start of one
COLUMNS = ("variant", *SETTINGS, *MEASURED, *PROVENANCE, *OPTIONAL)


def key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run is known by, from one of its rows: the settings that its method looks at, and the images of a folder."""
    unused = unused_settings(METHODS[row["method"]])
    images = row["data_sha256"] if row["dataset"] == "imagefolder" else ""
    return (row["variant"], images, *(str(plain(row[name])) for name in SETTINGS if name not in unused))


def rows(metrics: Mapping[str, Any], variant: str = "") -> list[dict[str, Any]]:
    """The rows of one finished run.

    Parameters
    ----------
    metrics : what `metrics.json` holds.
    variant : where the run is not the plain row of `method/table.py` that `method` names: in which way.

    Returns
    -------
    one mapping a step, with the keys `COLUMNS`. Accuracies and forgetting in per cent and percentage points, rounded
    to 0.001; `accuracy_by_step` is a list, one number a step; bytes are those carried on after the step,
    `bytes_exemplars` those of them that are images; `top1_network` is the network's own argmax, where another decision
    made `top1`; `confusion` is a text on the last step's row, which `confusion_matrix` reads, and empty on the others.
    """
    environment, config = provenance(metrics), RunConfig.make(metrics["config"]).model_dump(mode="json")
    of_run = {"variant": variant, **{name: config[name] for name in SETTINGS},
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


def provenance(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Precision, device, threads and revision of a finished run: each "mixed" where it was computed with more than one."""
    environments = metrics.get("environments") or [metrics["environment"]]
    found = {name: list(dict.fromkeys(environment[name] for environment in environments))
             for name in ("precision", "device", "threads", "revision")}
    return {name: values[0] if len(values) == 1 else MIXED for name, values in found.items()}


def save(table: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, whole or not at all; `accuracy_by_step` as numbers with blanks between."""
    import pandas as pd
    written = [{name: _cell(value) for name, value in row.items()} | {name: _cell(plain(row[name])) for name in SETTINGS}
               | {"accuracy_by_step": " ".join(f"{accuracy:.3f}" for accuracy in row["accuracy_by_step"])} for row in table]
    storage.write_bytes(Path(path), pd.DataFrame(written, columns=list(COLUMNS)).to_csv(index=False).encode())


def load(path: Path) -> pd.DataFrame:
    """A bank, one row a run and step; `accuracy_by_step` as a list of numbers.

    Raises
    ------
    BadInput : there is no such file, a column is missing, or a cell is not what its column holds.
    """
    try:
        return _load(Path(path))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such results bank") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot read: {error.strerror or error}") from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:         # pandas' own are ValueErrors
        raise BadInput(f"{path}: not a results bank: {' '.join(str(error).split())[:200]}") from None


def _load(path: Path) -> pd.DataFrame:
    import pandas as pd
    with open(path, encoding="utf-8") as file:
        columns = file.readline().count(",") + 1
    if columns > 2 * len(COLUMNS):          # pandas makes a cell of each in every row, however short the rows are
        raise BadInput(f"{path}: not a results bank; it has {columns} columns")
    table = pd.read_csv(path, keep_default_na=False)
    for name in table.columns:
        table[name] = [_uncell(value) for value in table[name]]
    for name, lacking in OPTIONAL.items():
        if name not in table:
            table[name] = lacking
    missing = [name for name in COLUMNS if name not in table and name not in SETTINGS[len(ALWAYS):]]
    if missing:
        raise BadInput(f"{path}: not a results bank; it has no column {missing[0]}")
    table["top1_network"] = [value if value == "" else float(value) for value in table["top1_network"]]
    table["accuracy_by_step"] = [[float(part) for part in str(text).split()] for text in table["accuracy_by_step"]]
    return _with_all_settings(table)


load_bank = load            # as the package offers it


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
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: the paper's numbers are missing ({type(error).__name__}); reinstall the package") from None


def add(new: Sequence[Mapping[str, Any]], path: Path, mix_profiles: bool = False) -> None:
    """Put the rows of runs into a bank, made if it is not there; rows of the same runs are replaced.

    Raises
    ------
    BadInput : the file is no bank; or it would hold runs of more than one profile, and nobody said that it may.
    CannotWrite : nothing can be written there; or a lock is there that belongs to somebody else.
    """
    path = Path(path)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise CannotWrite(f"{lock.lock_file}: cannot write: {error.strerror or error}") from None
    try:                    # two notebooks may finish a run at once
        old = load(path).to_dict("records") if path.exists() else []
        replaced = {key(row) for row in new}
        rows = [*(row for row in old if key(row) not in replaced), *new]
        profiles = sorted({row["profile"] for row in rows})
        if len(profiles) > 1 and not mix_profiles:
            raise BadInput(f"{path}: would hold runs of profiles {' and '.join(profiles)}, which do not compare; "
                           "use another folder for each, or --mix-profiles")
        save(rows, path)
    finally:
        lock.release()


def confusion_matrix(text: str) -> np.ndarray:
    """(classes, classes) int64 counts, rows the true class: what `rows` wrote as text.

    Raises
    ------
    ValueError : not such a text, or of more classes than a matrix can be made of.
    """
    lines = text.split(";")
    if len(lines) > MOST_CLASSES:
        raise ValueError(f"a confusion matrix of {len(lines)} classes; at most {MOST_CLASSES} are read")
    counts = np.zeros((len(lines), len(lines)), dtype=np.int64)
    for true, line in enumerate(lines):
        for entry in line.split():
            predicted, count = map(int, entry.split(":"))
            if not (0 <= predicted < len(lines) and 0 <= count < 2**63):
                raise ValueError(f"{entry}: no count of one of {len(lines)} classes")
            counts[true, predicted] = count
    return counts


def spread(values: Sequence[float]) -> str:
    """Numbers of several runs as mean ± standard deviation (n - 1), to a tenth; of one run, the number."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def plain(value: Any) -> Any:
    """A setting as a cell of a table."""
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _with_all_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Settings that a bank does not name, as the profile has them."""
    named, lacking = ([name for name in SETTINGS if (name in table) == there] for there in (True, False))
    if lacking:
        runs = list(table[named].replace({"precision": {MIXED: "auto"}}).astype(str).itertuples(index=False, name=None))
        made = {run: _setting(dict(zip(named, run, strict=True))) for run in set(runs)}
        for name in lacking:
            table[name] = [plain(getattr(made[run], name)) for run in runs]
    return table


def _setting(row: Mapping[str, str]) -> RunConfig:
    """The run that a row without some settings is of. Outputs began at one half before their start was a setting."""
    images = {"data_root": "elsewhere"} if row["dataset"] == "imagefolder" else {}
    return RunConfig.make({"prior": 0.5} | images | {name: text or None for name, text in row.items()})


def _cell(value: Any) -> Any:
    """A text as a cell that no spreadsheet takes for a formula, and no terminal for a command; numbers as they are."""
    if not isinstance(value, str):
        return value
    value = printable(value, lines=False)
    return f"'{value}" if value.startswith(_FORMULA) else value


def _uncell(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("'") and value[1:].startswith(_FORMULA) else value


def _sparse(counts: Sequence[Sequence[int]]) -> str:
    """A row of the matrix after each other, "predicted:count" for what is not zero: most of it is."""
    return ";".join(" ".join(f"{predicted}:{count}" for predicted, count in enumerate(row) if count) for row in counts)

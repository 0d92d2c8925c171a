"""Ours beside the paper's: every number of data/paper/*.csv, what our runs give for it, and a verdict.

Pure functions over results banks (`bank.py`), which train nothing. A number that nobody has run is a row like any other and
says so. Called by `notebooks/08_paper_figures.ipynb`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m2kd_lite.config import EXEMPLAR_METHODS, METHOD_NAMES, RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.method.table import METHODS, title_of
from m2kd_lite.pictures.explorer import Curve
from m2kd_lite.results import bank

# The paper gives one number each, without a spread. Over three seeds of ours, averages have standard deviations of 0.7 to 2.5 points
# (data/results/glyphs_grid.csv, 20 classes a step): what is about as near as that is the same number.
REPRODUCED_POINTS = 1.0
# Section 4.4 calls "around 3%" a "marginal performance variation".
NEAR_POINTS = 3.0
# Bytes follow from the network's shape and from how it is packed: in the same bank, seeds move them by less than 0.3 %.
REPRODUCED_BYTES = 0.05
VERDICTS = {
    "not run": "no run of it, with the paper's settings and images, is in the banks",
    "not implemented": "a method that the library does not have",
    "by definition": "the zero that the paper counts from (§4.6): no measurement",
    "reproduced": f"within {REPRODUCED_POINTS:g} point, or within {100 * REPRODUCED_BYTES:g} % of the bytes",
    "within": f"no further away than the {NEAR_POINTS:g} points that the paper itself calls marginal (§4.4); the distance is said",
    "not reached": "worse than that: a lower accuracy, or more bytes",
    "above": "better than that: a higher accuracy, or fewer bytes; it needs an explanation as much as a miss",
}
# The paper's data sets as section 4.1 trains on them, over the profile `paper`. Which images they are is named by the caller.
SETTINGS: dict[str, dict[str, object]] = {
    "cifar100": {"dataset": "cifar100"},
    "ilsvrc-small": {"dataset": "imagefolder", "data_root": "elsewhere", "backbone": "resnet18", "epochs": 60, "milestones": (20, 40)},
}
OURS = {"cifar100": "cifar100"}
# Images that were read from a folder, by the beginning of their SHA-256: the paper's name of the data set, or that of the one in the place
# of its subset of ImageNet.
KNOWN_IMAGES = {"400ca84ce900994e": "cifar100", "86a98c5dc8c0785b": "tiny-imagenet"}
ANY_PRECISION = "auto"              # of a configuration that runs are looked for with: whatever they were computed in
NUMBERS = ("source", "dataset", "class_batch", "method", "pruning_ratio", "step", "measure", "paper")
# The lines of the figures; EWC stands for the penalties' simplest relative and is not in the paper. DGM is a line of (d) and (e), whose
# images are larger than what our painter draws; at the size of a lesson it stands beside the others.
FIGURE_4 = ("finetune", "lwf-mc", "scaled", "rwalk", "ewc", "m2kd-no-pruning", "m2kd", "joint")
FIGURE_5 = EXEMPLAR_METHODS
TITLES = {"cifar100": "CIFAR-100", "ilsvrc-small": "iILSVRC-small", "tiny-imagenet": "Tiny ImageNet, 100 classes",
          **{name: method.title for name, method in METHODS.items()}, "hybrid1": "hybrid1 (iCaRL, network alone)"}
MEASURES = {"top1": "top-1 (%)", "average_incremental_accuracy": "average (%)",
            "megabytes_added": "MB added since step 1"}
# iCaRL's paper calls a network that learns as iCaRL does, and decides by its own largest output, hybrid1: our iCaRL runs measure both.
NETWORK_OF = {"hybrid1": "icarl"}
_TABLES = ("table1", "table2", "averages")

Run = list[dict[str, Any]]          # the rows of a bank that are one run, step by step


def numbers(folder: Path) -> pd.DataFrame:
    """What the paper reports, and the paper that it builds on: the columns `NUMBERS`, one row a number.

    Parameters
    ----------
    folder : data/paper, with table1.csv, table2.csv and averages.csv.

    Raises
    ------
    BadInput : a table is not there.
    """
    rows = []
    for name in _TABLES:
        for row in bank.load_paper(Path(folder) / f"{name}.csv").to_dict("records"):
            measure = next(measure for measure in MEASURES if measure in row)
            rows.append(row | {"measure": measure, "paper": float(row[measure])})
    return pd.DataFrame(rows, columns=list(NUMBERS))


def runs(table: pd.DataFrame, config: RunConfig, images: str | None = None) -> list[Run]:
    """The runs of a bank with these settings, whatever their seed, in the order of the seeds.

    Parameters
    ----------
    table : a bank.
    config : the settings; its precision counts unless it is "auto", its seed does not.
    images : the name of a data set, which may have been read from a folder (`KNOWN_IMAGES`), or the `data_sha256` of its images as the
        bank has it; None: the data set of `config`.
    """
    images = images or config.dataset
    near = table[(table.method == config.method) & (table.class_batch == config.class_batch)
                 & ((table.dataset == images) | (table.data_sha256 == images) | (table.data_sha256.map(KNOWN_IMAGES) == images))]
    unless = {"precision": ANY_PRECISION} if config.precision == ANY_PRECISION else {}
    wanted = _settings({"variant": "", **config.model_dump()})
    found: dict[tuple, list[dict]] = {}
    for row in near.sort_values(["seed", "step"]).to_dict("records"):
        if _settings(row | unless) == wanted:
            found.setdefault((row["seed"], row["data_sha256"], row["precision"]), []).append(row)
    return list(found.values())


def _settings(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run is known by, apart from its seed and its images."""
    return bank.key({**row, "seed": "", "dataset": "", "data_sha256": ""})


def compare(table: pd.DataFrame, reported: pd.DataFrame, images: Mapping[str, str] = OURS,
            precision: str = ANY_PRECISION, profile: str = "paper", **changed: object) -> pd.DataFrame:
    """Every number of the paper with ours.

    Parameters
    ----------
    table : a bank.
    reported : what `numbers` gives.
    images : for each of the paper's data sets, which images of the bank are meant: the name of a data set, or, of images that were
        read from a folder, their `data_sha256` as the bank has it. What is not named counts as not run.
    precision : only runs with this arithmetic count; auto: all.
    profile : whose settings the runs must have: "paper", or "icarl-recipe".
    changed : settings that differ from the profile's, as `finetune_schedule="whole"`.

    Returns
    -------
    one row a number, in the order of `reported`: source, what (in words), paper, ours (mean over the runs; NaN without), runs (how
    many), difference (ours less the paper's), verdict (a key of `VERDICTS`, "within" with the distance).

    Raises
    ------
    BadInput : `images` names a data set that is not the paper's, or a folder of images without saying which; or `changed` has a name or a
        value that no run has.
    """
    for name, ours in images.items():
        if name not in SETTINGS:
            raise BadInput(f"images: {name}: not allowed; give one of {', '.join(SETTINGS)}")
        if ours == "imagefolder":
            raise BadInput("images: imagefolder: not allowed; give the data_sha256 of the images, as the bank has it")
    return pd.DataFrame([_row(table, number, images, precision, profile, changed) for number in reported.to_dict("records")])


def _row(table: pd.DataFrame, number: Mapping[str, Any], images: Mapping[str, str], precision: str, profile: str,
         changed: Mapping[str, object]) -> dict[str, Any]:
    found, method = [], NETWORK_OF.get(number["method"], number["method"])
    if method in METHODS and number["dataset"] in images:
        config = paper_run(number["dataset"], method, number["class_batch"], number["pruning_ratio"], precision, profile, **changed)
        found = runs(table, config, images[number["dataset"]])
    values = [value for value in (_measured(run, number) for run in found) if value is not None]
    ours = float(np.mean(values)) if values else float("nan")
    if method not in METHODS:
        verdict = "not implemented"
    elif number["measure"] == "megabytes_added" and number["paper"] == 0:
        verdict = "by definition"
    else:
        verdict = judge(number["measure"], number["paper"], ours)
    return {"source": number["source"], "what": _in_words(number), "paper": number["paper"], "ours": ours, "runs": len(values),
            "difference": ours - number["paper"], "verdict": verdict}


def judge(measure: str, paper: float, ours: float) -> str:
    """The verdict on a number of ours; NaN is one that nobody has measured.

    Parameters
    ----------
    measure : a key of `MEASURES`: more is better of accuracies, fewer of bytes.
    """
    if np.isnan(ours):
        return "not run"
    of_bytes = measure == "megabytes_added"
    gain = paper - ours if of_bytes else ours - paper
    distance = round(abs(gain), 9)          # 42.1 + 1 is a point away, whatever binary fractions say
    if distance <= (REPRODUCED_BYTES * paper if of_bytes else REPRODUCED_POINTS):
        return "reproduced"
    if not of_bytes and distance <= NEAR_POINTS:
        return f"within {np.ceil(round(10 * distance, 6)) / 10:.1f}"
    return "above" if gain > 0 else "not reached"


def paper_run(dataset: str, method: str, class_batch: int, pruning_ratio: float | None = None, precision: str = "fp32",
              profile: str = "paper", **changed: object) -> RunConfig:
    """The run that section 4.1 describes, on one of the paper's data sets.

    Parameters
    ----------
    pruning_ratio : None or NaN: what section 4.1 says for this class batch.
    precision : the paper does not say; `ANY_PRECISION` to look for runs in a bank.
    profile : "paper", or one that changes its recipe.
    changed : settings that differ from the profile's.
    """
    ratio: dict[str, object] = {} if pruning_ratio is None or np.isnan(pruning_ratio) else {"pruning_ratio": pruning_ratio}
    common: dict[str, object] = dict(method=method, class_batch=int(class_batch), profile=profile, precision=precision)
    return RunConfig.make(common | SETTINGS[dataset] | ratio | changed)


def _measured(run: Run, number: Mapping[str, Any]) -> float | None:
    """Ours for a number, from one run; None where it has no such step."""
    if number["measure"] == "top1":
        return next((row["top1"] for row in run if row["step"] == number["step"]), None)
    if number["measure"] == "megabytes_added":      # "the storage difference between the last and the initial step" (section 4.6)
        return megabytes_added(run)
    if number["method"] in NETWORK_OF:
        alone = [row["top1_network"] for row in run]
        return None if "" in alone else float(np.mean(alone))
    return run[-1]["average_incremental_accuracy"]


def megabytes_added(run: Run) -> float:
    """What a run carries after its last step, less the model it had after its first, in 10^6 bytes.

    Exemplars are there from the first step on, and all of them count: section 4.6 begins from a method that keeps nothing.
    """
    return (run[-1]["bytes_total"] - run[0]["bytes_total"] + run[0]["bytes_exemplars"]) / 1e6


def _in_words(number: Mapping[str, Any]) -> str:
    ratio = "" if np.isnan(number["pruning_ratio"]) else f", ratio {number['pruning_ratio']:g}"
    step = "" if np.isnan(number["step"]) else f", step {number['step']:g}"
    return (f"{TITLES.get(number['method'], number['method'])}{ratio}, {TITLES[number['dataset']]} by {number['class_batch']}{step}: "
            f"{MEASURES[number['measure']]}")


# ---- what the figures show ------------------------------------------------------------------------------------------


def marks(reported: pd.DataFrame, config: RunConfig, dataset: str) -> list[tuple[int, float]]:
    """(classes seen, top-1 in per cent) that Table 1 has for a run; empty where it has none."""
    rows = reported[(reported.measure == "top1") & (reported.dataset == dataset) & (reported.class_batch == config.class_batch)
                    & (reported.method == config.method)]
    if METHODS[config.method].prunes:
        rows = rows[rows.pruning_ratio == config.pruning_ratio]
    return [(int(step) * config.class_batch, top1) for step, top1 in zip(rows.step, rows.paper, strict=True)]


def title(config: RunConfig) -> str:
    """A run in a figure."""
    unusual = {"crops": config.augment == "crop", "whole schedule": METHODS[config.method].prunes and config.finetune_schedule == "whole"}
    return ", ".join([title_of(config.method, config.pruning_ratio), *(name for name, is_so in unusual.items() if is_so)])


def curves(table: pd.DataFrame, configs: Sequence[RunConfig], images: str | None = None,
           reported: pd.DataFrame | None = None, dataset: str = "") -> tuple[dict[str, Curve], list[str]]:
    """Figure 4: what is there as curves, and the names of what is not.

    Parameters
    ----------
    table, images : see `runs`.
    configs : the runs to show, whatever their seed.
    reported : the paper's numbers for `dataset`, which become marks; None for none.
    """
    shown, lacking = {}, []
    for config in configs:
        found = runs(table, config, images)
        paper = [] if reported is None else marks(reported, config, dataset)
        if not found:
            lacking.append(title(config))
        if found or paper:
            shown[title(config)] = Curve.of_runs(METHOD_NAMES.index(config.method), found, paper)
    return shown, lacking


def confusions(table: pd.DataFrame, configs: Sequence[RunConfig],
               images: str | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Figure 1: (classes, classes) counts after the last step, summed over the seeds, and the names of what is not there."""
    shown, lacking = {}, []
    for config in configs:
        counts = [bank.confusion_matrix(run[-1]["confusion"]) for run in runs(table, config, images) if run[-1]["confusion"]]
        if counts:
            shown[title(config)] = np.sum(counts, axis=0)
        else:
            lacking.append(title(config))
    return shown, lacking


def by_ratio(table: pd.DataFrame, configs: Sequence[RunConfig], images: str | None = None) -> pd.DataFrame:
    """Table 1: one row a run (`run`, `seed`), a column for each number of classes seen, and the mean over the steps, `average`."""
    rows = [{"run": title(config), "seed": run[0]["seed"], **{row["classes_seen"]: row["top1"] for row in run},
             "average": run[-1]["average_incremental_accuracy"]}
            for config in configs for run in runs(table, config, images)]
    return pd.DataFrame(rows).set_index(["run", "seed"]) if rows else pd.DataFrame()


def apart(ours: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """How far the averages of several runs lie apart: one row a seed with which all were run, with `best`, `worst`, `points`.

    Parameters
    ----------
    ours : what `by_ratio` gives.
    names : the runs, as `title` calls them.
    """
    if ours.empty or not set(names) <= {run for run, _ in ours.index}:
        return pd.DataFrame(columns=["best", "worst", "points"])
    averages = ours.average.unstack("run")[list(names)].dropna()
    return pd.DataFrame({"best": averages.idxmax(axis=1), "worst": averages.idxmin(axis=1),
                         "points": averages.max(axis=1) - averages.min(axis=1)})


def top5(table: pd.DataFrame) -> pd.DataFrame:
    """A bank with top-5 accuracies where its top-1 stood, as the paper reports its subset of ImageNet (§4.2): after each step, and their mean
    over the steps. What is left of a step's own classes, and forgetting, stay top-1."""
    run = [*(name for name in bank.SETTINGS if name in table), "variant", "data_sha256"]
    average = table.groupby(run, dropna=False).top5.transform("mean").round(3)
    return table.assign(top1=table.top5, average_incremental_accuracy=average)


def summary(table: pd.DataFrame, configs: Mapping[str, RunConfig], images: str | None = None) -> pd.DataFrame:
    """Methods side by side: one row a name of `configs`, numbers as text, mean ± standard deviation over the seeds.

    Accuracies in per cent: the average over the steps, after the last step, of the first step's classes then; forgetting
    in points; what the network's own largest output says where another decision counts; megabytes as in Table 2. A row of
    what was not run is empty.
    """
    rows = {}
    for name, config in configs.items():
        found = runs(table, config, images)
        last = [run[-1] for run in found]
        own = [row["top1_network"] for row in last if row["top1_network"] != ""]
        rows[name] = {
            "runs": len(found),
            "average": bank.spread([row["average_incremental_accuracy"] for row in last]),
            "last step": bank.spread([row["top1"] for row in last]),
            "left of step 1": bank.spread([row["accuracy_by_step"][0] for row in last]),
            "forgetting": bank.spread([row["forgetting"] for row in last]),
            "network alone": bank.spread(own) if own else "",
            "MB added": f"{np.mean([megabytes_added(run) for run in found]):.2f}",
        } if found else {"runs": 0}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("method")

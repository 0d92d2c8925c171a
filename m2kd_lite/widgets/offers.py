"""What the explorer has to offer: sets of images with settings, those that can be trained here and those that banks hold.

An offer is all that the runs of one comparison have in common; method, class batch, pruning ratio, exemplars and seed are left to
the controls. `Results` finds the runs of a `Choice` in the banks.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from m2kd_lite.config import EMBEDDED, RunConfig, keeps_exemplars
from m2kd_lite.errors import LayerExhausted
from m2kd_lite.method import masks
from m2kd_lite.method.nets import convolution_sizes
from m2kd_lite.method.table import METHODS, title_of, unused_settings
from m2kd_lite.results import bank, paper

SEEDS = (0, 1, 2)
# Embedded data set: (classes, channels, class batches on offer).
USUAL_BATCHES = (5, 10, 20, 50)
SHAPES = {"glyphs": (100, 3, USUAL_BATCHES), "digits": (10, 1, (1, 2, 5))}
CONTROLLED = ("method", "dataset", "class_batch", "pruning_ratio", "exemplars", "seed", "steps")      # not part of an offer's settings
NOT_OF_ALL = ("finetune_epochs", "finetune_schedule", "alpha", "lambda_aux")         # at which some methods do not look
# How a setting is said beside a data set's name; others by their own name.
SAID = {"epochs": "{} epochs", "finetune_epochs": "{} epochs after a prune", "finetune_schedule": "the {} schedule after a prune",
        "train_per_class": "{} images a class", "precision": "{}", "backbone": "{}", "prior": "outputs begin at {}"}
FEWEST_METHODS = 2          # an offer is for comparing


@dataclass(frozen=True)
class Offer:
    """Runs that can be looked at side by side.

    Attributes
    ----------
    dataset, settings : what their configurations have in common; `settings` over the profile's, and without what the controls say.
    images : where they come from a folder, the beginning of their SHA-256.
    reported : what the paper's tables call the images; empty if they have none.
    classes, channels : of the images.
    class_batches, exemplars : what there is to choose from.
    """

    dataset: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: str = ""
    reported: str = ""
    classes: int = 100
    channels: int = 3
    class_batches: tuple[int, ...] = ()
    exemplars: tuple[int, ...] = ()

    @property
    def five_steps(self) -> int:
        """The class batch to begin with: the one that makes about five steps."""
        return min(self.class_batches, key=lambda batch: abs(batch - self.classes / 5))

    @property
    def usual_exemplars(self) -> int:
        """How many exemplars to begin with: the profile's number, if it is on offer."""
        usual = _profiles_exemplars(self.settings["profile"])
        return usual if usual in self.exemplars else self.exemplars[-1]

    @property
    def why_not_here(self) -> str:
        """Why what is missing cannot be trained in the panel; empty where it can."""
        if self.dataset in EMBEDDED:
            return ""
        held = paper.TITLES.get(self.reported, "the images")
        where = f" --data-root DIR, where DIR holds {held}" if self.dataset == "imagefolder" else ""
        return f"it cannot be trained here, for its images are not embedded; try m2kd-lite run --dataset {self.dataset}{where}"


@dataclass(frozen=True)
class Choice:
    """What the controls say.

    Attributes
    ----------
    exemplars : how many, for the methods that keep some.
    seed : None for all that were run.
    """

    offer: Offer
    methods: tuple[str, ...]
    class_batch: int
    pruning_ratio: float
    exemplars: int | None = None
    seed: int | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to look for."""
        return SEEDS if self.seed is None else (self.seed,)

    def config(self, method: str, seed: int) -> RunConfig:
        """The run that is looked for, or trained."""
        kept = {"exemplars": self.exemplars} if keeps_exemplars(method) else {}
        return RunConfig.make({**self.offer.settings, **kept, "method": method, "dataset": self.offer.dataset,
                               "class_batch": self.class_batch, "seed": seed, "pruning_ratio": self.pruning_ratio})

    def title(self, method: str) -> str:
        """The method's name, with the ratio where there is one."""
        return title_of(method, self.pruning_ratio)


class Results:
    """Measured runs, found by their settings.

    Parameters
    ----------
    paths : banks; of a run that is in several, the last counts.
    local : the bank that new runs join; it need not be there yet, and comes last.
    reported : folder of the paper's numbers, data/paper.
    """

    def __init__(self, paths: Sequence[Path], local: Path, reported: Path):
        self.paths, self.local = list(paths), Path(local)
        self._reported = paper.numbers(reported)
        self.read()

    def read(self) -> None:
        """Read the banks, again if need be."""
        self.table = bank.load_all(*self.paths, *([self.local] if self.local.exists() else []))
        self._runs: dict[tuple, dict[str, list[dict]]] = {}             # by what is compared, then by arithmetic
        rows = self.table.sort_values("step")
        for row, precision in zip(rows.to_dict("records"), _compared_precision(rows), strict=True):
            self._runs.setdefault(bank.key(row | {"precision": precision}), {}).setdefault(row["precision"], []).append(row)

    def runs(self, choice: Choice, method: str) -> list[list[dict]]:
        """The rows, one a step, of each run of a method that the choice asks for and that is there."""
        keys = [bank.key({"variant": "", "data_sha256": choice.offer.images, **choice.config(method, seed).model_dump()})
                for seed in choice.seeds]
        return [run for key in keys for run in self._runs.get(key, {}).values()]

    def in_the_paper(self, choice: Choice, method: str) -> list[tuple[int, float]]:
        """(classes seen, top-1 in per cent) that the paper's Table 1 has for this choice; empty if it has none."""
        return paper.marks(self._reported, choice.config(method, choice.seeds[0]), choice.offer.reported)

    def missing(self, choice: Choice) -> list[RunConfig]:
        """Runs without which a chosen method has nothing to show."""
        return [choice.config(method, choice.seeds[0]) for method in choice.methods if not self.runs(choice, method)]


def cannot_be(offer: Offer, config: RunConfig) -> str:
    """Why a run with these settings cannot be trained here, or nothing: a layer may run out of free weights before the last step."""
    try:
        if METHODS[config.method].prunes:
            masks.check_lasting(convolution_sizes(config.backbone, offer.channels), -(-offer.classes // config.class_batch),
                                config.pruning_ratio)
    except LayerExhausted as error:
        return str(error)
    return offer.why_not_here


def offers(table: pd.DataFrame, profile: str) -> dict[str, Offer]:
    """Name to offer: the embedded images with the settings of a profile, then what else is in a bank.

    Parameters
    ----------
    table : a bank. Whole streams of plain methods count; of settings with fewer than two of them, there is nothing to compare.
    profile : of the first ones, which can be trained.
    """
    here = table[table.profile == profile]
    found = {name: Offer(name, {"profile": profile}, "", "", *shape, _exemplars(here[here.dataset == name], name, profile))
             for name, shape in SHAPES.items()}
    table = table.assign(precision=_compared_precision(table))
    whole = table[(table.variant == "") & (table.steps == "") & (table.precision != bank.MIXED)] if len(table) else table
    common = [name for name in bank.SETTINGS if name not in CONTROLLED + NOT_OF_ALL]
    images = whole.data_sha256.where(whole.dataset == "imagefolder", "") if len(whole) else []
    others = {}
    texts = whole[common].astype(str).assign(images=images)         # of two banks, one may hold numbers where the other has text
    for (dataset, sha, *values), rows in whole.assign(**texts).groupby(["dataset", "images", *common], sort=False):
        settings: dict[str, Any] = {name: value or None for name, value in zip(common, values, strict=True)}
        settings |= {name: value for name in NOT_OF_ALL if (value := _one_of_those_that_look(rows, name))}
        if dataset == "imagefolder":
            settings["data_root"] = "elsewhere"             # where, does not matter to a run
        offer = Offer(dataset, settings, sha, _reported(dataset, sha), *_shape(dataset, rows),
                      _exemplars(rows, dataset, settings["profile"]))
        said = _differs(offer, profile)
        if rows.method.nunique() >= FEWEST_METHODS and said:
            others[f"{_title(offer)}: {said}"] = offer
    return found | dict(sorted(others.items()))


def _compared_precision(table: pd.DataFrame) -> pd.Series:
    """Of each row, the arithmetic by which runs are told apart: its own where the images can be trained here, and any elsewhere. A run of hours
    may have gone on in another than it began with."""
    return table.precision.where(table.dataset.isin(EMBEDDED), paper.ANY_PRECISION)


def _one_of_those_that_look(rows: pd.DataFrame, name: str) -> str:
    """The value of a setting that most rows have, among the methods that look at it; nothing where none does."""
    looking = [str(row[name]) for row in rows[["method", name]].to_dict("records") if name not in unused_settings(METHODS[row["method"]])]
    return max(sorted(set(looking)), key=looking.count, default="")


def _exemplars(rows: pd.DataFrame, dataset: str, profile: str) -> tuple[int, ...]:
    """How many exemplars there are to choose from: what was run; the profile's number, and two and five a class, where more can be."""
    run = {int(count) for count in rows.exemplars if count}
    more = {_profiles_exemplars(profile), 2 * SHAPES[dataset][0], 5 * SHAPES[dataset][0]} if dataset in SHAPES else set()
    return tuple(sorted(run | more)) or (_profiles_exemplars(profile),)


def _profiles_exemplars(profile: str) -> int:
    return RunConfig.make({"method": "icarl", "profile": profile}).exemplars


def _reported(dataset: str, sha: str) -> str:
    return dataset if dataset in paper.SETTINGS else paper.KNOWN_IMAGES.get(sha, "")


def _shape(dataset: str, rows: pd.DataFrame) -> tuple[int, int, tuple[int, ...]]:
    """Classes, channels and class batches: those that were run, and the usual ones; two at the least, for a slider."""
    classes, channels, usual = SHAPES.get(dataset, (int(rows.classes_seen.max()), 3, USUAL_BATCHES))
    batches = {int(batch) for batch in rows.class_batch} | {batch for batch in usual if batch < classes}
    return classes, channels, tuple(sorted(batches if len(batches) > 1 else {1, *batches, classes}))


def _title(offer: Offer) -> str:
    return offer.dataset if offer.dataset in EMBEDDED else paper.TITLES.get(offer.reported, f"a folder ({offer.images[:6]})")


def _differs(offer: Offer, profile: str) -> str:
    """In which settings an offer differs from its profile, in words; nothing for embedded images with the panel's profile as it is."""
    own, epochs = offer.settings["profile"], offer.settings["epochs"]
    plain = RunConfig.make({"dataset": offer.dataset, "profile": own, "data_root": offer.settings.get("data_root")})
    usual = plain.model_copy(update={"milestones": RunConfig.make({"profile": own, "epochs": epochs}).milestones})
    said = [f"profile {own}"] if own != profile or offer.dataset not in EMBEDDED else []
    said += [SAID.get(name, name.replace("_", " ") + " {}").format(value or "none") for name, value in offer.settings.items()
             if name != "data_root" and value != paper.ANY_PRECISION and str(bank.plain(getattr(usual, name))) != (value or "")]
    return ", ".join(said)

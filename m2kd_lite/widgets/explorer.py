"""The explorer: methods, class batch and pruning ratio, and what was measured; what was not can be trained now.

It reads results banks (`bank.py`) and trains nothing by itself: a button starts a run in a process of its own, whose
result joins a local bank, runs/results.csv. Figure, table and sentence are pure functions of (`Results`, `Choice`).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from m2kd_lite import bank, masks, notebook, paper
from m2kd_lite.background import BackgroundRun
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput, LayerExhausted, M2KDError
from m2kd_lite.methods import METHODS, title_of
from m2kd_lite.nets import convolution_sizes
from m2kd_lite.pictures_explorer import Curve, explored
from m2kd_lite.rundir import read_run
from m2kd_lite.widgets.panel import Panel
from m2kd_lite.widgets.training import TrainingView

# Data set: (classes, channels, class batches on offer).
DATASETS = {"glyphs": (100, 3, (5, 10, 20, 50)), "digits": (10, 1, (1, 2, 5)), "cifar100": (100, 3, (5, 10, 20, 50))}
RATIOS = (0.6, 0.7, 0.75, 0.8, 0.9)
SEEDS = (0, 1, 2)
ALL_SEEDS = "all: mean ± sd"        # no None: a list whose first option has that value may come up with none chosen


@dataclass(frozen=True)
class Choice:
    """What the controls say.

    Attributes
    ----------
    seed : None for all that were run.
    profile : as of `RunConfig`; the explorer knows the runs of one profile, all else as it says.
    """

    dataset: str
    methods: tuple[str, ...]
    class_batch: int
    pruning_ratio: float
    seed: int | None = None
    profile: str = "quick"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to look for."""
        return SEEDS if self.seed is None else (self.seed,)

    def config(self, method: str, seed: int) -> RunConfig:
        """The run that is looked for, or trained."""
        return RunConfig.make(dict(method=method, dataset=self.dataset, class_batch=self.class_batch, seed=seed,
                                   pruning_ratio=self.pruning_ratio, profile=self.profile))

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
        table = bank.load_all(*self.paths, *([self.local] if self.local.exists() else []))
        self._runs: dict[tuple, list[dict]] = {}
        for row in table.sort_values("step").to_dict("records"):
            self._runs.setdefault(bank.key(row), []).append(row)

    def runs(self, choice: Choice, method: str) -> list[list[dict]]:
        """The rows, one a step, of each run of a method that the choice asks for and that is there."""
        keys = [bank.key({"variant": "", **choice.config(method, seed).model_dump()}) for seed in choice.seeds]
        return [self._runs[key] for key in keys if key in self._runs]

    def in_the_paper(self, choice: Choice, method: str) -> list[tuple[int, float]]:
        """(classes seen, top-1 in per cent) that the paper's Table 1 has for this choice; empty if it has none."""
        return paper.marks(self._reported, choice.config(method, choice.seeds[0]), choice.dataset)

    def missing(self, choice: Choice) -> list[RunConfig]:
        """Runs without which a chosen method has nothing to show."""
        return [choice.config(method, choice.seeds[0]) for method in choice.methods if not self.runs(choice, method)]


def cannot_last(config: RunConfig) -> str | None:
    """Why a run with these settings cannot be, or None: a layer may run out of free weights before the last step."""
    classes, channels, _ = DATASETS[config.dataset]
    try:
        if METHODS[config.method].prunes:
            masks.check_lasting(convolution_sizes(config.backbone, channels), -(-classes // config.class_batch), config.pruning_ratio)
    except LayerExhausted as error:
        return str(error)
    return None


def render(results: Results, choice: Choice) -> Figure:
    """Curves and confusion matrices of what is there.

    Raises
    ------
    BadInput : no method was chosen.
    """
    if not choice.methods:
        raise BadInput("Methods: none is chosen; tick one or more")
    curves, confusions = {}, {}
    for place, method in enumerate(METHODS):
        if method not in choice.methods:
            continue
        runs, marks = results.runs(choice, method), results.in_the_paper(choice, method)
        if runs or marks:
            curves[choice.title(method)] = Curve.of_runs(place, runs, marks)
        counted = [bank.confusion_matrix(run[-1]["confusion"]) for run in runs if run[-1]["confusion"]]
        if counted:
            confusions[METHODS[method].title] = sum(counted)
    return explored(curves, confusions, choice.class_batch, f"{choice.dataset}, {choice.class_batch} new classes a step")


def describe(results: Results, choice: Choice) -> str:
    """The same in words, and what is not there."""
    told = []
    for method in choice.methods:
        runs = results.runs(choice, method)
        if runs:
            last = [run[-1] for run in runs]
            told.append(f"{choice.title(method)} ends at {_mean(last, 'top1')} %, average "
                        f"{_mean(last, 'average_incremental_accuracy')} %, forgetting {_mean(last, 'forgetting')} points "
                        f"({_count(runs)}).")
        marks = results.in_the_paper(choice, method)
        if marks:
            told.append(f"The paper's {choice.title(method)} ends at {marks[-1][1]:.1f} % (ResNet-32, 80 epochs a step).")
    for config in results.missing(choice):
        why, seed = cannot_last(config), "" if choice.seed is None else f" with seed {choice.seed}"
        told.append(f"{choice.title(config.method)} cannot be run: {why}." if why else
                    f"{choice.title(config.method)}{seed} is not in the bank.")
    return " ".join(told)


def table(results: Results, choice: Choice) -> str:
    """The numbers as an HTML table, and where they come from; empty if there are none."""
    names = ("method", "runs", "average incremental accuracy (%)", "after the last step (%)", "left of step 1 (%)",
             "forgetting (points)", "bytes carried", "of these since step 1")
    lines, made = [], set()
    for method in choice.methods:
        runs = results.runs(choice, method)
        if not runs:
            continue
        last = [run[-1] | {"left": run[-1]["accuracy_by_step"][0], "added": run[-1]["bytes_total"] - run[0]["bytes_total"]}
                for run in runs]
        made |= {f"{row['device']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}, revision {row['revision']}"
                 for row in last}
        cells = [choice.title(method), str(len(runs)),
                 *(_mean(last, name) for name in ("average_incremental_accuracy", "top1", "left", "forgetting")),
                 *(f"{np.mean([row[name] for row in last]):,.0f}" for name in ("bytes_total", "added"))]
        lines.append(f'<tr><th scope="row" style="text-align: left">{escape(cells[0])}</th>'
                     + "".join(f'<td style="text-align: right">{cell}</td>' for cell in cells[1:]) + "</tr>")
    if not lines:
        return ""
    head = "".join(f'<th scope="col" style="vertical-align: bottom; padding: 0 0.5em">{name}</th>' for name in names)
    return (f'<table style="line-height: 1.4"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
            '<p style="line-height: 1.4">Mean ± standard deviation where there is more than one run. '
            f'Profile {choice.profile}; {escape("; ".join(sorted(made)))}.</p>')


def explorer(methods: Sequence[str] = ("finetune", "lwf-mc", "m2kd"), profile: str = "quick", root: Path | None = None) -> Explorer:
    """A panel over the banks of this project.

    Parameters
    ----------
    methods : those that are ticked at first.
    profile : whose runs are looked for, and trained.
    root : the project's folder, with data/results/ and runs/; by default the one that the notebook is in.

    Raises
    ------
    BadInput : no such method or profile; or the banks or the paper's numbers cannot be read.
    """
    for method in methods:
        RunConfig.make(dict(method=method, profile=profile))
    root = Path(root or notebook.project_root())
    # Backwards: of a run in glyphs_grid and in glyphs_quick, the one in glyphs_grid counts, which has its confusion matrix.
    banks = sorted((root / "data" / "results").glob("*.csv"), reverse=True)
    return Explorer(Results(banks, root / "runs" / "results.csv", root / "data" / "paper"), methods, profile)


class Explorer(Panel):
    """The panel. `run` is the training under way, or None."""

    def __init__(self, results: Results, methods: Sequence[str], profile: str):
        self.results, self.profile, self.run = results, profile, None
        first = next(iter(DATASETS.values()))
        beside = {"width": "auto", "margin": "2px 1em"}
        self.ticks = {name: ipywidgets.Checkbox(name in methods, description=row.title, indent=False, layout=beside)
                      for name, row in METHODS.items()}
        controls = {
            "dataset": ipywidgets.Dropdown(options=list(DATASETS), description="Data set"),
            "seed": ipywidgets.Dropdown(options=[ALL_SEEDS, *map(str, SEEDS)], description="Seed"),
            "class_batch": ipywidgets.SelectionSlider(options=first[2], value=20, description="Class batch"),
            "pruning_ratio": ipywidgets.SelectionSlider(options=RATIOS, value=0.8, description="Pruning ratio"),
            **self.ticks,
        }
        controls["dataset"].observe(self._offer_class_batches, "value")
        self.train = ipywidgets.Button(description="Train it now", layout={"width": "auto"})
        self.cancel = ipywidgets.Button(description="Cancel", layout={"width": "auto"})
        self.train.on_click(lambda _: self.begin())
        self.cancel.on_click(lambda _: self.stop())
        self.training = ipywidgets.VBox()
        self._show(self.cancel, False)
        super().__init__(controls, lambda **state: render(results, self.choice(**state)),
                         lambda **state: describe(results, self.choice(**state)),
                         table=lambda **state: table(results, self.choice(**state)),
                         below=[ipywidgets.HBox([self.train, self.cancel]), self.training],
                         rows=[[name for name in controls if name not in self.ticks], [*self.ticks]])

    def choice(self, dataset: str, seed: str, class_batch: int, pruning_ratio: float, **ticked: bool) -> Choice:
        """What the controls say."""
        return Choice(dataset, tuple(name for name, on in ticked.items() if on), class_batch, pruning_ratio,
                      None if seed == ALL_SEEDS else int(seed), self.profile)

    def redraw(self) -> None:
        super().redraw()
        self._show(self.train, bool(self._possible()) and self.run is None)

    def begin(self) -> None:
        """Train the first run that is missing, in a process of its own."""
        config = self._possible()[0]
        folder = self.results.local.parent / notebook.run_folder(config).name
        view = TrainingView()
        what = f"Training {escape(METHODS[config.method].title)}, seed {config.seed}, in the background."
        self.training.children = [ipywidgets.HTML(f"<p>{what}</p>"), view]
        self._show(self.train, False)
        self._show(self.cancel, True)
        self.run = BackgroundRun(config, folder, view, partial(self._ended, folder, view))

    def stop(self) -> None:
        """Ask the training to end; what it has learnt is kept, and the next one like it goes on from there."""
        if self.run is not None:
            self.run.stop()

    def _ended(self, folder: Path, view: TrainingView, why_not: str | None) -> None:
        """On the run's thread: its result joins the local bank and is shown."""
        self.run = None
        self._show(self.cancel, False)
        try:
            if why_not is None:
                bank.add(bank.rows(read_run(folder).metrics), self.results.local, mix_profiles=True)      # it is asked by profile
                self.results.read()
        except M2KDError as error:
            why_not = str(error)
        self.redraw()
        if why_not is not None:
            view.stopped()
            self.say(f"The training ended: {why_not}.")

    def _possible(self) -> list[RunConfig]:
        return [config for config in self.results.missing(self.choice(**self.state())) if cannot_last(config) is None]

    def _offer_class_batches(self, change) -> None:
        slider, offered = self.controls["class_batch"], DATASETS[change["new"]][2]
        if tuple(slider.options) != offered:
            slider.options = offered
            slider.value = offered[-2]          # five steps

    @staticmethod
    def _show(widget: ipywidgets.Widget, visible: bool) -> None:
        widget.layout.display = None if visible else "none"


def _mean(rows: Sequence[dict], name: str) -> str:
    return bank.spread([row[name] for row in rows])


def _count(runs: Sequence) -> str:
    return "one run" if len(runs) == 1 else f"{len(runs)} runs"

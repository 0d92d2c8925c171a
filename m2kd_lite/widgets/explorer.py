"""The explorer: images, methods, class batch, pruning ratio and exemplars, and what was measured; what was not can be trained now.

It reads results banks (`bank.py`) and trains nothing by itself: a button starts a run in a process of its own, whose
result joins a local bank, runs/results.csv. Figure, table and sentence are pure functions of (`Results`, `Choice`).
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from m2kd_lite.config import METHOD_NAMES, RunConfig, keeps_exemplars
from m2kd_lite.course import notebook
from m2kd_lite.course.background import BackgroundRun
from m2kd_lite.errors import BadInput, M2KDError
from m2kd_lite.files import places
from m2kd_lite.method.table import METHODS, every_method
from m2kd_lite.pictures.explorer import Curve, explored
from m2kd_lite.results import bank
from m2kd_lite.training.rundir import read_run
from m2kd_lite.widgets.offers import SEEDS, Choice, Results, cannot_be, offers
from m2kd_lite.widgets.panel import Panel
from m2kd_lite.widgets.training import TrainingView

RATIOS = (0.6, 0.7, 0.75, 0.8, 0.9)
ALL_SEEDS = "all: mean ± sd"        # no None: a list whose first option has that value may come up with none chosen


def render(results: Results, choice: Choice, name: str = "") -> Figure:
    """Curves and confusion matrices of what is there; `name` is what the offer is called.

    Raises
    ------
    BadInput : no method was chosen.
    """
    if not choice.methods:
        raise BadInput("Methods: none is chosen; tick one or more")
    curves, confusions = {}, {}
    for place, method in enumerate(METHOD_NAMES):
        if method not in choice.methods:
            continue
        runs, marks = results.runs(choice, method), results.in_the_paper(choice, method)
        if runs or marks:
            curves[choice.title(method)] = Curve.of_runs(place, runs, marks)
        counted = [bank.confusion_matrix(run[-1]["confusion"]) for run in runs if run[-1]["confusion"]]
        if counted:
            confusions[METHODS[method].title] = np.sum(counted, axis=0)
    return explored(curves, confusions, choice.class_batch, f"{name or choice.offer.dataset}, {choice.class_batch} new classes a step")


def describe(results: Results, choice: Choice) -> str:
    """The same in words, and what is not there."""
    told = []
    for method in choice.methods:
        runs = results.runs(choice, method)
        if runs:
            last = [run[-1] for run in runs]
            told.append(f"{choice.title(method)}{_kept(choice, method)} ends at {_mean(last, 'top1')} %, average "
                        f"{_mean(last, 'average_incremental_accuracy')} %, forgetting {_mean(last, 'forgetting')} points "
                        f"({_count(runs)}).")
        marks = results.in_the_paper(choice, method)
        if marks:
            told.append(f"The paper's {choice.title(method)} ends at {marks[-1][1]:.1f} % (ResNet-32, 80 epochs a step).")
    seed = "" if choice.seed is None else f" with seed {choice.seed}"
    for config in results.missing(choice):
        name, why = choice.title(config.method) + _kept(choice, config.method), cannot_be(choice.offer, config)
        told.append(f"{name} cannot be run: {why}." if why and why != choice.offer.why_not_here else f"{name}{seed} is not in the bank.")
    if results.missing(choice) and choice.offer.why_not_here:
        told.append(f"What is not there: {choice.offer.why_not_here}.")
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
        made |= {f"{row['precision']}, {row['device']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}, revision {row['revision']}"
                 for row in last}
        cells = [choice.title(method) + _kept(choice, method), str(len(runs)),
                 *(_mean(last, name) for name in ("average_incremental_accuracy", "top1", "left", "forgetting")),
                 *(f"{np.mean([row[name] for row in last]):,.0f}" for name in ("bytes_total", "added"))]
        lines.append(f'<tr><th scope="row" style="text-align: left">{escape(cells[0])}</th>'
                     + "".join(f'<td style="text-align: right">{cell}</td>' for cell in cells[1:]) + "</tr>")
    if not lines:
        return ""
    head = "".join(f'<th scope="col" style="vertical-align: bottom; padding: 0 0.5em">{name}</th>' for name in names)
    return (f'<table style="line-height: 1.4"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
            '<p style="line-height: 1.4">Mean ± standard deviation where there is more than one run. '
            f'Profile {choice.offer.settings["profile"]}; {escape("; ".join(sorted(made)))}.</p>')


def explorer(methods: Sequence[str] = ("finetune", "lwf-mc", "m2kd"), profile: str = "quick", root: Path | None = None) -> Explorer:
    """A panel over the banks of this project.

    Parameters
    ----------
    methods : those that are ticked at first.
    profile : whose runs are looked for, and trained.
    root : a folder with data/results/, data/paper/ and runs/; by default the lessons' one, and `places.runs`.

    Raises
    ------
    BadInput : no such method or profile; or the banks or the paper's numbers cannot be read.
    """
    for method in methods:
        RunConfig.make(dict(method=method, profile=profile))
    results, reported, runs = ((Path(root) / name for name in ("data/results", "data/paper", "runs")) if root else
                               (places.find("data/results"), places.find("data/paper"), places.runs()))
    banks = sorted(results.glob("*.csv"), reverse=True)
    return Explorer(Results(banks, runs / "results.csv", reported), methods, profile)


class Explorer(Panel):
    """The panel. `run` is the training under way, or None."""

    def __init__(self, results: Results, methods: Sequence[str], profile: str):
        self.results = results
        self.run: BackgroundRun | None = None
        self.offers = offers(results.table, profile)
        first = next(iter(self.offers.values()))
        beside = {"width": "auto", "margin": "2px 1em"}
        self.ticks = {name: ipywidgets.Checkbox(name in methods, description=row.title, indent=False, layout=beside)
                      for name, row in every_method().items()}
        controls = {
            "dataset": ipywidgets.Dropdown(options=list(self.offers), description="Data set", layout={"width": "46em"}),
            "seed": ipywidgets.Dropdown(options=[ALL_SEEDS, *map(str, SEEDS)], description="Seed"),
            "class_batch": ipywidgets.SelectionSlider(options=first.class_batches, value=20, description="Class batch"),
            "pruning_ratio": ipywidgets.SelectionSlider(options=RATIOS, value=0.8, description="Pruning ratio"),
            "exemplars": ipywidgets.Dropdown(options=first.exemplars, value=first.usual_exemplars, description="Exemplars"),
            **self.ticks,
        }
        controls["dataset"].observe(self._offer_choices, "value")
        self.train = ipywidgets.Button(description="Train it now", layout={"width": "auto"})
        self.cancel = ipywidgets.Button(description="Cancel", layout={"width": "auto"})
        self.train.on_click(lambda _: self.begin())
        self.cancel.on_click(lambda _: self.stop())
        self.training = ipywidgets.VBox()
        self._show(self.cancel, False)
        super().__init__(controls, lambda **state: render(results, self.choice(**state), state["dataset"]),
                         lambda **state: describe(results, self.choice(**state)),
                         table=lambda **state: table(results, self.choice(**state)),
                         below=[ipywidgets.HBox([self.train, self.cancel]), self.training],
                         rows=[[name for name in controls if name not in self.ticks], [*self.ticks]])

    def choice(self, dataset: str, seed: str, class_batch: int, pruning_ratio: float, exemplars: int, **ticked: bool) -> Choice:
        """What the controls say."""
        return Choice(self.offers[dataset], tuple(name for name, on in ticked.items() if on), class_batch, pruning_ratio,
                      exemplars, None if seed == ALL_SEEDS else int(seed))

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
                self.forget()
        except M2KDError as error:
            why_not = str(error)
        self.redraw()
        if why_not is not None:
            view.stopped()
            self.say(f"The training ended: {why_not}.")

    def _possible(self) -> list[RunConfig]:
        choice = self.choice(**self.state())
        return [config for config in self.results.missing(choice) if not cannot_be(choice.offer, config)]

    def _offer_choices(self, change) -> None:
        """Class batches and exemplars of another data set."""
        offer = self.offers[change["new"]]
        for name, offered, usual in (("class_batch", offer.class_batches, offer.five_steps),
                                     ("exemplars", offer.exemplars, offer.usual_exemplars)):
            control = self.controls[name]
            if tuple(control.options) != offered:
                control.options = offered
                control.value = usual

    @staticmethod
    def _show(widget: ipywidgets.Widget, visible: bool) -> None:
        widget.layout.display = None if visible else "none"


def _mean(rows: Sequence[dict], name: str) -> str:
    return bank.spread([row[name] for row in rows])


def _kept(choice: Choice, method: str) -> str:
    """How many exemplars a method keeps, in words; nothing for one that keeps none."""
    return f", {choice.exemplars} exemplars" if keeps_exemplars(method) and choice.exemplars else ""


def _count(runs: Sequence) -> str:
    return "one run" if len(runs) == 1 else f"{len(runs)} runs"

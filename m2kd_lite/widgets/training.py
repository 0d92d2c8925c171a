"""A run while it trains: a listener to its events (`events.py`) that shows how far it is, its loss and its accuracy.

`training_panel` is what a cell hands to `train.run`: a panel where a person looks, plain lines elsewhere. Figure and
sentence are pure functions of a history, which is a list of events.
"""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from m2kd_lite.events import OnEvent
from m2kd_lite.pictures.plots import html_image
from m2kd_lite.pictures.training import PHASES, training_curves
from m2kd_lite.training import progress
from m2kd_lite.widgets.panel import WIDTH, status

REDRAW_SECONDS = 1.0    # between two drawings, at least
REST = 20               # times what a drawing took, before the next: it draws for a twentieth of the time
FINISHED = ("finished", "already finished")


def render(history: Sequence[dict]) -> Figure:
    """Loss and accuracy as far as the history goes; it holds an epoch at least."""
    return training_curves(_epochs(history), _steps(history))


def describe(history: Sequence[dict]) -> str:
    """What has happened, in sentences that change once a step: they are read out when they do."""
    told = [f"Note: {event['text']}." for event in history if event["event"] == "notice"]
    runs = [event for event in history if event["event"] == "run"]
    state = runs[-1]["state"] if runs else None
    if state == "already finished":
        return " ".join([*told, f"This run was finished before, in {runs[-1]['folder']}: nothing is trained again."])
    if "resumed" in [event["state"] for event in runs]:
        told.append("The run goes on where it stopped.")
    epochs, steps = _epochs(history), _steps(history)
    if steps:
        by_step = ", ".join(f"{accuracy:.1f}" for accuracy in steps[-1]["accuracy_by_step"])
        told.append(f"Step {steps[-1]['step']} of {steps[-1]['steps']} is done: top-1 accuracy {steps[-1]['top1']:.1f} % on all "
                    f"classes seen; on the classes of each step: {by_step} %.")
    elif epochs:
        told.append(f"Step {epochs[-1]['step']} of {epochs[-1]['steps']} trains.")
    else:
        told.append("The run begins.")
    if state in ("finished", "stopped"):
        told.append(f"The run has {state}.")
    return " ".join(told)


class TrainingView(ipywidgets.VBox):
    """A listener that can be looked at: a bar, the latest figures, a sentence about the steps, and a chart.

    A run calls it from the thread that trains. It draws there, a twentieth of the time at most, and what goes wrong in
    drawing is raised there.

    Parameters
    ----------
    clock : seconds, from any beginning.

    Attributes
    ----------
    history : all events but `progress`, in their order.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.history: list[dict] = []
        self._clock, self._due, self._stale = clock, -math.inf, False
        self.bar = ipywidgets.IntProgress(0, 0, 1, description="Begins", style={"description_width": "18em"},
                                          layout={"width": "auto"})
        self.latest = ipywidgets.HTML()         # changes often: outside the live region
        self.text = ipywidgets.HTML(status(describe(self.history)))
        self.figure = ipywidgets.HTML()
        super().__init__([self.bar, self.latest, self.text, self.figure], layout={"max_width": WIDTH})

    def __call__(self, event: dict) -> None:
        """Take in an event."""
        kind = event["event"]
        if kind == "progress":
            self._move(f"{event['what'].capitalize()}: {event['done']}/{event['total']}", event["done"], event["total"])
        else:
            if kind == "run" and event["state"] in ("started", "already finished"):     # of an earlier run, only notices stay
                self.history = [earlier for earlier in self.history if earlier["event"] == "notice"]
            self.history.append(event)
            self._stale = True
            self.text.value = status(describe(self.history))
        if kind == "epoch":
            self.latest.value = f'<p style="margin: 0">{escape(progress.describe(event) or "")}</p>'
        if kind == "run":
            self._end(event["state"])
        if self._stale and (kind in ("step", "run") or self._clock() >= self._due):
            self._redraw()

    def stopped(self) -> None:
        """The run will send nothing more, and it has not finished."""
        self({"event": "run", "state": "stopped"})

    def running(self) -> bool:
        """Whether the run has not said that it is finished."""
        return not any(event["event"] == "run" and event["state"] in FINISHED for event in self.history)

    def _redraw(self) -> None:
        self._stale = False
        if not _epochs(self.history):           # nothing to draw, and nothing for the first epoch to wait for
            self.figure.value, self._due = "", -math.inf
            return
        begun = self._clock()
        figure = render(self.history)
        width, height = figure.get_size_inches()
        # A box that keeps its size while one picture makes room for the next.
        self.figure.value = (f'<div style="width: {width:g}in; max-width: 100%; aspect-ratio: {width:g} / {height:g}">'
                             f"{html_image(figure)}</div>")
        now = self._clock()
        self._due = now + max(REDRAW_SECONDS, REST * (now - begun))

    def _move(self, what: str, done: int, total: int, style: str = "") -> None:
        with self.bar.hold_sync():
            self.bar.max, self.bar.value = total, done
            self.bar.description, self.bar.bar_style = what, style

    def _end(self, state: str) -> None:
        if state in FINISHED:
            self._move("Finished" if state == "finished" else "Finished before", 1, 1, "success")
        elif state == "stopped":
            self._move("Stopped", self.bar.value, self.bar.max, "warning")


def training_panel() -> OnEvent:
    """A listener for `train.run`: a panel in this cell's output where a person looks; elsewhere plain lines."""
    if not _someone_looks():
        plain = progress.plain_lines()
        return lambda event: plain(event) if _worth_a_line(event) else None
    view = TrainingView()
    display(view)
    _tell_when_the_cell_fails(view)
    return view


def _someone_looks() -> bool:
    """Whether the cell that is being executed was sent by a person's page, which can show widgets.

    JupyterLab and Notebook 7 name the cell in each request to execute it; nbclient, nbconvert, papermill and nbval do
    not. The environment cannot tell: a batch that is started from a cell inherits JPY_SESSION_NAME, and nbval's kernel has
    a history file as a person's has. Voilà names no cell, but itself.
    """
    request: dict = getattr(get_ipython(), "get_parent", dict)()      # no shell, or one in a terminal: no request
    return "cellId" in request.get("metadata", {}) or os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")


def _worth_a_line(event: dict) -> bool:
    """Not that a run began or ended in a folder: the folder may be a temporary one, and the steps say it better."""
    return event["event"] != "run" or event["state"] in ("already finished", "resumed")


def _tell_when_the_cell_fails(view: TrainingView) -> None:
    """A run that is interrupted sends no event: the cell's end says so."""
    shell = get_ipython()

    def cell_ended(result: Any) -> None:
        shell.events.unregister("post_run_cell", cell_ended)
        if result.error_in_exec is not None and view.running():
            view.stopped()

    shell.events.register("post_run_cell", cell_ended)


def _epochs(history: Sequence[dict]) -> list[dict]:
    """Its epochs in order, of the classifier: a painter's loss is of another kind. Those that a resumed run repeats are there twice: the later one counts."""
    latest = {(event["step"], PHASES.index(event["phase"]), event["epoch"]): event
              for event in history if event["event"] == "epoch" and event["phase"] in PHASES}
    return [latest[place] for place in sorted(latest)]


def _steps(history: Sequence[dict]) -> list[dict]:
    latest = {event["step"]: event for event in history if event["event"] == "step"}
    return [latest[step] for step in sorted(latest)]

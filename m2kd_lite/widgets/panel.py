"""A panel: labelled controls, a figure and a sentence that says what the figure shows.

The figure and the sentence are pure functions of the controls' values; a callback calls them and nothing else. Whatever
is wrong with a choice is said in the place of the sentence, and the figure stays as it was.
"""
from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from m2kd_lite.errors import M2KDError
from m2kd_lite.pictures.plots import html_image
from m2kd_lite.widgets.names import Names

WIDTH = "60em"          # of a panel
LABEL, CONTROL = "7em", "23em"      # of a control's label; of the whole of it


class Panel(ipywidgets.VBox):
    """Controls above, a sentence, and the figure below.

    Parameters
    ----------
    controls : name to a widget with a `value` and a visible `description`.
    render : values of the controls by name, to a figure.
    describe : the same, to what the figure shows, in a sentence or two: for those who cannot see it, and for tests.
    above : widgets that come first and move controls, as a player does.
    table : the same, to numbers as an HTML table below the figure.
    below : widgets that come last.
    rows : names of the controls in each row; all in one row if it is left out. A row breaks where the page is narrow.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.ValueWidget], render: Callable[..., Figure],
                 describe: Callable[..., str], above: Sequence[ipywidgets.Widget] = (),
                 table: Callable[..., str] | None = None, below: Sequence[ipywidgets.Widget] = (),
                 rows: Sequence[Sequence[str]] | None = None):
        self.controls, self._render, self._describe, self._table = dict(controls), render, describe, table
        for control in self.controls.values():
            if not control.description:
                raise ValueError("a control needs a description that can be seen")
            control.style = {"description_width": LABEL}
            control.layout.width = control.layout.width or CONTROL
            control.layout.max_width = "100%"         # of a phone
            control.observe(self._changed, "value")
        self.text = ipywidgets.HTML()
        self.figure = ipywidgets.HTML()
        self.table = ipywidgets.HTML(layout={"overflow": "auto", "max_width": "100%"})       # a phone scrolls in it
        flowing = [ipywidgets.Box([self.controls[name] for name in row], layout={"flex_flow": "row wrap"})
                   for row in rows or [list(self.controls)]]
        super().__init__([*above, *flowing, self.text, self.figure, self.table, *below, Names()], layout={"max_width": WIDTH})
        self.redraw()

    def state(self) -> dict[str, Any]:
        """What the controls say."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Figure, sentence and table for the controls as they are."""
        state = self.state()
        with _uncollected():
            try:
                figure, told = self._render(**state), self._describe(**state)
                numbers = self._table(**state) if self._table else ""
            except M2KDError as error:          # a choice that is not allowed: the figure stays
                self.say(str(error))
                return
            self.figure.value = html_image(figure)
            self.table.value = numbers
            self.say(told)

    def say(self, sentence: str) -> None:
        """Put a sentence in the place of the one that describes the figure."""
        self.text.value = status(sentence)

    def _changed(self, change: Any) -> None:
        self.redraw()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leaves garbage where it is for as long as somebody waits for a figure.

    A figure is tens of thousands of objects, so that Python went through all objects of the kernel, torch's included, at every tenth
    move of a slider; that took longer than the figure. So many collections are now one, of the figure's own objects, after the move.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def status(sentence: str) -> str:
    """A sentence as a live region: a screen reader reads it out when it changes."""
    return f'<p role="status" aria-live="polite" style="line-height: 1.4">{escape(sentence)}</p>'

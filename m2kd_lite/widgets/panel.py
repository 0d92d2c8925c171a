"""A panel: labelled controls, a figure and a sentence that says what the figure shows.

The figure and the sentence are pure functions of the controls' values; a callback calls them and nothing else. So what was drawn is
kept, and while nobody waits the likeliest next ones are drawn ahead. Whatever is wrong with a choice is said in the place of the
sentence, and the figure stays as it was.
"""
from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from html import escape
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from m2kd_lite.errors import M2KDError
from m2kd_lite.pictures.plots import html_image
from m2kd_lite.widgets.names import Names

WIDTH = "60em"          # of a panel
LABEL, CONTROL = "7em", "23em"      # of a control's label; of the whole of it
KEPT = 64               # figures of a panel, of some 60 KB each
SLIDERS = ipywidgets.IntSlider, ipywidgets.SelectionSlider         # moved step by step: what lies beside their values is drawn ahead
PAUSE = 0.05            # seconds without a move until a figure is drawn ahead, and between two of them, so that a move waits for one at most


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
        self._drawn: dict[str, tuple[str, str, str]] = {}
        self._ahead: asyncio.TimerHandle | None = None
        for control in self.controls.values():
            if not control.description:
                raise ValueError("a control needs a description that can be seen")
            control.style = {"description_width": LABEL}
            control.layout.width = control.layout.width or CONTROL
            control.layout.max_width = "100%"         # of a phone
            control.observe(self._changed, "value")
        self.text = ipywidgets.HTML()
        self.figure = ipywidgets.HTML()
        self.table = ipywidgets.HTML(layout={"max_width": "100%"})
        flowing = [ipywidgets.Box([self.controls[name] for name in row], layout={"flex_flow": "row wrap"})
                   for row in rows or [list(self.controls)]]
        super().__init__([*above, *flowing, self.text, self.figure, self.table, *below, Names()], layout={"max_width": WIDTH})
        _spare_what_is_loaded()
        self.redraw()
        self._draw_ahead(self._after(self._moves()))            # the first move is not to wait either

    def state(self) -> dict[str, Any]:
        """What the controls say."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Figure, sentence and table for the controls as they are."""
        try:
            self.figure.value, self.table.value, told = self._made(self.state())
        except M2KDError as error:          # a choice that is not allowed: the figure stays
            told = str(error)
        self.say(told)

    def forget(self) -> None:
        """Draw every figure anew from now on, because what they show has changed."""
        self._drawn = {}

    def _made(self, state: dict[str, Any]) -> tuple[str, str, str]:
        """Figure, table and sentence as HTML and text; those of the last `KEPT` states are kept."""
        known, drawn = repr(state), self._drawn         # another thread may make all be forgotten meanwhile, and this figure with it
        if known not in drawn:
            figure, told = self._render(**state), self._describe(**state)
            made = html_image(figure), scrolling(self._table(**state)) if self._table else "", told
            if len(drawn) == KEPT:
                del drawn[next(iter(drawn))]
            drawn[known] = made
        return drawn[known]

    def say(self, sentence: str) -> None:
        """Put a sentence in the place of the one that describes the figure."""
        self.text.value = status(sentence)

    def _changed(self, change: Any) -> None:
        self.redraw()
        moved = next(name for name, control in self.controls.items() if control is change.owner)
        likely = [(moved, value) for value in following(change.owner, change.old, change.new)]
        self._draw_ahead(self._after([*likely, *self._moves()]))

    def _moves(self) -> list[tuple[str, Any]]:
        """One move of each slider: its name and the value that it has then."""
        return [(name, value) for name, control in self.controls.items() if isinstance(control, SLIDERS) for value in beside(control)]

    def _after(self, moves: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
        """What the controls say after each of these moves; after the same one once."""
        return [self.state() | {name: value} for name, value in dict.fromkeys(moves)]

    def _draw_ahead(self, likely: list[dict[str, Any]]) -> None:
        """Draw, one in each pause, what the next move may ask for: first the same move once more, then one move of a slider."""
        if self._ahead:
            self._ahead.cancel()
        self._ahead = None
        likely = [state for state in likely if repr(state) not in self._drawn]

        def draw() -> None:
            with suppress(M2KDError):
                self._made(likely[0])
            self._draw_ahead(likely[1:])

        if likely:
            with suppress(RuntimeError):        # no event loop, as in a script: nobody waits
                self._ahead = asyncio.get_running_loop().call_later(PAUSE, draw)


def following(control: ipywidgets.ValueWidget, old: Any, new: Any) -> list[Any]:
    """The value that a control has after another move like the one from `old` to `new`: at most one, none beyond its ends."""
    values = values_of(control)
    place = 2 * values.index(new) - values.index(old) if old in values and new in values else -1
    return list(values[place:place + 1]) if place >= 0 else []


def beside(control: ipywidgets.ValueWidget) -> list[Any]:
    """The values that one move of a control away from its own leads to: at most two, the later one first."""
    values = values_of(control)
    if control.value not in values:
        return []
    place = values.index(control.value)
    return [*values[place + 1:place + 2], *values[max(0, place - 1):place]]


def values_of(control: ipywidgets.ValueWidget) -> Sequence[Any]:
    """All values of a control that has them in an order: choices, and whole numbers; none of any other."""
    if hasattr(control, "options"):             # a pair is a label and its value
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    if isinstance(control, ipywidgets.IntSlider):
        return range(control.min, control.max + 1, control.step)
    return []


@cache
def _spare_what_is_loaded() -> None:
    """Let the garbage collector go past what is loaded, once a process.

    A figure is tens of thousands of objects, so that Python goes through all objects of the kernel, torch's included, at every tenth move of a
    slider; that takes longer than the figure. What is loaded by then is hardly ever garbage.
    """
    gc.collect()
    gc.freeze()


def scrolling(table: str) -> str:
    """A table in a frame of its own, in which a phone scrolls; with the keyboard too, so the frame can have the focus."""
    return f'<div role="region" aria-label="The numbers of the figure" tabindex="0" style="overflow: auto">{table}</div>'


def status(sentence: str) -> str:
    """A sentence as a live region: a screen reader reads it out when it changes."""
    return f'<p role="status" aria-live="polite" style="line-height: 1.4">{escape(sentence)}</p>'

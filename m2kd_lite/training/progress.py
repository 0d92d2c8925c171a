"""Turns the library's events into what a person reads: bars on a terminal, plain lines in logs and notebooks."""
from __future__ import annotations

import time
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from m2kd_lite.errors import printable
from m2kd_lite.events import OnEvent

PLAIN_SECONDS = 5.0         # between plain lines about the same work


def describe(event: dict) -> str | None:
    """One line for an event, fit to be printed, or None where there is nothing to say."""
    text = _described(event)
    return None if text is None else printable(text)


def _described(event: dict) -> str | None:
    kind = event["event"]
    if kind == "notice":
        return event["text"]
    if kind == "run":
        return f"run {event['state']}: {event['folder']}"
    if kind == "cell":
        left = f"; about {in_words(event['seconds_left'])} left" if event["done"] < event["total"] else ""
        return f"[{event['done']}/{event['total']}] {event['state']} in {in_words(event['seconds'])}: {event['label']}{left}"
    if kind == "epoch":
        return (f"step {event['step']}/{event['steps']} {event['phase']} {event['epoch']}/{event['epochs']}: loss "
                f"{event['loss']:.4f}, lr {event['lr']:g}, {event['images_per_second']:.0f} images/s")
    if kind == "step":
        by_step = " ".join(f"{accuracy:.1f}" for accuracy in event["accuracy_by_step"])
        return (f"step {event['step']}/{event['steps']} done in {event['seconds']:.0f} s: top-1 {event['top1']:.1f} %, top-5 "
                f"{event['top5']:.1f} %; by step: {by_step}")
    return None


def in_words(seconds: float) -> str:
    """A time as a person says it: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain_lines(write=print) -> OnEvent:
    """A listener that writes a line per step and notice, and for anything that advances a line every few seconds."""
    last = {"time": time.monotonic()}

    def listen(event: dict) -> None:
        now = time.monotonic()
        quiet = event["event"] in ("epoch", "progress")
        if quiet and now - last["time"] < PLAIN_SECONDS:
            return
        text = describe(event)
        if text is None:
            text = f"{event['what']}: {event['done']}/{event['total']}"
        last["time"] = now
        write(text)

    return listen


@contextmanager
def terminal(console: Console | None = None):
    """A listener for the command line: a live bar where there is a terminal, plain lines otherwise."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        def write(text):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        yield plain_lines(write)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def listen(event: dict) -> None:
            if event["event"] == "progress":
                if event["what"] not in tasks:
                    for task in tasks.values():
                        bar.remove_task(task)
                    tasks.clear()
                    tasks[event["what"]] = bar.add_task(event["what"], total=event["total"])
                bar.update(tasks[event["what"]], completed=event["done"], total=event["total"])
            elif (text := describe(event)) is not None:
                bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield listen

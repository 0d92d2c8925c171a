"""How long a panel takes from a control's move to its new figure: `python -m benchmarks.panels`.

In the kernel, without the way to the browser. Each control's values are gone through, several times over; the longest one in
a hundred is said too, for Python's garbage collector passes by now and then.
"""
from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row, main
from m2kd_lite import data, widgets
from m2kd_lite.config import RunConfig
from m2kd_lite.training import train

GOAL = "<= 150"


def rows() -> Iterator[Row]:
    """One row a control of a panel."""
    explorer = widgets.explorer(["finetune", "lwf-mc", "m2kd-no-pruning", "m2kd"])
    yield from moves("explorer", explorer, "pruning_ratio", (0.6, 0.7, 0.75, 0.8, 0.9))
    yield from moves("explorer", explorer, "class_batch", (5, 10, 20, 50))
    yield from moves("stream viewer", widgets.stream_viewer(data.load("glyphs")), "class_batch", (5, 10, 20, 50))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train.run(RunConfig.make(dict(method="m2kd", dataset="digits", class_batch=2, profile="smoke")), run)
        stepper = widgets.reconstruction_stepper(run)
        yield from moves("stepper", stepper, "model", range(1, 6))
        yield from moves("stepper", stepper, "layer", stepper.controls["layer"].options)
        yield from moves("target viewer", widgets.target_viewer(run), "step", range(2, 6))


def moves(name: str, panel, control: str, values) -> Iterator[Row]:
    """The median and the longest of a hundred moves. What is computed once is computed before, in a first round."""
    taken = []
    for turn in range(1 + -(-100 // len(values))):
        for value in values:
            begun = time.perf_counter()
            panel.controls[control].value = value
            if turn:
                taken.append(1000 * (time.perf_counter() - begun))
    yield Row(f"{name}: {control.replace('_', ' ')} moved, until the figure is there", statistics.median(taken), "ms", GOAL,
              f"longest of {len(taken)}: {max(taken):.0f} ms")


if __name__ == "__main__":
    main(rows)

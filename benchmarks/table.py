"""What every benchmark here shares: a row of the table, and how rows are printed.

A benchmark is a module with a function `rows()` that yields `Row`s as it measures them. `python -m benchmarks.NAME` prints its
own table; `make bench` (`python -m benchmarks`) runs all of them, each in a fresh process, and prints one.
"""
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    what : what was measured, in words.
    value : the figure. Speeds of two ways are compared by ratios taken side by side in one run.
    unit : "x" for a ratio, "images/s", "s", "%", "bytes" ...
    goal : as ">= 2.2" or "<= 1.05"; empty where there is none.
    note : anything a reader needs to judge it.
    """

    what: str
    value: float
    unit: str
    goal: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """"met", "missed", or nothing where there is no goal."""
        if not self.goal:
            return ""
        sign, bound = self.goal.split()
        met = self.value >= float(bound) if sign == ">=" else self.value <= float(bound)
        return "met" if met else "MISSED"

    def __str__(self) -> str:
        value = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.3g}"
        return f"{self.what:<66} {value:>11} {self.unit:<10} {self.goal:<10} {self.verdict:<7} {self.note}".rstrip()


def main(rows: Callable[[], Iterator[Row]]) -> None:
    """Print the rows as they come; with --json, one JSON object a line, for `python -m benchmarks`."""
    for row in rows():
        print(json.dumps(asdict(row)) if "--json" in sys.argv else row, flush=True)

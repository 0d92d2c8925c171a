"""What a few runs say of the paper's claims, in sentences that are made from them and true whatever they say.

What is left of the first classes, the accuracy after the last step, the average over the steps, the bytes. Runs are rows of a bank
(`bank.py`), one list a run. Called by the demonstration; its page begins with these sentences.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Run = Sequence[Mapping[str, Any]]
LEVEL = 0.05            # points: what is nearer than that is the same number once it is rounded to a tenth


class Ends(NamedTuple):
    """A run in four numbers: per cent that is left of the first step's classes, after the last step, on average; bytes since step 1."""

    left: float
    last: float
    average: float
    added: int

    @classmethod
    def of(cls, run: Run) -> Ends:
        """From the rows of a run, step by step."""
        end = run[-1]
        return cls(end["accuracy_by_step"][0], end["top1"], end["average_incremental_accuracy"], end["bytes_total"] - run[0]["bytes_total"])


def lead(tuned: Run, chain: Run, whole: Run, pruned: Run) -> str:
    """One sentence on four runs of one stream: `finetune`, `lwf-mc`, `m2kd-no-pruning` and `m2kd`."""
    forgets, follows, keeps, packs = (Ends.of(run) for run in (tuned, chain, whole, pruned))
    return (f"Of the first {tuned[0]['classes_seen']} classes fine-tuning still knows {forgets.left:.1f} % after step {len(tuned)}, LwF-MC "
            f"{follows.left:.1f} %, M²KD {keeps.left:.1f} %, and {packs.left:.1f} % with pruning; M²KD ends "
            f"{apart(keeps.last - follows.last)} LwF-MC and is {apart(keeps.average - follows.average)} it on average; pruned, it ends "
            f"{apart(packs.last - follows.last)} LwF-MC, "
            f"and adds {packs.added / 1e6:.2f} MB where whole models add {keeps.added / 1e6:.2f} MB.")


def seeds(chain: Sequence[Run], whole: Sequence[Run]) -> str:
    """In how many seeds M²KD without pruning was above LwF-MC, and by how much: of runs measured before. Empty for fewer than two.

    Parameters
    ----------
    chain, whole : runs of `lwf-mc` and `m2kd-no-pruning`, which are compared seed by seed.
    """
    first, second = ({run[0]["seed"]: Ends.of(run) for run in runs} for runs in (chain, whole))
    both = sorted(first.keys() & second.keys())
    if len(both) < 2:
        return ""
    told = []
    for name, where in (("left", "in what is left of the first classes"), ("last", "after the last step"), ("average", "on average")):
        points = [getattr(second[seed], name) - getattr(first[seed], name) for seed in both]
        above = sum(gain >= LEVEL for gain in points)
        told.append(f"{where} in {above} of {len(both)} ({', '.join(f'{gain:+.1f}' for gain in points)} points)")
    which = ", ".join(map(str, both))
    return f"One run is one draw. Measured before, with seeds {which}: M²KD without pruning is above LwF-MC {'; '.join(told)}."


def apart(points: float) -> str:
    """A difference in words, to stand before what it is from: "1.2 points above", "0.3 points below", "level with"."""
    if abs(points) < LEVEL:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"

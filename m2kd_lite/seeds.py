"""Stateless randomness: what is drawn depends on where the run is, never on what was drawn before.

Every draw comes from `SeedSequence([seed, step, phase, epoch])`, so a run resumed in the middle draws what the
uninterrupted one drew. Used by `nets.py`, `train.py` and `data/stream.py`.
"""
from __future__ import annotations

import numpy as np

PHASES = {"init": 0, "heads": 1, "train": 2, "finetune": 3, "order": 4, "paint": 5, "critic": 6, "draw": 7}


def generator(seed: int, step: int, phase: str, epoch: int = 0) -> np.random.Generator:
    """A numpy generator for one place of one run."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step, PHASES[phase], epoch])))


def torch_seed(seed: int, step: int, phase: str) -> int:
    """A seed for `torch.manual_seed`, which takes one number."""
    return int(np.random.SeedSequence([seed, step, PHASES[phase], 0]).generate_state(1, np.uint64)[0] >> 1)

"""What a model says of images whose classes it has never seen, and how much of each step the last model still tells apart.

`python -m benchmarks.unseen RUN ... [--bank FILE]` asks the models of a run, finished or not, about test images, and adds what they say to a table:
`benchmarks/unseen.csv` has the runs of docs/measured.md. A teacher is asked about nothing but images that are new to it.
"""
from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from m2kd_lite.data.shards import Images, chosen
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.method.nets import IncrementalNet, at_once
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training.rundir import read_config

BATCH = 250
NAMED_BY = ("method", "class_batch", "profile", "augment", "seed")


def models_of(run: Path) -> Snapshots:
    """The models of the steps that a run has finished.

    Raises
    ------
    BadInput : it has finished none.
    """
    saved = [path for path in (run / "snapshots.safetensors", *sorted((run / "checkpoint").glob("models-*.safetensors"))) if path.exists()]
    longest = max((Snapshots.load(path) for path in saved), key=len, default=None)
    if not longest:
        raise BadInput(f"{run}: no step of this run has ended yet")
    return longest


@torch.no_grad()
def logits_of(net: IncrementalNet, images: Images, columns: range) -> Tensor:
    """(N, len(columns)) float32: the main head's logits of these classes, for (N, C, H, W) uint8."""
    batch = at_once(images, BATCH)
    return torch.cat([net(images[start:start + batch])[0][:, columns.start:columns.stop] for start in range(0, len(images), batch)])


def largest(logits: Tensor) -> float:
    """The largest output of an image, as a sigmoid, on average."""
    return logits.sigmoid().amax(1).mean().item()


def share_right(logits: Tensor, labels: Tensor) -> float:
    """Per cent whose largest logit is that of the label."""
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def rows_of(run: Path) -> list[dict]:
    """One row a step.

    `own`, `next`: the largest output for a class of this step, a sigmoid, on average over test images of this step's classes, and of the next
    step's, by the model that learnt this step first-hand; `next` is NaN for the last. `learnt`, `kept`: per cent of this step's test images whose
    largest output among the step's own classes is the right one, by that model, and by the last.

    Raises
    ------
    BadInput, DamagedFile : no run, none of its steps has ended, its images are gone, or a file of it was altered.
    """
    config = read_config(run)
    stream, models, rebuild = ClassStream.of_run(config), models_of(run), METHODS[config.method].rebuild
    last = models.reconstruct(len(models), rebuild)
    images, labels = stream.test(min(len(models) + 1, len(stream)))
    by_step = [(labels >= own.start) & (labels < own.stop) for own in stream.columns[:len(models) + 1]]
    rows = []
    for step, columns in enumerate(stream.columns[:len(models)], 1):
        net, mine, right = models.reconstruct(step, rebuild), chosen(images, by_step[step - 1]), labels[by_step[step - 1]] - columns.start
        said = logits_of(net, mine, columns)
        coming = logits_of(net, chosen(images, by_step[step]), columns) if step < len(stream) else None
        rows.append({
            "data_sha256": stream.sha256[:16], **{name: getattr(config, name) for name in NAMED_BY}, "step": step, "of": len(models),
            "own": largest(said), "next": math.nan if coming is None else largest(coming),
            "learnt": share_right(said, right), "kept": share_right(logits_of(last, mine, columns), right)})
    return rows


def main() -> None:
    """Ask, print, and add to the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--bank", type=Path, metavar="FILE", help="a table that gets the rows, in place of older ones of the same runs")
    asked = parser.parse_args()
    try:
        table = pd.DataFrame([row for run in asked.runs for row in rows_of(run)])
    except (BadInput, DamagedFile) as error:
        parser.error(str(error))
    print(table.drop(columns="data_sha256").to_string(index=False, float_format="{:.2f}".format))
    if asked.bank:
        before = [pd.read_csv(asked.bank)] if asked.bank.exists() else []
        key = ["data_sha256", *NAMED_BY, "step"]
        pd.concat([*before, table]).drop_duplicates(key, keep="last").sort_values(key).round(4).to_csv(asked.bank, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())

"""Fills the results banks by real runs: `python -m benchmarks.fill BANK [--workers N]`.

A bank is a list of runs and a table, data/results/BANK.csv. What is in the table is left; what is missing is trained, one
thread a run, as many runs at once as there are cores, and written after each run. It can be stopped and called again: runs lie
in runs/fill/ until they are finished.
Run it from a clean checkout: each row names the revision that made it.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from unittest import mock

from benchmarks import traps
from m2kd_lite import data
from m2kd_lite.config import EXEMPLAR_METHODS, RunConfig
from m2kd_lite.course import notebook
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import LayerExhausted
from m2kd_lite.method import nets
from m2kd_lite.method.table import METHODS
from m2kd_lite.results import bank
from m2kd_lite.training import loop, recompute, train
from m2kd_lite.training.rundir import read_run

SEEDS = (0, 1, 2)
M2KD = "m2kd-no-pruning"
RELU = "ReLU after the last block"
WARM_UPS = {"rate warmed up over 5 epochs": 5, "rate warmed up over 2 epochs": 2}       # variant to epochs

# Outputs that begin at a prior, and at one half; docs/start.md.
PRIOR, HALF = dict(prior=0.05), dict(prior=0.5)
# As in lessons 01 to 04 and 07: four steps of 25 drawn characters, 7 epochs each, ResNet-8.
LESSON = dict(class_batch=25, epochs=7) | PRIOR
# The demonstration of lesson 00: two steps of five digits.
DEMONSTRATION = dict(dataset="digits", class_batch=5) | PRIOR

# (variant, settings), where a variant other than "" is no plain row of method/table.py; see `method_of`.
LESSONS = (
    ("", LESSON | dict(method="finetune")),
    ("all classes at once", LESSON | dict(method="finetune", class_batch=100)),
    ("", LESSON | dict(method="lwf-mc")),
    ("", LESSON | dict(method=M2KD)),
    ("no auxiliary head", LESSON | dict(method=M2KD)),
    ("", LESSON | dict(method=M2KD, alpha=0.0)),
    ("", LESSON | dict(method=M2KD, alpha=2.0)),
    ("", LESSON | dict(method=M2KD, lambda_aux=0.3)),
    ("", LESSON | dict(method="icarl", exemplars=100)),
    ("", DEMONSTRATION | dict(method="finetune")),
    ("", DEMONSTRATION | dict(method="lwf-mc")),
)
RATIOS = (0.8, 0.6, 0.7, 0.75, 0.9)
CHAINS = ("finetune", "lwf-mc", M2KD)


def grid(class_batch: int, *methods: str, start: dict = PRIOR) -> tuple:
    """These methods, with the profile `quick`."""
    return tuple(("", start | dict(class_batch=class_batch, method=method)) for method in methods)


def ratios(class_batch: int) -> tuple:
    """M²KD at every pruning ratio. Not every ratio lasts for every number of steps: the first layer of ResNet-8 has 432 weights for images in
    colour."""
    return tuple((variant, settings | dict(pruning_ratio=ratio)) for variant, settings in grid(class_batch, "m2kd") for ratio in RATIOS)


# What may be remembered, where a drawing takes more than a digit: a painter, taught for a fifth of its epochs so that the run takes minutes,
# and images. 200 are fewer bytes than the painter, 317 (three a class) nearly as many, 500 more.
DRAWN = (("", PRIOR | dict(class_batch=20, method="dgm", generator_epochs=12)),
         *(("", PRIOR | dict(class_batch=20, method="icarl", exemplars=kept)) for kept in (317, 500)))
# What the lessons and the figures need, and then, the dearest last, what the explorer can show besides.
GRID = ((grid(20, *CHAINS, "m2kd", "scaled", "ewc", "rwalk", *EXEMPLAR_METHODS), SEEDS), (ratios(20), SEEDS), (DRAWN, SEEDS),
        (grid(10, *CHAINS, "m2kd", *EXEMPLAR_METHODS), SEEDS), (grid(50, *CHAINS, "m2kd"), SEEDS), (grid(5, *CHAINS, "m2kd"), SEEDS),
        *((grid(batch, "joint"), SEEDS) for batch in (20, 50)),
        *((ratios(batch), SEEDS) for batch in (10, 50, 5)), *((grid(batch, "joint"), SEEDS) for batch in (10, 5)))
# The first step of CIFAR-100 by 20 at the paper's size, one change at a time: what each choice of the recipe is worth.
FIRST_STEP = dict(method=M2KD, dataset="imagefolder", data_root="data/cifar100", class_batch=20, profile="paper", precision="bf16", steps=1)
ICARL_SCHEDULE = dict(epochs=70, milestones=(49, 63), weight_decay=2e-5)
CROPS = dict(augment="crop")
STEP_1 = (
    ("", FIRST_STEP | ICARL_SCHEDULE | PRIOR),
    ("", FIRST_STEP | ICARL_SCHEDULE | PRIOR | dict(weight_decay=5e-5)),
    ("", FIRST_STEP | ICARL_SCHEDULE | dict(weight_decay=5e-5)),
    ("", FIRST_STEP | dict(weight_decay=5e-5)),
    ("", FIRST_STEP | ICARL_SCHEDULE),
    ("", FIRST_STEP),
    ("", FIRST_STEP | PRIOR),
    ("", FIRST_STEP | ICARL_SCHEDULE | CROPS),
    ("", FIRST_STEP | ICARL_SCHEDULE | CROPS | PRIOR),
    ("", FIRST_STEP | dict(weight_decay=2e-5)),
    ("", FIRST_STEP | ICARL_SCHEDULE | dict(weight_decay=1e-5)),
    ("", FIRST_STEP | dict(milestones=(40, 72))),
    ("", FIRST_STEP | CROPS),
    ("", FIRST_STEP | dict(normaliser="seen")),
    ("", FIRST_STEP | dict(method="lwf-mc")),
    ("", FIRST_STEP | ICARL_SCHEDULE | dict(method="lwf-mc")),
    ("", FIRST_STEP | ICARL_SCHEDULE | PRIOR | dict(method="lwf-mc")),
    ("rate warmed up over 5 epochs", FIRST_STEP | ICARL_SCHEDULE),
    (RELU, FIRST_STEP | ICARL_SCHEDULE),
    ("mean per pixel", FIRST_STEP | ICARL_SCHEDULE),
    ("", FIRST_STEP | ICARL_SCHEDULE | dict(precision="fp32")),
)
# How outputs should begin at the size of a lesson, decided on seeds that no other bank has; the rule is in docs/start.md. One half was the
# profile's start then, and all of the candidates but two keep it.
JUDGES = ("lwf-mc", M2KD, "m2kd")
CANDIDATES = (("", HALF), ("", PRIOR), ("", dict(prior=0.01)), ("", HALF | dict(normaliser="seen")),
              ("rate warmed up over 2 epochs", HALF), ("rate of the heads a fifth", HALF))
FIRST_STEPS = tuple((variant, dict(method=method, class_batch=20, steps=1) | change) for variant, change in CANDIDATES for method in JUDGES)
WHOLE = tuple(("", dict(method=method, class_batch=batch) | change)
              for batch in (20, 10) for change in (PRIOR, HALF) for method in JUDGES)
# Every method as it was before; after is in the grid. (Scaled has a softmax, and no such start.)
REPORTED = (*grid(20, *CHAINS, "m2kd", "ewc", "rwalk", *EXEMPLAR_METHODS, "joint", start=HALF),
            *(run for batch in (50, 10, 5) for run in grid(batch, *CHAINS, "m2kd", start=HALF)))
DECIDING = (10, 11, 12)
# Rows of our own, composed of others: a method decides as Scaled does, or after weight aligning. They are trained as the method is, so that
# one run is asked for both. Or its main head is LUCIR's.
DECISIONS = ("rescaled", "aligned")
COSINE = "cosine head"


def composed(settings: dict) -> tuple:
    """The composed rows of the three methods that distil, with these settings."""
    return tuple((variant, settings | dict(method=method)) for method in (M2KD, "lwf-mc", "m2kd") for variant in (DECISIONS[0], COSINE))


COMPOSED = composed(PRIOR | dict(class_batch=20))
# Every method where a run takes seconds: two digits a step. 50 exemplars are five a class at the end.
DIGITS = dict(dataset="digits", class_batch=2) | PRIOR
MEMORIES = (*(("", DIGITS | dict(method=method)) for method in ("finetune", "lwf-mc", M2KD, "m2kd", "joint", "scaled", "ewc", "rwalk", "dgm")),
            *(("", DIGITS | dict(method=method, exemplars=50)) for method in EXEMPLAR_METHODS), ("", DIGITS | dict(method="icarl", exemplars=20)),
            *composed(DIGITS))
# iCaRL on CIFAR-100 at the size of a lesson (experiments/cifar_lab.yaml), and with one mistake each. A run as it should be is asked again for
# the mistakes that need no training.
ICARL = PRIOR | dict(method="icarl", dataset="imagefolder", data_root="data/cifar100", class_batch=20, train_per_class=200, precision="bf16",
                     exemplars=800)
TRAPS = tuple((variant, ICARL) for variant in (traps.UNSEEN, traps.TRAIN_MODE, RELU))
# Bank to its lists of (runs, seeds).
BANKS = {"lessons": ((LESSONS, SEEDS),), "glyphs_grid": GRID, "step1": ((STEP_1, (0,)),),
         "composed": ((COMPOSED, SEEDS),), "traps": ((TRAPS, SEEDS),), "digits": ((MEMORIES, SEEDS),),
         "start": ((WHOLE, DECIDING), (FIRST_STEPS, DECIDING), (REPORTED, SEEDS))}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", choices=BANKS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    path = Path("data") / "results" / f"{asked.bank}.csv"
    table = bank.load(path) if path.exists() else None
    rows = [] if table is None else table.to_dict("records")
    there = {bank.key(row) for row in rows}
    runs = [(variant, RunConfig.make(settings | {"seed": seed})) for some, seeds in BANKS[asked.bank] for seed in seeds for variant, settings in some]
    wanted = {known_by(*run): run for run in runs}          # in this order, each once: two lists of the grid share M²KD at the profile's ratio
    missing = [run for known, run in wanted.items() if known not in there]
    print(f"{asked.bank}: {len(wanted) - len(missing)} of {len(wanted)} runs are there", flush=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}       # read by the workers when they load torch
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn"), notebook.end_with_parent) as pool:
        for done, future in enumerate(as_completed([pool.submit(measure, *run) for run in missing]), 1):
            try:
                new = future.result()
            except LayerExhausted as error:
                print(f"{done}/{len(missing)} cannot be run: {error}", flush=True)
                continue
            rows += new
            bank.save(sorted(rows, key=order), path)
            print(f"{done}/{len(missing)} {' '.join(map(str, bank.key(new[0])))}: "
                  f"average {new[0]['average_incremental_accuracy']:.1f} %", flush=True)


def known_by(variant: str, config: RunConfig) -> tuple[str, ...]:
    """The key that the rows of a run will have; images of a folder are known by their content."""
    images = data.load(config.dataset, config.data_root).sha256[:16] if config.dataset == "imagefolder" else ""
    return bank.key({"variant": variant, "data_sha256": images, **config.model_dump()})


def measure(variant: str, config: RunConfig) -> list[dict]:
    """One run, or the rest of it, as rows; its folder goes when it is finished."""
    name = hashlib.sha256(repr((variant, config.model_dump())).encode()).hexdigest()[:16]
    folder = Path("runs") / "fill" / name
    with changed(variant):
        rows = bank.rows(train.run(config, folder, resume=True, method=method_of(variant, config.method)), variant)
    if variant in DECISIONS:
        rows = [row for decision in DECISIONS for row in decided(folder, decision)]
    if variant in traps.DECIDED:
        rows = [row for decision in ("", *traps.DECIDED) for row in traps.asked_again(read_run(folder), decision)]
    shutil.rmtree(folder)
    return rows


def decided(folder: Path, decision: str) -> list[dict]:
    """The rows of a finished run, had it decided so."""
    run = read_run(folder)
    row = replace(METHODS[run.config.method], decision=decision)
    return bank.rows(recompute.again(run, ClassStream.of_run(run.config), row), decision)


def method_of(variant: str, name: str):
    """The row of method/table.py, changed as the variant says."""
    changes: dict[str, dict] = {"no auxiliary head": dict(auxiliary=False), COSINE: dict(cosine=True),
                                traps.TRAIN_MODE: dict(fill=traps.teachers_in_train_mode)}
    return replace(METHODS[name], **changes.get(variant, {}))


@contextlib.contextmanager
def changed(variant: str):
    """What no setting says, for as long as a run takes: parts of the recipe that others have and section 4.1 has not."""
    with contextlib.ExitStack() as stack:
        if variant in WARM_UPS:
            plain, epochs = RunConfig.learning_rate, WARM_UPS[variant]
            stack.enter_context(mock.patch.object(RunConfig, "learning_rate",
                                                  lambda config, epoch: plain(config, epoch) * min(1.0, (epoch + 1) / (epochs + 1))))
        elif variant == "rate of the heads a fifth":
            begin = loop.Update.__init__

            def slowed(update, net, *arguments, **named):
                begin(update, net, *arguments, **named)
                for name, parameter in net.named_parameters():
                    if name.startswith(("main.", "auxiliary.")) and not parameter._backward_hooks:      # a phase goes on with the same ones
                        parameter.register_hook(lambda gradient: gradient * 0.2)
            stack.enter_context(mock.patch.object(loop.Update, "__init__", slowed))
        elif variant == RELU:
            real = nets.BasicBlock.__init__
            stack.enter_context(mock.patch.object(nets.BasicBlock, "__init__",
                                                  lambda block, *sizes, last, **named: real(block, *sizes, last=False, **named)))
        elif variant == "mean per pixel":           # and no deviation, as in iCaRL's code

            def of_every_pixel(net, images):
                net.pixel_mean, net.pixel_std = images.float().mean(0, keepdim=True), net.pixel_std * 255
            stack.enter_context(mock.patch.object(nets.IncrementalNet, "set_pixel_statistics", of_every_pixel))
        yield


def order(row: dict) -> tuple:
    """Rows of a table as a reader looks for them."""
    return (row["dataset"], row["precision"], row["class_batch"], row["method"], row["variant"], row["pruning_ratio"],
            row["alpha"], row["lambda_aux"], row["epochs"], row["seed"], row["step"])


if __name__ == "__main__":
    sys.exit(main())

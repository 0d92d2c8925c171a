"""Kill runs with SIGKILL at random moments, resume them, and compare every byte with an undisturbed run's.

    python -m benchmarks.kills --kills 60

Every other kill comes from a clock. The rest come at moments too short for a clock to meet: the process counts its calls
of one function and kills itself at a random one. Each run is killed again and again until it gets through; then its
`snapshots.safetensors` is compared byte for byte, and `metrics.json` without its times. Prints one line a kill with the
place the run had reached, then counts; ends with status 1 at the first difference.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SETTINGS = ["--dataset", "digits", "--class-batch", "4", "--profile", "smoke", "--precision", "fp32", "--batch-size", "16"]
USUAL = ["--epochs", "6", "--finetune-epochs", "3", "--train-per-class", "100"]
SMALL = ["--epochs", "2", "--finetune-epochs", "1", "--train-per-class", "40"]
MOMENTS = ("in the middle of a prune", "with half a file written", "with a file written and synced", "before a rename", "after a rename")


class Axe:
    """Counts what this process does at each of `MOMENTS`, and kills it at the n-th time of one.

    It wraps the functions from outside; the library knows nothing of it.
    """

    def __init__(self, moment: str = "", number: int = 0):
        self.moment, self.number, self.counts = moment, number, Counter()

    def install(self) -> None:
        from m2kd_lite.method import masks
        real_sync, real_replace, real_count = os.fsync, os.replace, masks.kept_count

        def fsync(handle):
            if stat.S_ISREG(os.fstat(handle).st_mode):      # a folder is synced too
                self.pass_by("with half a file written", lambda: os.ftruncate(handle, os.fstat(handle).st_size // 2))
                real_sync(handle)
                self.pass_by("with a file written and synced")
            else:
                real_sync(handle)

        def replace(source, target):
            self.pass_by("before a rename")
            real_replace(source, target)
            self.pass_by("after a rename")

        def kept_count(*arguments):                         # asked once a layer
            self.pass_by("in the middle of a prune")
            return real_count(*arguments)

        os.fsync, os.replace, masks.kept_count = fsync, replace, kept_count

    def pass_by(self, moment: str, last_act=lambda: None) -> None:
        self.counts[moment] += 1
        if moment == self.moment and self.counts[moment] == self.number:
            last_act()
            os.kill(os.getpid(), signal.SIGKILL)


def child(arguments: list[str], axe: Axe, every: float, counts_to: Path | None) -> None:
    """The command line in this process, silent, with a checkpoint every so many seconds."""
    from m2kd_lite import cli
    from m2kd_lite.training import train
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1), os.dup2(silence, 2)
    train.CHECKPOINT_SECONDS = every
    axe.install()
    try:
        cli.main(arguments)
    finally:
        if counts_to:
            counts_to.write_text(json.dumps(axe.counts))


def run(method: str, out: Path, sizes: list[str], *, axe: Axe | None = None, every: float = 30.0, seconds: float | None = None,
        counts_to: Path | None = None) -> int:
    """A run in a process of its own, begun or gone on with; killed after `seconds`. Returns its exit status."""
    arguments = ["run", "--method", method, *SETTINGS, *sizes, "--out", str(out), "--resume"]
    process = processes().Process(target=child, args=(arguments, axe or Axe(), every, counts_to))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def processes():
    """Processes are forked from one that has everything loaded, so that kills meet runs and not imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["m2kd_lite.training.train", "m2kd_lite.cli", "sklearn.datasets", "torch._dynamo"])
    return context


def outcome(out: Path) -> tuple[str, str]:
    """Digests of the snapshots, and of the metrics without what a clock or the machine says."""
    metrics = json.loads((out / "metrics.json").read_text())
    for key in ("wall_seconds", "sha256", "environment"):
        metrics.pop(key)
    for step in metrics["steps"]:
        step.pop("train_seconds"), step.pop("teacher_seconds")
    return (hashlib.sha256((out / "snapshots.safetensors").read_bytes()).hexdigest(),
            hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest())


def place(out: Path) -> str:
    """What a killed run left behind, in words."""
    if not out.exists():
        return "before anything was written"
    if list(out.glob("**/.*.tmp")):
        return "in the middle of writing a file"
    whole = [line for line in _text(out / "events.jsonl").splitlines(keepends=True) if line.endswith("\n")]
    if not whole:
        return "before its first epoch ended"
    last = json.loads(whole[-1])
    return f"after step {last['step']}, {last['phase']} epoch {last['epoch']}/{last['epochs']}"


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def being_written(out: Path) -> str:
    """The kind of file whose temporary a killed run left, as " (state)"; nothing where there is none."""
    kinds = {path.name.split(".")[1].split("-")[0] for path in out.glob("**/.*.tmp")}
    return f" ({', '.join(sorted(kinds))})" if kinds else ""


class Kills:
    """All trials of one call, and what has been counted."""

    def __init__(self, folder: Path, seed: int, sizes: list[str]):
        self.folder, self.sizes, self.draw = folder, sizes, random.Random(seed)
        self.places, self.met = Counter(), Counter()
        self.done = self.strikes = 0
        self.seconds, self.expected, self.calls = {}, {}, {}

    def measure(self, method: str) -> None:
        """Run `method` undisturbed: its outcome, its seconds, and how often it passes each moment."""
        out, counts = self.folder / f"whole-{method}", self.folder / f"counts-{method}.json"
        began = time.monotonic()
        if run(method, out, self.sizes, counts_to=counts):
            sys.exit(f"{method}: the undisturbed run failed")
        self.seconds[method], self.expected[method] = time.monotonic() - began, outcome(out)
        self.calls[method] = json.loads(counts.read_text())

    def strike(self, method: str, out: Path) -> int:
        """Run, or go on, under one axe; counts the kill if it fell. Returns the exit status."""
        moment, axe, seconds = "", Axe(), None
        self.strikes += 1
        if out.exists() and self.strikes % 2:
            seconds = self.draw.uniform(0.2, self.seconds[method])
        else:       # the moment that was met least; early numbers, for a run that goes on has fewer before it
            moment = min(self.calls[method], key=lambda name: (self.met[name], MOMENTS.index(name)))
            axe = Axe(moment, self.draw.randint(1, max(1, self.calls[method][moment] // 2)))
        status = run(method, out, self.sizes, axe=axe, every=self.draw.choice([0.1, 30.0]), seconds=seconds)
        if status == -signal.SIGKILL:
            self.done += 1
            self.met[moment] += 1
            where = moment + being_written(out) if moment else place(out)
            self.places[where.split(" epoch")[0]] += 1
            print(f"kill {self.done}: {method}, {where}", flush=True)
        return status

    def trial(self, number: int, wanted: int) -> None:
        """One run, killed until it gets through or there have been enough kills; then it must equal the undisturbed one."""
        method, out = ("m2kd", "lwf-mc")[number % 2], self.folder / f"trial-{number}"
        status = -signal.SIGKILL
        while status == -signal.SIGKILL and self.done < wanted:
            status = self.strike(method, out)
        if status == -signal.SIGKILL:
            status = run(method, out, self.sizes)
        if status or outcome(out) != self.expected[method] or list(out.glob("**/.*.tmp")):
            sys.exit(f"{method}, trial {number}: differs from the undisturbed run (status {status})")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--small", action="store_true", help="runs of a second, as the tests use them")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        kills, trials = Kills(Path(folder), options.seed, SMALL if options.small else USUAL), 0
        first = processes().Process(target=int)             # waits until all is loaded
        first.start(), first.join()
        for method in ("lwf-mc", "m2kd"):
            kills.measure(method)
        while kills.done < options.kills:
            kills.trial(trials, options.kills)
            trials += 1
    print(f"{kills.done} kills over {trials} runs; every run ended with the bytes of the undisturbed one")
    for where, count in sorted(kills.places.items()):
        print(f"  {count:3} {where}")


if __name__ == "__main__":
    main()

"""Many runs: the cells of a plan handed to an executor, tried again where a machine was at fault, until all are done.

The executor is any `concurrent.futures.Executor`: this process, a pool of processes, or a cluster's. A sweep's folder is

    DIR/sweep.json (what the folders are)  DIR/KEY/full_run.ipynb  DIR/KEY/run/

and nothing else is remembered: a call finds what is finished, and goes on. Called by `cli.py`.
"""
from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, \
    ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
from filelock import FileLock, Timeout

from m2kd_lite.errors import TIME_LIMIT, BadInput, Interrupted, M2KDError
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.files import storage
from m2kd_lite.sweeps import cost
from m2kd_lite.sweeps.cell import RUN, STOP, Outcome, is_finished, prepare_worker, run_cell
from m2kd_lite.sweeps.spec import Cell, Plan

RETRIES = 2                 # of a cell, and of an executor with no cell finished in between
POLL_SECONDS = 0.2          # how soon a Ctrl-C is heard
CONNECT_SECONDS = 30        # for a scheduler to answer, and to come back

OpenExecutor = Callable[[], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class Place:
    """Where cells run: how to open the executor, how many run there at once (None: not known), and about how many seconds
    each takes, by its key (None: not known)."""

    open: OpenExecutor
    workers: int | None = None
    estimates: Mapping[str, float] | None = None


# ---- where it runs --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_process() -> Iterator[Executor]:
    """One cell at a time, run by this process, with its own environment."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextlib.contextmanager
def processes(workers: int, threads: int, gpus: int = 0) -> Iterator[Executor]:
    """Processes on this machine, of so many threads each, that take its GPUs by turns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, prepare_worker, (context.Value("i", 0), threads, gpus)) as pool:
        yield pool


def threads_for(workers: int) -> int:
    """An even share of the cores: more threads than cores crawl."""
    return max(1, joblib.cpu_count() // max(1, workers))


def cluster(address: str, needs_gpu: bool = False) -> OpenExecutor:
    """Opens the workers of a dask.distributed scheduler; with `needs_gpu`, those started with --resources "GPU=1".

    Raises
    ------
    BadInput : when opened: distributed is not installed, or no scheduler answers.
    """
    @contextlib.contextmanager
    def opened() -> Iterator[Executor]:
        try:
            from distributed import Client
        except ImportError:
            raise BadInput("--scheduler: needs dask's distributed; install it with: python -m pip install distributed") from None
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)      # what is lost is said here, in our words
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"--scheduler {address}: no scheduler answers there ({type(error).__name__})") from None
        try:
            yield client.get_executor(resources={"GPU": 1} if needs_gpu else {})
        finally:
            client.close()
    return opened


def place(plan: Plan, out: Path, workers: int | None = None, scheduler: str | None = None, on_event: OnEvent = ignore) -> Place:
    """Where a plan's cells shall run; says in one line what that will cost.

    Parameters
    ----------
    workers : cells at once on this machine; 0 for this process itself; None for one a GPU, or one a core.
    scheduler : address of a cluster, in place of this machine.

    Raises
    ------
    BadInput : a device that is not here, where the cells would run here.
    """
    todo, estimates = [cell for cell in plan.cells if not is_finished(Path(out) / cell.key)], None
    if scheduler:
        needs_gpu = any(cell.config.device.startswith("cuda") for cell in plan.cells)
        with contextlib.suppress(BadInput):
            estimates = cost.seconds(plan.cells, threads=1)
        found = Place(cluster(scheduler, needs_gpu), None, estimates)
    else:
        gpus = torch.cuda.device_count() if any(cell.config.device != "cpu" for cell in todo) else 0
        if workers is None:
            workers = max(1, min(gpus or joblib.cpu_count(), len(todo)))
        threads = threads_for(workers)
        estimates = _measured_aside(plan, threads, gpus) if gpus else cost.seconds(plan.cells, threads)
        found = Place(functools.partial(processes, workers, threads, gpus) if workers else in_process, max(1, workers), estimates)
    on_event({"event": "notice", "text": cost.announce(plan, todo, estimates, found.workers)})
    return found


def _measured_aside(plan: Plan, threads: int, gpus: int) -> dict[str, float]:
    """The estimates, from a process that lets go of the GPU when it ends: some GPUs serve one process at a time."""
    with processes(1, threads, gpus) as pool:
        return pool.submit(cost.seconds, plan.cells, threads).result()


# ---- the sweep ------------------------------------------------------------------------------------------------------


def run(plan: Plan, out: Path, place: Place, on_event: OnEvent = ignore,
        should_stop: Callable[[], int | None] = lambda: None) -> None:
    """Run the cells of `plan` that are not finished yet.

    Parameters
    ----------
    plan : what to run.
    out : the sweep's folder; new, or of an earlier sweep. Workers must see it under the same path.
    place : where; its executor is opened again if it breaks.
    on_event : receives notices, an event "cell" whenever one ends, and progress.
    should_stop : asked several times a second; a number lets the running cells write a checkpoint and raises
        `Interrupted` with that exit status.

    Raises
    ------
    BadInput : the folder holds something else, or another sweep is at work there.
    M2KDError : cells failed; lists them with their tracebacks. Or the workers were lost too often.
    Interrupted : on request; the same call goes on.
    """
    storage.check_local(out)
    out = Path(out).resolve()
    with _claimed(out, plan):
        _Sweep(plan, out, place, on_event, should_stop).run()


@contextlib.contextmanager
def _claimed(out: Path, plan: Plan) -> Iterator[None]:
    """Hold the folder, write down what its cells are, and forget that an earlier call was asked to stop."""
    try:
        if out.exists() and not (out / "sweep.json").is_file() and any(
                item.name != ".lock" and not storage.is_leftover(item, ["sweep.json"]) for item in out.iterdir()):
            raise BadInput(f"--out {out}: not the folder of a sweep; give a new folder")
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"--out {out}: another sweep is running there; wait for it, or give another folder") from None
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be used ({error.strerror or error})") from None
    try:
        cells = {cell.key: {"label": cell.label, "config": cell.config.model_dump(mode="json")} for cell in plan.cells}
        storage.save_json(out / "sweep.json", {"schema": 1, "code": plan.code, "cells": cells})
        for stop in (out / STOP, *(out / cell.key / RUN / STOP for cell in plan.cells)):
            stop.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class _Sweep:
    """One call of `run`: which cells wait, which failed, and how far it is."""

    def __init__(self, plan: Plan, out: Path, place: Place, on_event: OnEvent, should_stop):
        self.cells, self.code, self.out, self.place = plan.cells, plan.code, out, place
        self.on_event, self.should_stop = on_event, should_stop
        self.costs = place.estimates or {cell.key: cell.passes for cell in plan.cells}
        self.waiting = [cell for cell in plan.cells if not is_finished(out / cell.key)]
        self.failures: dict[Cell, str] = {}
        self.losses: Counter[str] = Counter()
        self.stopping: int | None = None
        self.begun, self.seconds, self.cost = time.monotonic(), 0.0, 0.0        # of the cells that this call has run

    def run(self) -> None:
        breaks = 0
        while self.waiting and self.stopping is None:
            before = len(self.waiting)
            try:
                with self.place.open() as executor:
                    self._drain(executor)
            except (BrokenExecutor, CancelledError, BadInput) as error:
                if isinstance(error, BadInput) and not breaks:
                    raise                               # it could not be opened even once
                breaks = breaks + 1 if len(self.waiting) == before else 1
                if isinstance(error, BadInput) or breaks > RETRIES:
                    raise M2KDError(f"the workers were lost ({error or type(error).__name__}); {self._how_far()}") from None
                self.on_event({"event": "notice", "text": "the workers were lost; starting again with what is not finished"})
        if self.stopping is not None:
            why = "the time limit is reached" if self.stopping == TIME_LIMIT else "stopped"
            raise Interrupted(f"{why}; {self._how_far()}", self.stopping)
        if self.failures:
            listed = [f"\n{cell.label}: {self.out / cell.key}\n{text}" for cell, text in self.failures.items()]
            raise M2KDError("\n".join([f"{len(self.failures)} of {cost.count(len(self.cells))} failed:", *listed]))

    def _drain(self, executor: Executor) -> None:
        """Hand out all cells that wait, and take what comes back, until none is left.

        Raises BrokenExecutor or CancelledError where the executor is gone.
        """
        running = {self._submit(executor, cell): cell for cell in self.waiting}
        while running:
            done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            if self.stopping is None:
                self.stopping = self.should_stop()
                if self.stopping is not None:
                    self._ask_to_stop()
            for future in done:
                cell = running.pop(future)
                outcome = _outcome(future)
                if outcome.state == "lost" and self.stopping is None and self.losses[cell.key] < RETRIES:
                    self.losses[cell.key] += 1
                    self.on_event({"event": "notice", "text": f"{cell.label}: {outcome.text}; trying again"})
                    running[self._submit(executor, cell)] = cell
                elif outcome.state != "stopped":
                    self._settle(cell, outcome)

    def _submit(self, executor: Executor, cell: Cell) -> Future:
        return executor.submit(run_cell, cell.config.model_dump(mode="json"), str(self.out / cell.key), self.code)

    def _ask_to_stop(self) -> None:
        """A file for cells that have not begun, and one for each that has: it writes a checkpoint and ends."""
        (self.out / STOP).touch()
        for cell in self.waiting:
            if (self.out / cell.key / RUN).is_dir():
                (self.out / cell.key / RUN / STOP).touch()
        self.on_event({"event": "notice", "text": "stopping when the running cells have written a checkpoint; "
                                                  "Ctrl-C again ends them at once"})

    def _settle(self, cell: Cell, outcome: Outcome) -> None:
        """Count a cell that needs no more work, and say so."""
        self.waiting.remove(cell)
        if outcome.state in ("failed", "lost"):
            self.failures[cell] = outcome.text
        self.seconds, self.cost = self.seconds + outcome.seconds, self.cost + self.costs[cell.key]
        done = len(self.cells) - len(self.waiting)
        self.on_event({"event": "cell", "state": outcome.state, "label": cell.label, "folder": str(self.out / cell.key),
                       "seconds": outcome.seconds, "done": done, "total": len(self.cells),
                       "seconds_left": self._seconds_left()})
        self.on_event({"event": "progress", "what": "cells", "done": done, "total": len(self.cells)})

    def _seconds_left(self) -> float:
        """What the waiting cells will take if they go as those did that ended, as many at once."""
        at_once = self.place.workers or max(1.0, self.seconds / (time.monotonic() - self.begun))
        return sum(self.costs[cell.key] for cell in self.waiting) * self.seconds / self.cost / at_once

    def _how_far(self) -> str:
        finished = sum(is_finished(self.out / cell.key) for cell in self.cells)
        return f"finished: {finished} of {cost.count(len(self.cells))}; the same command goes on"


def _outcome(future: Future) -> Outcome:
    """What a cell says of itself, or that its worker cannot say it any more."""
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        raise
    except Exception as error:          # as a scheduler says that a cell's worker died, and died again
        return Outcome("lost", 0.0, f"{type(error).__name__}: {error}")

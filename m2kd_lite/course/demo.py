"""What `make demo` runs: the paper's comparison on the embedded glyphs, from the notebook, and one page about it.

Which setting is shown, and why, is in docs/start.md; it was chosen on other seeds than the one that is run here. Runs go side by side,
one thread each, as those of the bank did: the same processor gives the same bytes.
"""
from __future__ import annotations

import multiprocessing
import os
import queue
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.managers import SyncManager
from pathlib import Path

from m2kd_lite.config import RunConfig
from m2kd_lite.course import notebook
from m2kd_lite.errors import M2KDError, NotebookFailed
from m2kd_lite.events import OnEvent
from m2kd_lite.files import places
from m2kd_lite.method.table import METHODS
from m2kd_lite.results import bank, claims, paper, report
from m2kd_lite.training.progress import in_words
from m2kd_lite.training.rundir import FinishedRun, check_same, is_finished, read_run

SHOWN = ("finetune", "lwf-mc", "m2kd-no-pruning", "m2kd")       # the order of `claims.lead`
SETTING = {"class_batch": 20}
BANK = "data/results/glyphs_grid.csv"           # the same runs, measured before, with three seeds
# Seconds of an epoch of all steps, one thread, as measured on an idle machine: what the first line of the demonstration goes by.
EPOCH_SECONDS = {"quick": 6.7, "smoke": 1.0}
HEARD = ("step ", "average incremental accuracy", "added since step 1")      # how lines of a notebook begin that are worth hearing
KERNEL_SECONDS = 10.0                           # until a notebook's kernel has loaded torch, and its figures are drawn


def demo(out: Path, profile: str, on_event: OnEvent) -> Path:
    """Run the demonstration; returns the report's path. What is finished already is not run again: delete `out` for that.

    Parameters
    ----------
    out : folder for the runs, the executed notebooks and report.html.
    profile : "quick", or "smoke" to see only that everything works.
    """
    out = Path(out).resolve()
    configs = [RunConfig.make(SETTING | {"method": method, "profile": profile}) for method in SHOWN]
    left = [config for config in configs if not _is_there(out, config)]
    for config in configs:
        if config not in left:
            on_event({"event": "run", "state": "already finished", "folder": str(out / config.method)})
    if left:
        _run_all(left, out, on_event)
    on_event({"event": "notice", "text": "The page: figures and tables, a few seconds."})
    page, folders = out / "report.html", [out / config.method for config in configs]
    before = bank.load(places.find(BANK))
    report.write_report(folders, page, lead=_lead([read_run(folder) for folder in folders], before), before=before)
    return page


def _run_all(configs: list[RunConfig], out: Path, on_event: OnEvent) -> None:
    """Papermill over the full-run notebook for each, as many at once as there are cores; what they say, and how long it will take.

    Raises
    ------
    M2KDError : a notebook failed.
    """
    workers, first = min(len(configs), os.cpu_count() or 1), configs[0]
    on_event({"event": "notice", "text": (
        f"{len(configs)} run{'s' if len(configs) > 1 else ''} of {places.FULL_RUN} ({first.dataset}, {first.class_batch} new classes a "
        f"step, profile {first.profile}), {workers} at once: about {in_words(_expected(configs, workers, EPOCH_SECONDS[first.profile]))} "
        "on an idle machine.")})
    os.environ.setdefault("OMP_NUM_THREADS", "1")           # for the kernels, which are begun by the workers
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    spawn, begun = multiprocessing.get_context("spawn"), time.monotonic()
    manager = SyncManager(ctx=spawn)
    manager.start(notebook.end_with_parent)
    with manager, ProcessPoolExecutor(workers, spawn, notebook.end_with_parent) as pool:
        said = manager.Queue()
        pending = {pool.submit(_run, config, METHODS[config.method].title, out, said): config for config in configs}
        while pending:
            done, _ = wait(pending, timeout=0.3, return_when=FIRST_COMPLETED)
            _hand_on(said, on_event)
            for future in done:
                config = pending.pop(future)
                future.result()
                finished, taken = len(configs) - len(pending), time.monotonic() - begun
                seconds = read_run(out / config.method).metrics["wall_seconds"] / _epochs(config)
                rest = max(1.0, _expected(configs, workers, seconds) - taken)
                then = f"; about {in_words(rest)} for the rest" if pending else ""
                on_event({"event": "notice", "text": f"[{finished}/{len(configs)}] {METHODS[config.method].title} done, "
                                                     f"{in_words(taken)} after the start{then}"})


def _run(config: RunConfig, title: str, out: Path, said: queue.Queue) -> None:
    """In a process of its own: one notebook. What it says of its progress goes into `said`, with the method's name before it."""
    def hear(event: dict) -> None:
        if event["text"].startswith(HEARD):
            said.put({"event": "notice", "text": f"{title}: {event['text']}"})
    try:
        notebook.execute(config, out / config.method, out / f"{config.method}.ipynb", hear)
    except NotebookFailed as error:         # which does not survive the way between two processes
        raise M2KDError(str(error)) from None


def _hand_on(said: queue.Queue, on_event: OnEvent) -> None:
    while True:
        try:
            on_event(said.get_nowait())
        except queue.Empty:
            return


def _is_there(out: Path, config: RunConfig) -> bool:
    """Whether a run and its notebook are finished.

    Raises
    ------
    BadInput : there is a run with other settings.
    """
    if not ((out / f"{config.method}.ipynb").is_file() and is_finished(out / config.method)):
        return False
    check_same(read_run(out / config.method).config, config, finished=True)
    return True


def _lead(runs: list[FinishedRun], before) -> list[str]:
    """What the page begins with: these runs, and the same with other seeds, where they are in the bank."""
    chain, whole = (paper.runs(before, runs[SHOWN.index(method)].config) for method in ("lwf-mc", "m2kd-no-pruning"))
    said = [claims.lead(*(bank.rows(run.metrics) for run in runs)), claims.seeds(chain, whole)]
    return [sentence for sentence in said if sentence]


def _epochs(config: RunConfig) -> int:
    """Passes over a step's images."""
    return config.epochs + (config.finetune_epochs if METHODS[config.method].prunes else 0)


def _expected(configs: list[RunConfig], workers: int, seconds: float) -> float:
    """Seconds until the last of some runs ends, each on the first core that is free, from those of an epoch of all steps."""
    cores = [0.0] * workers
    for config in configs:
        cores[cores.index(min(cores))] += seconds * _epochs(config) + KERNEL_SECONDS
    return max(cores)

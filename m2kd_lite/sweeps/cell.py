"""One cell of a sweep, as a worker runs it: the full-run notebook in a folder of its own, published when it is whole.

    FOLDER/full_run.ipynb  FOLDER/run/  FOLDER/.lock  (a failed one leaves full_run.failed.ipynb)

A cell that was cut off goes on from the checkpoint in run/. Called by the executors of `sweep.py`, in processes here or on
other machines; loads no torch, for the notebook's kernel does the computing and inherits the environment.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

import m2kd_lite
from m2kd_lite.config import PLUG_INS, RunConfig
from m2kd_lite.course import notebook
from m2kd_lite.errors import M2KDError, NotebookFailed
from m2kd_lite.files import places

NOTEBOOK, RUN, STOP = "full_run.ipynb", "run", "stop"
WAIT_SECONDS = 1.0          # between looks at a lock that somebody else holds


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes
    ----------
    state : "finished"; "found", when it was there already; "stopped" on request; "failed", by an exception in the
        notebook; "lost", when a kernel did not start or died, or a disk failed: worth another try.
    seconds : of this try.
    text : the notebook's traceback, or what was lost.
    """

    state: str
    seconds: float
    text: str = ""


def prepare_worker(started, threads: int, gpus: int) -> None:
    """What the kernels of this worker inherit; and it ends with the process that began it, so that none is left over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is for the sweep, which asks its cells to stop
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number % gpus]
    notebook.end_with_parent()


def is_finished(folder: Path) -> bool:
    """Whether the cell of this folder is done: its notebook is published last."""
    return (folder / NOTEBOOK).is_file() and (folder / RUN / "metrics.json").is_file()


def run_cell(settings: dict, folder: str, code: str) -> Outcome:
    """Run a cell, or go on with it. Never raises: an exception would have to cross machines.

    Parameters
    ----------
    settings : of the run, as JSON values.
    folder : the cell's, absolute; a file `stop` beside it asks all cells not to begin.
    code : `code_sha256` of the sweep; other code would be another experiment.
    """
    begun = time.monotonic()
    try:
        state, text = _run(RunConfig.make(settings), Path(folder), code)
    except _StopAsked:
        state, text = "stopped", ""
    except NotebookFailed as error:
        state, text = ("stopped", "") if error.name == "Interrupted" else ("failed", error.traceback)
    except M2KDError as error:
        state, text = "failed", str(error)
    except Exception as error:          # no exception of ours: the kernel, the disk or the machine
        state, text = "lost", f"{type(error).__name__}: {error}"
    return Outcome(state, time.monotonic() - begun, text)


class _StopAsked(Exception):
    """Before the notebook was begun."""


def _run(config: RunConfig, folder: Path, code: str) -> tuple[str, str]:
    run, stop = folder / RUN, folder.parent / STOP
    if stop.exists():
        raise _StopAsked
    run.mkdir(parents=True, exist_ok=True)
    # A worker that was given up may still be at it, on another machine; and the kernel of a killed one lives for a second.
    with _held(folder / ".lock", stop):
        with _held(run / ".lock", stop):
            pass
        if is_finished(folder):
            return "found", ""
        if stop.exists():               # it came before the run had a folder to be asked in
            raise _StopAsked
        if code_sha256() != code:
            raise M2KDError("the code has changed since the sweep began; run the sweep again")
        try:
            notebook.execute(config, run, folder / NOTEBOOK)
        except NotebookFailed as error:
            if error.name == "Interrupted":
                (folder / NOTEBOOK).with_suffix(".failed.ipynb").unlink(missing_ok=True)
            raise
        finally:
            (run / STOP).unlink(missing_ok=True)        # it came too late, or was met
    return "finished", ""


@contextlib.contextmanager
def _held(path: Path, stop: Path) -> Iterator[None]:
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
            break
        except Timeout:
            if stop.exists():
                raise _StopAsked from None
    try:
        yield
    finally:
        lock.release()


def code_sha256(package: Path = Path(m2kd_lite.__file__).parent) -> str:
    """SHA-256 of the package's source files, of plug-ins', and of the full-run notebook's cells, without their outputs.

    Not the git revision: a change that is not committed yet makes other cells too.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*.py") if not path.name.startswith(".")):     # an editor's locks
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for name, entry in sorted(PLUG_INS.items()):            # methods of other packages are code of ours too
        spec = importlib.util.find_spec(entry.module)
        digest.update(f"{name}\0{entry.value}\0".encode() + (Path(spec.origin).read_bytes() if spec and spec.origin else b"") + b"\0")
    for cell in json.loads(places.find(places.FULL_RUN).read_text(encoding="utf-8"))["cells"]:
        digest.update(f"{cell['cell_type']}\0{''.join(cell['source'])}\0".encode())
    return digest.hexdigest()

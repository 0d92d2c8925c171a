"""What the notebooks need around the library: parameters checked, figures shown, and a notebook run as a batch."""
from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import logging
import multiprocessing
import os
import tempfile
import textwrap
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import NotebookFailed
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.files import places

START_SECONDS = 120         # for a kernel to answer, on a machine with much to do
EXTRA = ("out",)            # a parameter of the notebook that is no setting of the run
LONGEST_SOCKET = 80         # bytes of a folder for sockets: with a name in it, a path has at most 107 on Linux, 103 on macOS
_SAID: set[Path] = set()    # places of runs that this process has told of


def run_config(namespace: Mapping[str, Any], before: set[str]) -> RunConfig:
    """The configuration that a notebook's parameters name.

    Parameters
    ----------
    namespace : the notebook's `globals()`.
    before : the names that were there before the parameters cell; what is new and no setting is an error, for
        papermill only warns of it.

    Raises
    ------
    BadInput : an unknown parameter, or a value that is not allowed.
    """
    new = {name for name in namespace if name not in before and not name.startswith("_")}
    unknown = sorted(new - RunConfig.model_fields.keys() - set(EXTRA) - {"before"})
    values = {name: namespace[name] for name in unknown[:1] + sorted(new & RunConfig.model_fields.keys())}
    root = values.get("data_root")
    if root and not Path(root).exists() and (places.lessons() / root).exists():
        values["data_root"] = str(places.lessons() / root)      # a notebook's own folder is not where it was typed
    return RunConfig.make(values)


def run_folder(config: RunConfig) -> Path:
    """Where a notebook's run goes if nothing is said: named by its settings, so the same settings find the same run.

    Beside the lessons the path is relative to the current folder, so that what a notebook prints holds on every machine. Where it is
    another place (`places.runs`), this says so.
    """
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    name = f"{config.method}-{config.dataset}-{config.class_batch}-seed{config.seed}-{digest[:8]}"
    runs = places.runs()
    if runs == places.lessons() / "runs":
        return Path(os.path.relpath(runs / name))
    if runs not in _SAID:
        _SAID.add(runs)
        print(f"Runs land in {runs}.")          # the one thing that this package prints by itself: a notebook shall not hide it
    return runs / name


def environment():
    """What the lessons need, what is here, and whether that will do: a table (pandas), one row a thing.

    Draws the embedded images if they are not in the cache yet, and compares them with what every machine should draw.
    """
    import platform
    import shutil

    import pandas as pd
    import torch

    from m2kd_lite import data
    from m2kd_lite.data import glyphs
    python, pair = platform.python_version_tuple(), (torch.__version__, version("torchvision"))
    drawn = data.load("glyphs").sha256
    runs = places.runs()
    free = shutil.disk_usage(next(folder for folder in (runs, *runs.resolve().parents) if folder.exists())).free / 1e9
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    rows = [
        ("Python", ".".join(python), "3.11 or newer", (int(python[0]), int(python[1])) >= (3, 11)),
        ("torch, torchvision", ", ".join(pair), "torch 2.11 or newer", tuple(map(int, pair[0].split(".")[:2])) >= (2, 11)),
        ("computes on", f"{torch.get_num_threads()} threads{gpu}", "anything; 2 cores are enough", True),
        ("glyphs, SHA-256", drawn[:12], glyphs.EXPECTED_SHA256[:12], drawn == glyphs.EXPECTED_SHA256),
        ("free disk space", f"{free:.0f} GB", "1 GB", free >= 1),
        ("runs land in", os.path.relpath(runs), "a folder that can be written", places.can_write(runs)),
    ]
    return pd.DataFrame(rows, columns=["what", "found", "wanted", "fine"]).set_index("what")


@contextlib.contextmanager
def on_purpose():
    """For a mistake that a lesson shows: what the check raises is printed, and the notebook goes on, in whatever runs it."""
    from m2kd_lite.checks import NotYet
    try:
        yield
    except NotYet as error:
        print(f"{type(error).__name__}: {error}")


def show(figure):
    """A figure as a picture with its alternative text, for the last line of a cell."""
    from IPython.display import Image

    from m2kd_lite.pictures.plots import png
    return Image(png(figure), alt=figure.alt_text, format="png")


def source(function: Callable):
    """The code of a function as it lies in the library, without its docstring: what a student's own is compared with."""
    from IPython.display import Markdown
    lines = textwrap.dedent(inspect.getsource(function)).rstrip().splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    first = definition.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        del lines[first.lineno - 1:first.end_lineno]
    file = Path(inspect.getfile(inspect.unwrap(function)))
    code = "\n".join(lines)
    return Markdown(f"`m2kd_lite/{file.parent.name}/{file.name}`:\n\n```python\n{code}\n```")


def execute(config: RunConfig, out: Path, target: Path, on_event: OnEvent = ignore) -> None:
    """Run the full-run notebook with papermill, into `target`, which appears only when it is whole.

    Parameters
    ----------
    config : the run.
    out : its run folder.
    target : the executed notebook.
    on_event : receives the notebook's own lines as notices.

    Raises
    ------
    NotebookFailed : a cell failed; the notebook with its traceback is kept beside `target`.
    Exception : whatever papermill raises where a kernel does not start, or dies.
    """
    import papermill
    source = places.find(places.FULL_RUN)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished, failed = target.with_suffix(".running.ipynb"), target.with_suffix(".failed.ipynb")
    parameters = config.model_dump(mode="json") | {"out": str(out)}
    lines = _Lines(on_event)
    log = logging.getLogger("papermill")
    kept = log.level, log.propagate
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with tempfile.TemporaryDirectory(prefix="m2kd-lite-") as sockets:
            # The kernel's folder is said through nbclient: papermill's own way moves this whole process, all threads of it.
            # A kernel is interrupted before it is shut down, and calls that an error, on the terminal of who asked for the run.
            papermill.execute_notebook(source, unfinished, parameters, kernel_name="python3", log_output=True,
                                       progress_bar=False, start_timeout=START_SECONDS, config=_private_line(sockets),
                                       resources={"metadata": {"path": str(source.parent)}},
                                       extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
        os.replace(unfinished, target)
        failed.unlink(missing_ok=True)          # of an earlier try
    except papermill.PapermillExecutionError as error:
        os.replace(unfinished, failed)
        raise NotebookFailed(f"{failed}: {error.ename}: {error.evalue}", error.ename, str(error).strip()) from None
    finally:
        unfinished.unlink(missing_ok=True)
        log.removeHandler(lines)
        log.level, log.propagate = kept


def end_with_parent() -> None:
    """From now on a process of multiprocessing's ends with the one that began it, even if that is killed; and a kernel of its own ends then, too."""
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(parent) -> None:
    parent.join()
    os._exit(1)


def _private_line(folder: str):
    """Settings for a kernel that is reached through sockets in `folder`, where there are such.

    Over TCP, kernels that start at once race for ports, and other users of the machine can reach them.
    """
    from traitlets.config import Config
    if os.name != "posix" or len(os.fsencode(folder)) > LONGEST_SOCKET:
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": str(Path(folder) / "kernel.json")})


class _Lines(logging.Handler):
    """Hands on what the notebook prints; pictures, the kernel's warnings and papermill's own chatter stay behind."""

    def __init__(self, on_event: OnEvent):
        super().__init__()
        self.hand_on = on_event

    def emit(self, record: logging.LogRecord) -> None:
        if record.funcName == "log_output_message" and record.levelno < logging.WARNING:
            for line in record.getMessage().splitlines():
                if line.strip() and not line.startswith("<"):
                    self.hand_on({"event": "notice", "text": line.rstrip()})

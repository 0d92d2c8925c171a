"""The playground: all panels on one page, served by Voilà to this machine's browsers, from nothing outside it.

`m2kd-lite playground` (or `make playground`) makes the run that panels read, with progress, and then serves
`notebooks/playground.ipynb`. The notebook calls `prepare` as well, so it also works by itself in JupyterLab.
"""
from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from m2kd_lite.config import RunConfig
from m2kd_lite.course import notebook
from m2kd_lite.errors import M2KDError
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.files import places

# Five steps of two digits. With batches of 128 a step of 280 images is too few updates to learn anything.
CONFIG = RunConfig.make({"method": "m2kd", "dataset": "digits", "class_batch": 2, "batch_size": 16})
PAGE = "notebooks/playground.ipynb"
TEMPLATES = Path(__file__).parents[1] / "templates"         # holds voila/templates/playground
SERVED = (
    "--template=playground",
    "--Voila.ip=localhost",
    "--token",              # other accounts of this machine reach its ports too: the address that is printed holds a secret
    # Controls and their names need these three extensions of JupyterLab; what other packages bring has nothing to do on the page.
    "--VoilaConfiguration.extension_allowlist=@jupyter-widgets/jupyterlab-manager",
    "--VoilaConfiguration.extension_allowlist=@voila-dashboards/widgets-manager8",
    "--VoilaConfiguration.extension_allowlist=anywidget",
    "--VoilaExecutor.cell_error_instruction=The terminal that serves this page says why.",
)


def prepare(on_event: OnEvent = ignore) -> Path:
    """Make the small run that panels read, or find it finished; returns its folder.

    Raises
    ------
    M2KDError : see `train.run`.
    """
    from m2kd_lite.training import train
    folder = notebook.run_folder(CONFIG)
    train.run(CONFIG, folder, resume=True, on_event=on_event)
    return folder


def command(options: list[str]) -> list[str]:
    """What serves the page, as the arguments of a process.

    Parameters
    ----------
    options : Voilà's own, as --no-browser or --port=8900; they win over ours.

    Raises
    ------
    M2KDError : Voilà is not installed.
    """
    if importlib.util.find_spec("voila") is None:
        raise M2KDError("Voilà is not installed; get it with: python -m pip install voila")
    return [sys.executable, "-m", "voila", str(places.find(PAGE)), *SERVED, *options]


def serve(options: list[str], on_event: OnEvent) -> None:
    """Prepare, and then become Voilà: this process does not come back."""
    voila = command(options)
    prepare(on_event)
    paths = [str(TEMPLATES), os.environ.get("JUPYTER_PATH", "")]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
    os.execv(voila[0], voila)

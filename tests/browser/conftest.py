"""A real browser on real servers: Chromium on JupyterLab and on Voilà, both in a fresh copy of the project, without network.

Where there is no Chromium these tests are skipped; with M2KD_LITE_BROWSER=required that is a failure instead. Whatever the
browser's console calls an error, and any request to another machine, fails the test during which it happened.
"""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "the-servers-own-token"
PATIENCE = 60_000           # milliseconds that a condition may take on a machine under load
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Last: from the first of these tests to the end of the session Playwright's event loop runs, and no other can."""
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    found = os.environ.get("M2KD_LITE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = pytest.fail if os.environ.get("M2KD_LITE_BROWSER") == "required" else pytest.skip
        missing("no Chromium: apt-get install chromium, or name one with M2KD_LITE_CHROMIUM=/path/to/it")
    # Without its sandbox, which a container's root may not set up: it visits these servers only.
    arguments = [*browser_type_launch_args.get("args", ()), "--no-sandbox"]
    return browser_type_launch_args | {"executable_path": found, "args": arguments}


@pytest.fixture(scope="session")
def environment(tmp_path_factory, cache):
    """Of every server: no network, one thread, nobody's settings of Jupyter, and the token that its address needs."""
    home = tmp_path_factory.mktemp("home")
    paths = [str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH", "")]
    folders = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    return os.environ | folders | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1",
                                   "JUPYTER_TOKEN": TOKEN}


@pytest.fixture(scope="session")
def project(browser_type_launch_args, environment, tmp_path_factory):
    """A copy of the project with the run that panels read; made only where there is a browser."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for tables in ("results", "paper"):
        shutil.copytree(ROOT / "data" / tables, folder / "data" / tables)
    subprocess.run([sys.executable, "-c", "from m2kd_lite.course import playground; playground.prepare()"], check=True,
                   cwd=folder / "notebooks", env=environment)
    return folder


@pytest.fixture(scope="session")
def voila(project, environment):
    """The address of the playground as a page."""
    with serving(["-m", "m2kd_lite.cli", "playground", "--no-browser"], project, environment) as address:
        yield f"{address}/?token={TOKEN}"


@pytest.fixture(scope="session")
def lab(project, environment):
    """The address of the playground in JupyterLab."""
    command = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--notebook-dir=notebooks"]
    with serving(command, project, environment) as address:
        yield f"{address}/lab/tree/playground.ipynb?token={TOKEN}"


@contextmanager
def serving(arguments, folder, environment):
    """A server on a free port of this machine until the end, when it goes with every process that it has started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{port}.log"
    with log.open("w") as said:
        server = subprocess.Popen([sys.executable, *arguments, f"--port={port}"], cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE / 1000
        while not answers(address):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield address
    finally:
        started = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
        for process in started:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass


def answers(address):
    try:
        urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=5)
    except urllib.error.HTTPError:
        return True         # Voilà has no such page, and says so
    except OSError:
        return False
    return True


# ---- pages ----------------------------------------------------------------------------------------------------------

@dataclass
class Watched:
    """A page, and what has gone wrong on it so far."""

    page: object
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))

    def _asked(self, url):
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).hostname != "127.0.0.1":
            self.wrong.append(f"a request to another machine: {url}")


@pytest.fixture(scope="module")
def watched(browser):
    """Opens pages for a module's tests: `watched()` gives one, with what has gone wrong on it."""
    contexts = []

    def get():
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))       # servers do not share cookies
        contexts[-1].set_default_timeout(PATIENCE)
        return Watched(contexts[-1].new_page())

    yield get
    for context in contexts:
        context.close()

"""Everything works from anywhere: a clone that nobody may write to, no home, blanks and umlauts, other users on the same machine.

A child is another user where the tests run as root, who may write anywhere; it may read what root has installed.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m2kd_lite import cli
from m2kd_lite.course import demo, notebook

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
ONE, OTHER = 54321, 54322       # users that this machine does not know, as in many containers
READS = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def become(uid):
    """The beginning of a command that another user runs; empty where we are no root, and one of us is enough."""
    if os.getuid():
        return [] if uid == ONE else pytest.skip("only root can be two users")
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv, and root may write anywhere")
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    for command in ([*user, *READS], user):
        if not subprocess.run([*command, sys.executable, "-c", "import torch.version"], capture_output=True, cwd="/").returncode:
            return command
    pytest.skip("other users cannot start this Python, and root may write anywhere")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """klon/, heim/ and leer/, which nobody may write to, and temp/, which all may; with a blank and umlauts in their names."""
    top = tmp_path_factory.mktemp("Übung, zum Üben")
    for name in ("m2kd_lite", "notebooks", "data/results", "data/paper"):
        shutil.copytree(ROOT / name, top / "klon" / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("heim", "leer", "temp"):
        (top / name).mkdir()
    for path in (*top.rglob("*"), top, *(parent for parent in top.parents if parent.owner() == top.owner() and "pytest" in parent.name)):
        path.chmod(0o555 if path.is_dir() else 0o444)
    top.chmod(0o755)
    (top / "temp").chmod(0o1777)
    yield top
    for path in (top, *top.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    for path in top.parents:
        if "pytest" in path.name:
            path.chmod(0o700)


@pytest.fixture
def python(place):
    """Runs code as a user: python(code, uid=..., cwd=..., **environment) gives what it prints."""
    def call(code, uid=ONE, cwd=place / "leer", status=0, **more):
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(place / "temp"), "PYTHONPATH": str(place / "klon"), "OMP_NUM_THREADS": "1",
                       "OMP_WAIT_POLICY": "passive", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
        done = subprocess.run([*become(uid), sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=cwd,
                              env=environment | {name: str(value) for name, value in more.items()})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")
    return call


def left_in(place):
    return [path for name in ("heim", "leer") for path in (place / name).iterdir()] + list((place / "klon").rglob("runs"))


TRAIN = """
from m2kd_lite.config import RunConfig
from m2kd_lite.course import notebook
from m2kd_lite.training import train
config = RunConfig.make(dict(method="finetune", dataset="digits", class_batch=5, profile="smoke"))
folder = notebook.run_folder(config)
print("accuracy", train.run(config, folder, resume=True)["final_accuracy"], folder)
print("fine", notebook.environment().fine.all())
"""


@pytest.mark.parametrize("home", ["heim", "nowhere", None], ids=["a home that cannot be written to", "a home that is not there", "no home"])
def test_a_lesson_in_a_clone_that_cannot_be_written_to(python, place, home):
    said = python(TRAIN, cwd=place / "klon" / "notebooks", **({"HOME": place / home} if home else {}))
    runs = next(line for line in said.splitlines() if line.startswith("Runs land in "))
    assert runs.startswith(f"Runs land in {place / 'temp' / 'm2kd-lite-runs-'}") and "accuracy" in said and "fine True" in said
    assert not left_in(place)


def test_what_a_process_starts_finds_its_runs(python, place):
    said = python("import os, subprocess, sys; from m2kd_lite.files import places; print(places.runs(), flush=True); "
                  "subprocess.run([sys.executable, '-c', 'from m2kd_lite.files import places; print(places.runs())'])", HOME=place / "heim")
    first, second = said.splitlines()
    assert first == second


DEMO = """
import sys
from m2kd_lite import cli
from m2kd_lite.course import demo
demo.demo = lambda out, profile, on_event: out
cli.main(["demo", *sys.argv[1:]])
"""


def test_the_demonstration_goes_where_it_can_write(python, place, tmp_path, monkeypatch, capsys):
    assert f"report: {place / 'temp' / 'm2kd-lite-runs-'}" in python(DEMO, HOME=place / "heim")
    mine = place / "temp" / "mein Heim"
    assert f"report: {mine / 'data' / 'm2kd-lite' / 'runs' / 'demo'}\n" in python(DEMO, HOME=place / "heim", XDG_DATA_HOME=mine / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "demo", lambda out, profile, on_event: out)
    with pytest.raises(SystemExit):
        cli.main(["demo"])
    assert capsys.readouterr().out == "report: runs/demo\n"


KERNEL = """
from pathlib import Path
import tempfile
from m2kd_lite.config import RunConfig
from m2kd_lite.course import notebook
config = RunConfig.make(dict(method="finetune", dataset="digits", class_batch=5, profile="smoke"))
out = Path(tempfile.mkdtemp())
notebook.execute(config, out / "run", out / "executed.ipynb")
print("executed", (out / "executed.ipynb").stat().st_size > 10000)
"""


def test_a_notebook_is_executed_where_the_home_cannot_be_written_to(python, place):
    """Jupyter itself has to have one: without any, not even its own commands start."""
    assert "executed True" in python(KERNEL, HOME=place / "heim")
    assert not left_in(place)


def test_where_the_temporary_folder_is_far_down_a_kernel_is_reached_all_the_same():
    assert notebook._private_line("/tmp/x").KernelManager.transport == "ipc"
    assert not notebook._private_line("/tmp/" + "ü" * 40).KernelManager


# ---- two users ------------------------------------------------------------------------------------------------------

LOADED = "from m2kd_lite import data; print(data.load('glyphs', on_event=lambda e: print(e.get('text') or e['what'])).sha256)"


def test_two_users_share_a_cache(python, place):
    """Drawn by one, read by the other; what is damaged is drawn again, and the other's file stays as it is."""
    cache = place / "temp" / "the one's cache"
    first = python(LOADED, M2KD_LITE_CACHE=cache).splitlines()
    assert "drawing glyphs" in first
    assert python(LOADED, uid=OTHER, M2KD_LITE_CACHE=cache).splitlines() == first[-1:]
    file = next(cache.glob("glyphs-*"))
    file.write_bytes(file.read_bytes()[:-1])
    said = python(LOADED, uid=OTHER, M2KD_LITE_CACHE=cache).splitlines()
    assert said[-1] == first[-1] and any("cannot write: Permission denied; going on without a cache" in line for line in said)


HOLD = """
from pathlib import Path
from m2kd_lite.results import bank
bank.add([], Path({path!r}))
"""


def test_a_lock_of_another_user_is_one_line(python, place):
    shared = place / "temp" / "results.csv"
    code = HOLD.format(path=str(shared))
    python(code)
    said = python(code, uid=OTHER, status=1)
    assert said.splitlines()[-1].endswith(f"CannotWrite: {shared.with_suffix('.lock')}: cannot write: Permission denied")


def test_a_run_of_another_user_is_one_line(python, place):
    run = place / "temp" / "the one's run"
    command = "from m2kd_lite import cli; cli.main(['run', '--method', 'finetune', '--dataset', 'digits', '--class-batch', '5', " \
              f"'--profile', 'smoke', '--steps', '1', '--out', {str(run)!r}, *{{more}}])"
    python(command.format(more=[]))
    said = python(command.format(more=["--resume", "--steps", "2"]), uid=OTHER, status=2)
    assert said.count("\n") == 1 and f"--out {run}: cannot write there (Permission denied)" in said

"""What pip installs works by itself: no clone in sight, an empty folder, lessons that somebody shares and nobody may write to."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from m2kd_lite.config import SMOKE

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
CARRIED = ("notebooks", "experiments", "data/results", "data/paper")


def built_from(source, out, *kinds):
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *kinds, source], check=True, capture_output=True)
    return out


def contents(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A wheel and an sdist of a copy of the project as git has it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, files.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built_from(source, out, "--wheel", "--sdist")
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_sdist_makes_the_same_wheel(packages, tmp_path):
    wheel, sdist = packages
    shutil.unpack_archive(sdist, tmp_path)          # extractall's `filter` is not in every Python 3.11
    again = next(built_from(next(tmp_path.iterdir()), tmp_path / "again", "--wheel").glob("*.whl"))
    assert contents(again) == contents(wheel)


def test_the_wheel_carries_what_lies_at_the_top_of_a_clone_and_nothing_twice(packages):
    names = set(contents(packages[0]))
    for folder in CARRIED:
        for path in (ROOT / folder).iterdir():
            if path.suffix in (".ipynb", ".yaml", ".csv"):
                assert f"m2kd_lite/project/{folder}/{path.name}" in names
    assert {"m2kd_lite/py.typed", "m2kd_lite/__init__.pyi", "m2kd_lite/templates/report.html.j2"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "notebooks/")) or ".ipynb_checkpoints" in name]


@pytest.fixture(scope="module")
def anywhere(packages, tmp_path_factory):
    """Runs Python in an environment that has the wheel and its requirements, in an empty folder: `anywhere("-m", ...)`."""
    folder, home = tmp_path_factory.mktemp("an empty folder, ümlaut"), tmp_path_factory.mktemp("home")
    place = home / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    # The requirements are those of this environment: a folder on the path, whose own editable installs are not followed.
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True)
    Path(site.stdout.strip(), "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", packages[0]], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "M2KD_LITE_RUNS")} | {
        "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
        "PATH": os.pathsep.join([str(place / "bin"), os.environ["PATH"]])}

    def call(*arguments, cwd=folder, status=0, **more):
        done = subprocess.run([python, *map(str, arguments)], cwd=cwd, env=environment | more, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr
    call.folder, call.home = folder, home
    return call


def m2kd(anywhere, *arguments, **more):
    return anywhere("-m", "m2kd_lite.cli", *arguments, **more)


def test_it_is_the_wheel_that_is_imported_and_its_names_are_there(anywhere):
    said = anywhere("-c", "import m2kd_lite as m2kd; print(m2kd.__file__); print(m2kd.run, m2kd.METHODS['m2kd'].title); "
                          "print(len(m2kd.load_bank(__import__('m2kd_lite.files.places', fromlist=['x']).find('data/results/lessons.csv'))))")
    assert str(anywhere.home) in said and "M²KD" in said and str(ROOT) not in said


def test_the_demonstration_and_a_sweep_that_comes_with_it(anywhere):
    assert "report: " in m2kd(anywhere, "demo", "--profile", "smoke")
    assert (anywhere.folder / "runs" / "demo" / "report.html").exists()
    said = m2kd(anywhere, "sweep", "experiments/example.yaml", "--out", "swept", "--workers", "2")
    assert "all 4 finished" in said and len(list((anywhere.folder / "swept").glob("*/run/metrics.json"))) == 4
    shipped = ", ".join(sorted(sweep.stem for sweep in (ROOT / "experiments").glob("*.yaml")))
    assert f"no such file; m2kd-lite ships experiments/*.yaml: {shipped}\n" in m2kd(
        anywhere, "sweep", "nothing.yaml", "--out", "x", status=2)


def test_a_copy_of_the_lessons_is_worked_in_and_its_runs_land_there(anywhere):
    m2kd(anywhere, "lessons", "course")
    lesson = anywhere.folder / "course" / "notebooks" / "00_start_here.ipynb"
    anywhere("-m", "papermill", lesson, lesson.with_name("executed.ipynb"), "--kernel", "python3", cwd=lesson.parent,
             **{SMOKE: "1"})                        # what the lesson says is compared elsewhere
    assert list((anywhere.folder / "course" / "runs").glob("*/metrics.json"))
    assert "it was changed since the folder was built" in m2kd(anywhere, "lessons", "course", status=2)


def test_without_a_copy_runs_land_in_the_users_data_folder_and_the_notebook_says_so(anywhere):
    code = ("from m2kd_lite.course import notebook; from m2kd_lite.config import RunConfig; "
            "print(notebook.run_folder(RunConfig.make({})))")
    said = anywhere("-c", code)
    place = anywhere.home / "data" / "m2kd-lite" / "runs"
    assert f"Runs land in {place}." in said and str(place / "m2kd-glyphs-20-seed0") in said
    assert json.loads(anywhere("-c", "import json; from m2kd_lite.files import places; print(json.dumps(str(places.shipped())))")).startswith(
        str(anywhere.home))

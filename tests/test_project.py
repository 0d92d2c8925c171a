"""The project's own promises: one set of requirements, pinned; no pickle; names that belong; light imports."""
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from m2kd_lite import data

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]


def ours(*patterns):
    """The project's own files; at least one for every pattern, so that no test passes on nothing."""
    found = []
    for pattern in patterns:
        matches = [path for path in ROOT.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
        assert matches, pattern
        found += matches
    return found


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-")


def test_environment_yml_asks_for_the_same_set_with_a_reason_a_line():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    (pip,) = [entry["pip"] for entry in yaml.safe_load("\n".join(lines))["dependencies"] if isinstance(entry, dict)]
    assert sorted(entry for entry in pip if not entry.startswith("-")) == sorted(REQUIRED)
    assert "-c constraints.txt" in pip and "-e ." in pip
    reasons = [line for line in lines if ">=" in line]
    assert len(reasons) == len(REQUIRED) + 1 and all(len(line.split("#")[1].split()) >= 2 for line in reasons)
    assert PROJECT["requires-python"] == ">=3.11" and "python>=3.11" in "".join(lines)


def test_constraints_pin_everything_that_is_installed_for_us():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9.-]+==[\w.+]+( ;.*)?", line), line
            name, version = line.split(" ;")[0].split("==")
            pinned.setdefault(name, set()).add(version)
    wanted, seen = [name_of(requirement) for requirement in REQUIRED], set()
    while wanted:                                   # the requirements of requirements, as this machine has them
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in pinned, f"{name} is not pinned"
        assert importlib.metadata.version(name) in {v.split("+")[0] for v in pinned[name]} | pinned[name], name
        for requirement in importlib.metadata.requires(name) or []:
            if "extra ==" not in requirement and _applies(requirement):
                wanted.append(name_of(requirement))
    assert len(seen) > 80


def _applies(requirement):
    from packaging.requirements import Requirement
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate()


def test_nothing_unpickles():
    for path in ours("m2kd_lite/**/*.py"):
        text = path.read_text(errors="ignore")
        for word in ("import pickle", "pickle.load", "torch.load(", "allow_pickle=True", "np.load(", "joblib.load", "eval(", "exec("):
            if (path.name, word) == ("attempt.py", "exec("):        # a submission is run there: in a process of its own, with limits
                continue
            found = re.search(rf"(?<![\w.]){re.escape(word)}", text)
            assert not found, f"{path.name}: {word}"


def test_nothing_names_the_workshop():
    # spelled in pieces, so that this file passes its own test
    words = ["../" + "shared", "/" + "work/", "field" + "_notes", "issue" + " #", "chat" + "gpt", "clau" + "de", "file:" + "//", "files.python" + "hosted"]
    everything = ours("*.*", "Makefile", ".ci/*", "m2kd_lite/**/*", "tests/**/*", "notebooks/*", "benchmarks/*", "docs/*.md", "data/*.md")
    for path in everything:
        text = path.read_text(errors="ignore").lower()
        assert not [word for word in words if word in text], path


def test_modules_stay_readable():
    for path in ours("m2kd_lite/**/*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 350, f"{path.name} has {len(lines)} lines"
        assert lines and lines[0].startswith('"""'), path.name


def test_importing_the_package_loads_neither_torch_nor_matplotlib():
    code = "import sys, m2kd_lite, m2kd_lite.config, m2kd_lite.data; assert not {'torch', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.system
def test_a_small_run_loads_nothing_that_takes_longer_than_it(tmp_path):
    """torch.optim's classes load torch.compile; scikit-learn is there for the digits, and those are in the cache after the first time."""
    data.load("digits")
    code = ("import sys; from m2kd_lite.config import RunConfig; from m2kd_lite.training import train;"
            "train.run(RunConfig.make(dict(method='m2kd', dataset='digits', class_batch=5, profile='smoke')), sys.argv[1]);"
            "print({'torch._dynamo', 'torchvision', 'sklearn', 'scipy', 'pandas', 'matplotlib'} & sys.modules.keys() or 'none')")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True, capture_output=True, text=True)
    assert done.stdout == "none\n"


@pytest.mark.system
def test_the_pictures_do_not_load_seaborn_until_one_needs_it():
    code = "import sys; from m2kd_lite import checks, pictures, widgets; widgets.training_panel(); assert not {'seaborn', 'scipy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.system
def test_what_runs_notebooks_builds_no_parsers_when_it_starts():
    """Newer versions of jsonschema do, in every process of Jupyter (pyproject.toml, [tool.uv])."""
    code = "import sys, nbconvert, papermill, jupyter_server.serverapp; assert not {'lark', 'rfc3987_syntax'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_imports_between_the_packages_only_run_downwards():
    """The contract is in pyproject.toml: which package may use which."""
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "1 kept" in done.stdout, done.stdout
    rooms = {path.name for path in (ROOT / "m2kd_lite").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert not [room for room in rooms if f"`{room}/`" not in (ROOT / "README.md").read_text()]


@pytest.mark.parametrize("tool", ["ruff check --no-cache .", pytest.param(f"mypy --cache-dir {os.devnull}", marks=pytest.mark.system)])
def test_style_and_types_are_clean(tool):
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_is_the_same_wherever_it_is_said():
    import m2kd_lite
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) – (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest.groups() == (m2kd_lite.__version__, str(citation["date-released"])) and citation["version"] == m2kd_lite.__version__


def test_committed_notebooks_are_tidy(tmp_path):
    from benchmarks.notebooks import tidied
    for path in ours("notebooks/*.ipynb", "docs/*.ipynb"):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        assert not tidied(copy), path.name


@pytest.mark.parametrize("name", ["demo", "test", "unit", "lab", "playground", "student", "slides", "book", "bench", "clean"])
def test_make_has_the_commands_of_the_readme(name):
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.M)
    assert f"make {name}" in (ROOT / "README.md").read_text()

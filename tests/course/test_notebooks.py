"""Every notebook, executed from its first cell in a copy of its own, and compared with what is committed (nbval).

The only module that knows nbval. What it can miss is tested beside it: a cell without execution count is not compared at
all, pictures are never compared, and a notebook without outputs passes. Kernels run in this environment, without network.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Cells whose output is compared, at least: a notebook that falls below has lost facts or been stripped. The playground
# has panels only, whose outputs are made in a browser: what they say is tested there.
COMPARED = {"00": 8, "01": 13, "02": 12, "03": 13, "04": 14, "05": 22, "06": 3, "07": 22, "08": 3, "09": 14, "10": 11, "playground": 0}
PLAYGROUND = ROOT / "notebooks" / "playground.ipynb"
IGNORED = "nbval-ignore-output"
CELL_SECONDS = 1200         # for a machine under load; how long a cell should take is measured by `benchmarks.notebooks`

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def offline():
    """The environment of a process that reaches nothing, with one thread: as many notebooks at once as there are cores."""
    paths = [str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def as_cloned(folder, *notebooks):
    """A project folder with these notebooks, the results banks and the paper's numbers: no runs, no images."""
    (folder / "notebooks").mkdir(parents=True)
    # The full-run notebook is what a project folder is known by.
    for path in {*notebooks, ROOT / "notebooks" / "06_full_run.ipynb"}:
        shutil.copy(path, folder / "notebooks")
    for tables in ("results", "paper"):
        shutil.copytree(ROOT / "data" / tables, folder / "data" / tables)
    return folder / "notebooks"


def validate(notebook):
    """nbval over one notebook: (exit status, what it said)."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(notebook.parent), "-c", os.devnull, "-p", "no:cacheprovider",
         "--color=no", "--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}",
         "--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg"), str(notebook)],
        capture_output=True, text=True, env=offline(), cwd=notebook.parent)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="session")
def validated(request, tmp_path_factory):
    """Validates all notebooks that were asked for, as many at once as there are cores; gives the result of one."""
    folder = tmp_path_factory.mktemp("clones")
    asked = {item.callspec.params["path"] for item in request.session.items
             if item.originalname == test_a_notebook_says_what_is_committed.__name__}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = {path: pool.submit(validate, as_cloned(folder / path.stem, path) / path.name) for path in sorted(asked)}
        yield lambda path: begun[path].result()


@every_notebook
def test_a_notebook_says_what_is_committed(path, validated):
    status, said = validated(path)
    assert status == 0, said[-6000:]
    assert f"{len(code_cells(path))} passed" in said


@every_notebook
def test_a_notebook_has_something_to_compare(path):
    cells = code_cells(path)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "not executed in order, from a fresh kernel"
    compared = [cell for cell in cells if IGNORED not in tags(cell)
                and any("text" in output or set(output.get("data", {})) - {"image/png"} for output in cell.outputs)]
    assert len(compared) >= COMPARED[path.stem.split("_")[0]]


@every_notebook
def test_a_notebook_reads_well_on_a_code_host(path):
    assert path.stat().st_size < 1_500_000
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    pictures = 0
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output
            assert output.output_type != "error", "papermill and Voilà stop there, whatever the cell's tags say"
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"].split()) >= 4
                pictures += 1
            assert not re.search(r"/tmp/|/home/|/root/", json.dumps(output.get("text", "")) + json.dumps(output.get("data", {}).get("text/plain", "")))
    assert pictures or path == PLAYGROUND


# ---- that a regression is found -------------------------------------------------------------------------------------

LESSON = ROOT / "notebooks" / "03_multi_model_distillation.ipynb"


@pytest.fixture
def beginning(tmp_path):
    """The lesson on Eq. 2 up to its first training, in a folder of its own: (path, the notebook, to be written back)."""
    notebook = nbformat.read(LESSON, 4)
    first = next(i for i, cell in enumerate(notebook.cells) if "trains" in tags(cell))
    notebook.cells = notebook.cells[:first]
    path = as_cloned(tmp_path / "clone") / "beginning.ipynb"
    nbformat.write(notebook, path)
    return path, notebook


def test_the_beginning_of_a_lesson_passes_as_it_is(beginning):
    path, _ = beginning
    status, said = validate(path)
    assert status == 0, said


def test_a_regression_in_the_library_is_found(beginning):
    path, notebook = beginning
    imports = next(cell for cell in notebook.cells if cell.cell_type == "code")
    imports.source += "\ntargets.own_step = targets.penultimate\n"          # Eq. 1 where Eq. 2 should be
    nbformat.write(notebook, path)
    status, said = validate(path)
    assert status == 1 and "NotYet: multi_model_plan: this is the plan of Eq. 1" in said


def test_a_changed_output_is_found(beginning):
    path, notebook = beginning
    cell = next(cell for cell in notebook.cells if cell.get("outputs") and "all 3 passed" in cell.outputs[0].get("text", ""))
    cell.outputs[0].text = cell.outputs[0].text.replace("all 3", "all 4")
    nbformat.write(notebook, path)
    assert validate(path)[0] == 1


def test_the_network_is_out_of_reach(beginning):
    path, notebook = beginning
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source = "import urllib.request\nurllib.request.urlopen('http://198.51.100.1/', timeout=3)"
    cell.outputs, notebook.cells = [], [cell]
    nbformat.write(notebook, path)
    status, said = validate(path)
    assert status == 1 and "no network in this test" in said


def test_the_kernel_is_the_one_of_this_environment(beginning):
    path, notebook = beginning
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source = "import sys\nprint(sys.executable)"
    cell.outputs, notebook.cells = [nbformat.v4.new_output("stream", text=sys.executable + "\n")], [cell]
    nbformat.write(notebook, path)
    status, said = validate(path)
    assert status == 0, said

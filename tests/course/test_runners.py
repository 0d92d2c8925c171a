"""Every lesson by papermill, nbconvert and `jupyter execute`, as instructors and servers call them: from the first cell to the last.

Trainings are cut short (M2KD_LITE_SMOKE): what the cells say is tested in test_notebooks.py, here that they run.
"""
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from m2kd_lite.config import SMOKE, RunConfig, smoke_sized
from m2kd_lite.training import train
from tests.course.test_notebooks import NOTEBOOKS, as_cloned, offline

pytestmark = pytest.mark.system

RUNNERS = {
    "papermill": ["-m", "papermill", "{lesson}", "{out}/papermill.ipynb", "--kernel", "python3", "--no-progress-bar"],
    "nbconvert": ["-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", "{out}", "--output", "nbconvert.ipynb", "{lesson}"],
    "jupyter execute": ["-m", "jupyter", "execute", "{lesson}"],
}
BY_ALL = ("00", "06", "playground")         # a mistake on purpose, parameters, panels alone


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_runs_to_its_end_in_whatever_runs_it(path, tmp_path):
    lesson = as_cloned(tmp_path / "clone", path) / path.name
    before = lesson.read_bytes()
    environment = offline() | {SMOKE: "1", "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    # The three share an engine. What the first one trains, the others find.
    names = list(RUNNERS) if path.stem.startswith(BY_ALL) else ["papermill"]
    for command in (RUNNERS[name] for name in names):
        done = subprocess.run([sys.executable, *(part.format(lesson=lesson, out=tmp_path) for part in command)],
                              cwd=lesson.parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
    assert lesson.read_bytes() == before
    for name in {"papermill", "nbconvert"} & set(names):
        executed = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code" and cell.source)


def test_a_training_that_is_cut_short_says_so_and_leaves_whole_ones(tmp_path, monkeypatch):
    config = RunConfig.make(dict(method="finetune", dataset="digits", class_batch=5, epochs=2, train_per_class=20, test_per_class=3))
    whole = train.run(config, tmp_path / "whole")
    monkeypatch.setenv(SMOKE, "1")
    said = []
    short = train.run(config, tmp_path / "short", on_event=said.append)
    assert short["config"] == smoke_sized(config).model_dump(mode="json") != whole["config"]
    assert (short["config"]["epochs"], short["config"]["train_per_class"], short["config"]["test_per_class"]) == (1, 8, 3)
    assert any("M2KD_LITE_SMOKE is set" in event.get("text", "") for event in said)
    assert train.run(config, tmp_path / "short", resume=True)["config"] == short["config"]
    assert train.run(config, tmp_path / "whole", resume=True)["config"] == whole["config"]

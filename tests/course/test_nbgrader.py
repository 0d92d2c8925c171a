"""The course in nbgrader's hands, with docs/nbgrader_config.py as it lies there: release, submit, autograde, read the marks."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from m2kd_lite.course import grade, student

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
LESSON = "05_pruning_and_reconstruction"
# The ratio is taken for the share that is kept.
MUTANT = "\n\nright = my_prune\n\n\ndef my_prune(weights, masks, step, ratio):\n    return right(weights, masks, step, 1 - ratio)\n"
# Right, but PyTorch warns; nbgrader gives nothing where a check's cell writes to stderr.
WARNS = "\n\nquiet = my_active\n\n\ndef my_active(mask, step):\n    return torch.tensor(quiet(mask, step))\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A course of one lesson, released and graded for students who hand in different things."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "docs" / "nbgrader_config.py", folder)
    (folder / "source" / LESSON).mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / f"{LESSON}.ipynb", folder / "source" / LESSON)
    command(folder, "generate_assignment")
    written = cells(folder / "source")
    answers = {name: written[name].source for name in ("my_prune", "my_active", "my_reconstruct")}
    submit(folder, "ada", answers)
    submit(folder, "ben", answers | {"my_prune": answers["my_prune"] + MUTANT, "my_active": answers["my_active"] + WARNS})
    submit(folder, "cleo", {"check-my_prune": "print('passed')"})
    command(folder, "autograde")
    return folder


def command(folder, name):
    """An nbgrader command, as an activated environment runs it."""
    scripts = os.path.dirname(sys.executable)
    environment = dict(os.environ, PATH=scripts + os.pathsep + os.environ["PATH"])
    done = subprocess.run([sys.executable, "-m", "nbgrader", name, LESSON], cwd=folder, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cells(folder):
    """Of the lesson under `folder`: grade_id to cell."""
    lesson = nbformat.read(folder / LESSON / f"{LESSON}.ipynb", as_version=4)
    return {cell.metadata.nbgrader.grade_id: cell for cell in lesson.cells if "nbgrader" in cell.metadata}


def submit(folder, student, answers):
    lesson = nbformat.read(folder / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    for cell in lesson.cells:
        cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    target = folder / "submitted" / student / LESSON
    target.mkdir(parents=True)
    nbformat.write(lesson, target / f"{LESSON}.ipynb")


def marks(folder, student):
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "m2kd-lite") as book:
        submission = book.find_submission(LESSON, student)
        assert not submission.needs_manual_grade and submission.max_score == 6
        return {grade.name: grade.auto_score for notebook in submission.notebooks for grade in notebook.grades}


def test_what_nbgrader_releases_is_what_make_student_writes(folder):
    released = nbformat.read(folder / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    assert released.cells == nbformat.reads(student.student_version(ROOT / "notebooks" / f"{LESSON}.ipynb"), 4).cells


def test_the_solutions_get_full_marks(folder):
    assert marks(folder, "ada") == {"check-my_prune": 2, "check-my_active": 2, "check-my_reconstruct": 2}


def test_one_mistake_costs_its_own_points_and_a_warning_costs_none(folder):
    assert marks(folder, "ben") == {"check-my_prune": 0, "check-my_active": 2, "check-my_reconstruct": 2}


def test_stubs_and_a_rewritten_check_get_nothing(folder):
    assert marks(folder, "cleo") == {"check-my_prune": 0, "check-my_active": 0, "check-my_reconstruct": 0}


def test_the_graded_copy_says_which_mistake_it_was_and_nothing_was_trained(folder):
    graded = cells(folder / "autograded" / "ben")["check-my_prune"]
    (error,) = [output for output in graded.outputs if output.output_type == "error"]
    assert error.ename == "NotYet" and error.evalue.startswith("prune: ")
    lesson = nbformat.read(folder / "autograded" / "ada" / LESSON / f"{LESSON}.ipynb", as_version=4)
    skipped = [cell for cell in lesson.cells if student.NOT_GRADED in cell.metadata.get("tags", [])]
    assert any("train.run(" in cell.source for cell in skipped)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in skipped)


def test_grading_without_it_gives_the_same_points_and_the_remarks_besides(folder, tmp_path):
    rows = grade.grade(folder / "submitted", tmp_path / "remarks.csv", workers=2)
    for name in ("ada", "ben", "cleo"):
        own = {row["exercise"]: row for row in rows if row["student"] == name}
        assert {f"check-my_{exercise}": float(row["points"]) for exercise, row in own.items()} == marks(folder, name)
        assert all(row["answer"].startswith("calls ") == (name != "cleo") for row in own.values())
    assert [(row["exercise"], row["check"]) for row in rows if row["check"]] == [("prune", "altered")]

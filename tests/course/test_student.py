"""One source, two builds: students get the lessons without solutions, and each check tells stub from solution."""
import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import platformdirs
import pytest

from m2kd_lite import checks, cli
from m2kd_lite.course import notebook, student
from m2kd_lite.errors import BadInput, M2KDError
from m2kd_lite.files import places

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def nbgrader(cell):
    return cell.metadata.get("nbgrader", {})


def exercises(path):
    """(name of the exercise, index of its solution cell, index of its check cell), in the lesson's order."""
    cells, found = nbformat.read(path, as_version=4).cells, []
    for at, cell in enumerate(cells):
        if nbgrader(cell).get("grade"):
            (name,) = re.findall(r"^checks\.(\w+)\(", cell.source, re.M)
            (solution,) = [i for i, other in enumerate(cells[:at])
                           if f"check-{nbgrader(other).get('grade_id')}" == nbgrader(cell).grade_id]
            found.append((name, solution, at))
    return found


ALL = [(path.name, *exercise) for path in LESSONS for exercise in exercises(path)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    target = tmp_path_factory.mktemp("built") / "student"
    assert student.build(target) == sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())
    return target


@pytest.fixture(scope="module")
def opened():
    """The names that a lesson's first code cell, its imports, leaves: `opened(file name)` gives a fresh copy."""
    kept = {}

    def get(name):
        if name not in kept:
            first = next(cell for cell in nbformat.read(ROOT / "notebooks" / name, 4).cells if cell.cell_type == "code")
            kept[name] = {"__name__": "__main__"}
            run(first.source, kept[name])
        return dict(kept[name])

    return get


def run(source, namespace):
    """What a cell prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, "<cell>", "exec"), namespace)
    return printed.getvalue()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_solution_and_no_output_is_left(built):
    seen = 0
    for path in LESSONS:
        source = nbformat.read(path, as_version=4)
        copy = nbformat.read(built / "notebooks" / path.name, as_version=4)
        nbformat.validate(copy)
        assert [cell.id for cell in copy.cells] == [cell.id for cell in source.cells]
        assert "widgets" not in copy.metadata
        text = (built / "notebooks" / path.name).read_text()
        assert "BEGIN SOLUTION" not in text and "END SOLUTION" not in text
        for cell, original in zip(copy.cells, source.cells, strict=True):
            assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)
            if not nbgrader(original).get("solution"):
                assert cell.source == original.source
                continue
            before, body, after = re.split(r"^ *### (?:BEGIN|END) SOLUTION\n?", original.source, flags=re.M)
            assert body.strip() and cell.source == f"{before}    {student.STUB}{after and chr(10) + after}"
            seen += 1
    assert seen == len(ALL) == len(checks.EXERCISES)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_solutions_are_marked_where_nbgrader_looks_for_them(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert ("### BEGIN SOLUTION" in cell.source) == bool(nbgrader(cell).get("solution")), cell.id
        assert not nbgrader(cell).get("grade") or nbgrader(cell).points > 0, cell.id
        if student.NOT_GRADED in cell.metadata.get("tags", []):
            assert not nbgrader(cell), f"{cell.id}: grading skips it"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_cells_that_train_carry_the_tag_that_grading_skips(path):
    for cell in nbformat.read(path, as_version=4).cells:
        trains = cell.cell_type == "code" and "train.run(" in cell.source
        assert not trains or student.NOT_GRADED in cell.metadata.get("tags", []), cell.id


def test_every_exercise_is_in_one_lesson():
    assert sorted(name for _, name, _, _ in ALL) == sorted(checks.EXERCISES)


def test_the_instructors_page_has_each_lesson_with_its_points_and_each_exercise_with_its_mistakes():
    page = (ROOT / "docs" / "instructors.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))
    for path in (path for path in LESSONS if path.stem not in ("playground", "08_paper_figures")):
        cells = nbformat.read(path, as_version=4).cells
        names = [name for name, _, _ in exercises(path)]
        points = sum(nbgrader(cell).points for cell in cells if nbgrader(cell).get("grade"))
        minutes, _, said, worth = rows[path.stem].split(" | ")
        assert re.findall(r"`(\w+)`", said) == names and worth == (str(points) if points else "–"), path.name
        assert re.search(rf"\*\*Time\*\*: about {minutes} minutes", cells[0].source), path.name
    mistakes = page[page.index("## Typical mistakes"):]
    assert all(re.search(rf"^\| `{name}` \|", mistakes, re.M) for name in checks.EXERCISES)


def test_check_cells_cannot_be_edited_and_stubs_can(built):
    for name, _, solution, check in ALL:
        cells = nbformat.read(built / "notebooks" / name, as_version=4).cells
        assert cells[check].metadata.editable is False and cells[check].metadata.deletable is False
        assert cells[solution].metadata.get("editable", True) and cells[solution].metadata.deletable is False


@pytest.mark.parametrize("lesson, exercise, solution, check", ALL, ids=[f"{name[:2]}-{what}" for name, what, *_ in ALL])
def test_a_stub_is_told_and_a_solution_passes(lesson, exercise, solution, check, built, opened):
    student = nbformat.read(built / "notebooks" / lesson, as_version=4).cells
    with pytest.raises(checks.NotYet, match=rf"^{exercise}: not written yet"):
        namespace = opened(lesson)
        run(student[solution].source, namespace)
        run(student[check].source, namespace)

    namespace, original = opened(lesson), nbformat.read(ROOT / "notebooks" / lesson, as_version=4).cells
    for cell in original[:check]:
        if nbgrader(cell).get("solution"):              # one exercise may use an earlier one
            run(cell.source, namespace)
    assert re.search(rf"^{exercise}: all \d+ passed", run(original[check].source, namespace), re.M)


def test_a_stub_says_what_to_do(built, opened):
    lesson, _, solution, _ = ALL[0]
    namespace, before = opened(lesson), set(opened(lesson))
    run(nbformat.read(built / "notebooks" / lesson, as_version=4).cells[solution].source, namespace)
    (function,) = [namespace[name] for name in set(namespace) - before - {"__builtins__"}]
    with pytest.raises(NotImplementedError, match="your turn: write this function, then run the check in the next cell"):
        function(*[None] * function.__code__.co_argcount)


def test_the_saved_state_of_panels_is_an_output_too(tmp_path):
    lesson = nbformat.read(LESSONS[0], as_version=4)
    lesson.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {}}}}
    nbformat.write(lesson, tmp_path / "panel.ipynb")
    copy = nbformat.reads(student.student_version(tmp_path / "panel.ipynb"), as_version=4)
    assert set(copy.metadata) == {"kernelspec", "language_info"}


@pytest.mark.system
def test_two_builds_are_the_same_bytes(built, tmp_path, monkeypatch):
    found = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: reversed(sorted(found(self, pattern))))
    monkeypatch.setattr("time.time", lambda: 1e9)
    student.build(tmp_path / "elsewhere" / "again")
    assert files(tmp_path / "elsewhere" / "again") == files(built)
    other = dict(os.environ, PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C")
    subprocess.run([sys.executable, "-m", "m2kd_lite.cli", "lessons", tmp_path / "third", "--student"], cwd=ROOT, env=other, check=True)
    assert files(tmp_path / "third") == files(built)


def test_the_sums_are_those_of_the_files(built):
    sums = dict(reversed(line.split("  ")) for line in (built / "SHA256SUMS").read_text().splitlines())
    there = files(built)
    del there["SHA256SUMS"]
    assert {name: hashlib.sha256(content).hexdigest() for name, content in there.items()} == sums


def test_an_earlier_build_is_replaced_as_a_whole(tmp_path, monkeypatch):
    target, contents = tmp_path / "student", student._contents
    with monkeypatch.context() as patch:
        stale = {"notebooks/00_gone.ipynb": b"{}"}
        sums = {"SHA256SUMS": f"{hashlib.sha256(b'{}').hexdigest()}  notebooks/00_gone.ipynb\n".encode()}
        patch.setattr(student, "_contents", lambda root, student: stale | sums)
        student.build(target)
    assert (target / "notebooks" / "00_gone.ipynb").exists()
    checkpoint = target / "notebooks" / ".ipynb_checkpoints" / "00_gone-checkpoint.ipynb"
    checkpoint.parent.mkdir()
    checkpoint.write_text("Jupyter's")
    student.build(target)
    assert files(target) == contents(ROOT, True)
    assert os.listdir(tmp_path) == ["student"]


def test_work_in_the_folder_is_not_lost(tmp_path):
    target = tmp_path / "student"
    student.build(target)
    lesson = target / "notebooks" / ALL[0][0]
    lesson.write_text(lesson.read_text().replace("your turn: ", "return 42 # "))
    with pytest.raises(BadInput, match=f"{lesson.name}: it was changed since the folder was built"):
        student.build(target)
    assert "return 42" in lesson.read_text() and os.listdir(tmp_path) == ["student"]

    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    with pytest.raises(BadInput, match="chapter.tex"):
        student.build(other)
    assert files(other) == {"chapter.tex": b"years of work"}


def test_a_build_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    target = tmp_path / "student"
    student.build(target)
    before = files(target)
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(M2KDError, match="student: cannot write: No space left on device"):
        student.build(target)
    monkeypatch.undo()
    assert files(target) == before and os.listdir(tmp_path) == ["student"]


def test_a_copy_finds_its_tables_and_keeps_its_runs(built, tmp_path, monkeypatch):
    for name, content in files(built).items():
        (tmp_path / "usb" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "usb" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path / "usb" / "notebooks")
    assert places.lessons() == (tmp_path / "usb").resolve() and places.find("data/paper") == places.lessons() / "data" / "paper"
    config = notebook.RunConfig.make({})
    assert notebook.run_folder(config).parts[:2] == ("..", "runs")
    student.build(tmp_path / "again")                   # the solutions come with the package
    assert files(tmp_path / "again") == files(built)
    for path in LESSONS:                                # whatever a lesson names is in the copy
        lesson = (built / "notebooks" / path.name).read_text()
        for named in re.findall(r"\b(?:docs|data)/[\w/]+\.(?:md|csv)|\b\d\d_\w+\.ipynb", lesson):
            assert (built / named).exists() or (built / "notebooks" / named).exists(), f"{path.name}: {named}"


def test_a_marker_without_its_end_is_told(tmp_path):
    path = tmp_path / "broken.ipynb"
    path.write_text((ROOT / "notebooks" / ALL[0][0]).read_text().replace("### END SOLUTION", "", 1))
    with pytest.raises(M2KDError, match="broken.ipynb: ClearSolutions: "):
        student.student_version(path)


def test_the_command_says_how_to_open_them_and_what_it_needs(tmp_path, capsys, monkeypatch):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main(["lessons", *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    folder = tmp_path / "with solutions"
    assert call(folder) == (0, f"{folder}: {len(LESSONS)} notebooks; open them with: jupyter lab '{folder}'/notebooks\n", "")
    for path in LESSONS:
        assert (folder / "notebooks" / path.name).read_bytes() == path.read_bytes()
    (folder / "notebooks" / LESSONS[0].name).write_text("my own")
    status, _, said = call(folder)
    assert status == 2 and "it was changed since the folder was built" in said
    status, _, said = call()
    assert status == 2 and "DIR: missing" in said
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    status, _, said = call(tmp_path / "none", "--student")
    assert status == 1 and said.count("\n") == 1 and "python -m pip install nbgrader" in said and not (tmp_path / "none").exists()


def test_where_runs_land(tmp_path, monkeypatch, capsys):
    student.build(tmp_path / "course")
    monkeypatch.chdir(tmp_path / "course" / "notebooks")
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *names, **more: tmp_path / "mine")
    config = notebook.RunConfig.make({})
    assert notebook.run_folder(config).parts[:2] == ("..", "runs") and not capsys.readouterr().out
    with monkeypatch.context() as patch:                # as a hub shares a course: nobody may write there, not even root on such a disk
        real = tempfile.TemporaryFile
        patch.setattr(places.tempfile, "TemporaryFile", lambda dir: real(dir=dir) if "course" not in str(dir) else
                      (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        assert notebook.run_folder(config).parent == tmp_path / "mine" / "runs"
        assert capsys.readouterr().out == f"Runs land in {tmp_path / 'mine' / 'runs'}.\n"
        notebook.run_folder(config)
        assert not capsys.readouterr().out              # once is enough
    monkeypatch.setenv("M2KD_LITE_RUNS", str(tmp_path / "scratch"))
    assert notebook.run_folder(config).parent == tmp_path / "scratch" and "scratch" in capsys.readouterr().out


def test_the_course_loads_nbgrader_only_when_it_builds():
    code = "import sys, m2kd_lite.course.student, m2kd_lite.cli; assert not {'torch', 'nbgrader', 'nbformat'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)

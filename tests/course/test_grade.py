"""Grading: whatever is handed in, the command ends, and each row says what happened."""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from m2kd_lite import checks, cli
from m2kd_lite.course import exercises, grade, gradepage, remarks, student
from m2kd_lite.errors import BadInput
from m2kd_lite.method import losses, masks, metrics, targets

ROOT = Path(__file__).parents[2]
FORGETTING, PLANS, PRUNING = "01_catastrophic_forgetting", "02_sequential_distillation", "05_pruning_and_reconstruction"
SECONDS = 8            # for one exercise; the machine that tests may be busy

ASLEEP = str(90_000 + os.getpid() % 9_999)         # seconds of a process that a submission leaves behind

AVERAGE = "def average_incremental_accuracy(top1):\n    total = 0.0\n    for accuracy in top1:\n        total += accuracy\n    return total / len(top1)\n"
FALLS = """def forgetting(accuracy_by_step):
    steps, drops = len(accuracy_by_step), []
    for j in range(steps - 1):
        best = max(accuracy_by_step[k][j] for k in range(j, steps - 1))
        drops.append(best - accuracy_by_step[-1][j])
    return sum(drops) / (steps - 1) if drops else 0.0
"""
RIGHT = {"average_incremental_accuracy": AVERAGE, "forgetting": FALLS}
COPY = """def forgetting(rows):
    '''My own words.'''
    final = rows[-1]
    drops = [max(r[i] for r in rows[i:-1]) - final[i] for i in range(len(final) - 1)]
    return sum(drops) / len(drops) if drops else 0.0
"""
ACTIVE = "def my_active(mask, step):\n    return (mask >= 1) & (mask <= step)\n"


def average(body, before=""):
    """An answer to the first exercise of 01 that does something before it returns what is right; the second is right."""
    inside = "".join(f"    {line}\n" for line in body.splitlines())
    return RIGHT | {"average_incremental_accuracy": f"{before}def average_incremental_accuracy(top1):\n{inside}    return sum(top1) / len(top1)\n"}


def own(source):
    """Cells of the student's own, before the first answer of right ones."""
    return RIGHT | {"own": source}


OK, NOTHING = ("passed", "", "", ""), "it still raises NotImplementedError"
FIRST = "average_incremental_accuracy"
# Submission: (lesson, cells by their nbgrader id, rows: (outcome, said, remark on the answer, remark on the check), each a pattern).
HANDED_IN = {
    "right": (FORGETTING, RIGHT, [OK, OK]),
    "stubs": (FORGETTING, {}, [("not answered", NOTHING, "", "")] * 2),
    "mistakes": (FORGETTING, {FIRST: "def average_incremental_accuracy(top1):\n    return top1[-1]\n", "forgetting": FALLS.replace("return sum", "return -sum")},
                 [("mistake", "this is the last accuracy", "", ""), ("mistake", "the sign is turned round", "", "")]),
    "solutions": (FORGETTING, "solved", [("passed", "", "calls metrics.average_incremental_accuracy", ""), ("passed", "", "calls metrics.forgetting", "")]),
    "solutions-05": (PRUNING, "solved", [("passed", "", "calls masks.prune", ""), ("passed", "", "calls masks.active", ""),
                                         ("passed", "", "calls snapshots.Snapshots.state", "")]),
    "alias": (PLANS, {"own": "from m2kd_lite.method import losses as L, targets as T", "distillation_loss": "loss = L.distillation_loss\ndef distillation_loss(a, b, c):\n"
                      "    return loss(a, b, c)\n", "sequential_plan": "sequential_plan = T.penultimate"},
              [("passed", "", "calls losses.distillation_loss", ""), ("passed", "", "calls targets.penultimate", "")]),
    "table": (PRUNING, {"my_prune": "def my_prune(*given):\n    return METHODS['m2kd'].prune(*given)\n", "my_active": "def my_active(mask, step):\n    return vars(masks)['act' + 'ive'](mask, step)\n",
                        "my_reconstruct": "def my_reconstruct(snapshots, step):\n    return snapshots.state(step)\n"},
              [("passed", "", "calls masks.prune when it runs", ""), ("passed", "", "calls masks.active when it runs", ""), ("passed", "", "calls .*state when it runs", "")]),
    "copy": (FORGETTING, {FIRST: AVERAGE, "forgetting": COPY}, [OK, ("passed", "", r"reads as metrics.forgetting does \(\d+ % alike\)", "")]),
    "pruning": (PRUNING, {"my_active": ACTIVE}, [("not answered", NOTHING, "", ""), OK, ("not answered", NOTHING, "", "")]),
    "endless": (FORGETTING, average("while True: pass"), [("timed out", "longer than", "", ""), OK]),
    "sleeps": (FORGETTING, average("import time; time.sleep(10**6)"), [("timed out", "longer than", "", ""), OK]),
    "endless cell": (FORGETTING, own("while True: pass"), [OK, OK]),
    "trains": (FORGETTING, own("train.run(config, 'run')"), [OK, OK]),
    "exit": (FORGETTING, average("import os; os._exit(0)"), [("crashed", "status 0", "", ""), OK]),
    "sys.exit": (FORGETTING, average("raise SystemExit"), [("mistake", "it ends the whole program", "", ""), OK]),
    "exit in a cell": (FORGETTING, own("import os; os._exit(3)"), [("crashed", "status 3", "", "")] * 2),
    "segfault": (FORGETTING, average("import ctypes; ctypes.string_at(0)"), [("crashed", "SIGSEGV", "", ""), OK]),
    "memory": (FORGETTING, average("kept = [torch.ones(2**26) for _ in range(10**6)]"), [("mistake", "it (raised MemoryError|asks for more memory)", "", ""), OK]),
    "prints": (FORGETTING, average("while True: print('x' * 10**6)"), [("timed out", "longer than", "", ""), OK]),
    "fills the disk": (FORGETTING, average("with open('big', 'wb') as file:\n    while True: file.write(bytes(10**7))"), [("mistake", "it raised OSError", "", ""), OK]),
    "deletes": (FORGETTING, average("import os, shutil\nfor name in os.listdir('.'):\n    shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)"), [OK, OK]),
    "deletes more": (FORGETTING, average("import os, shutil\nshutil.rmtree(FOLDER)"), [("mistake", "PermissionError.*outside", "", ""), OK]),
    "network": (FORGETTING, average("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')"), [("mistake", "it raised URLError.*no network", "", ""), OK]),
    "kills": (FORGETTING, average("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"), [("passed|crashed", "", "", ""), OK]),
    "leaves a process": (FORGETTING, average(f"import subprocess\nsubprocess.Popen(['sleep', '{ASLEEP}'], start_new_session=True)"), [OK, OK]),
    "syntax": (FORGETTING, RIGHT | {FIRST: "def average_incremental_accuracy(top1)\n    return 1"}, [("mistake", "its cell ends in an error: SyntaxError", "", ""), OK]),
    "helper": (FORGETTING, own("%matplotlib inline\nimport helper\ndef total(xs): return helper.total(xs)") | {FIRST: "def average_incremental_accuracy(top1):\n    return total(top1) / len(top1)"}, [OK, OK]),
    "cheats": (FORGETTING, {"own": "import builtins\nfrom m2kd_lite.checks import engine\nengine.same = lambda *a, **k: True\nbuiltins.all = lambda given: True\n"
                            "checks.forgetting = print", FIRST: "def average_incremental_accuracy(top1):\n    return 0", "forgetting": "def forgetting(rows):\n    return 0"},
               [("mistake", "", "", "replaces builtins.all and 2 more")] * 2),
    "cheats late": (FORGETTING, average("from m2kd_lite.checks import engine\nengine._right = lambda *a: True"), [("mistake", "replaces m2kd_lite.checks.engine._right while", "", ""), OK]),
    "check altered": (FORGETTING, {"check-" + FIRST: "print('passed')"}, [("not answered", NOTHING, "", "altered"), ("not answered", NOTHING, "", "")]),
    "check removed": (FORGETTING, RIGHT | {"check-forgetting": None}, [OK, ("passed", "", "", "removed")]),
    "cells missing": (FORGETTING, {FIRST: None, "check-" + FIRST: None, "forgetting": FALLS}, [("not answered", "is not there", "", "removed"), OK]),
    "<b>bold": (FORGETTING, RIGHT, [OK, OK]),
    "=1+1": (FORGETTING, RIGHT, [OK, OK]),
}
UNGRADED = {"other course/homework.ipynb": "no lesson of this course", "torn/a.ipynb": "not a notebook", "text/a.ipynb": "not a notebook",
            "map/00.ipynb": "00_start_here has no exercise", "empty": "no notebook in this folder", "a folder/x.ipynb": "not a file", "dangling/x.ipynb": "not a file",
            "pipe/x.ipynb": "not a file"}


@pytest.fixture(scope="session")
def released():
    return {name: nbformat.reads(student.student_version(ROOT / "notebooks" / f"{name}.ipynb"), 4) for name in (FORGETTING, PLANS, PRUNING)}


def written(lesson, cells, released):
    """A released lesson with some cells filled in, left out (None), or added before the first answer ("own")."""
    copy = nbformat.from_dict(json.loads(json.dumps(released[lesson])))
    if cells == "solved":
        return nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4)
    kept = []
    for cell in copy.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name is not None and "own" in cells and not any(other.id == "my-own" for other in kept):
            kept.append(nbformat.v4.new_code_cell(cells["own"], id="my-own"))
        if cells.get(name, "") is not None:
            cell.source = cells.get(name, cell.source)
            kept.append(cell)
    copy.cells = kept
    return copy


def hand_in(folder, names, released):
    for name in names:
        lesson, cells, _ = HANDED_IN[name]
        (folder / name).mkdir(parents=True)
        notebook = written(lesson, cells, released)
        for cell in notebook.cells:
            cell.source = cell.source.replace("FOLDER", repr(str(folder)))
        nbformat.write(notebook, folder / name / "work.ipynb")
        (folder / name / "helper.py").write_text("total = sum\n")


def hand_in_what_is_none(folder):
    for name in UNGRADED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)"), nbformat.v4.new_markdown_cell("# Chemistry")])
    nbformat.write(other, folder / "other course" / "homework.ipynb")
    (folder / "torn" / "a.ipynb").write_text((ROOT / "notebooks" / f"{FORGETTING}.ipynb").read_text()[:5000])
    (folder / "text" / "a.ipynb").write_bytes(b"\xff\x00 nothing of the kind")
    (folder / "map" / "00.ipynb").write_bytes((ROOT / "notebooks" / "00_start_here.ipynb").read_bytes())
    (folder / "empty").mkdir()
    (folder / "a folder" / "x.ipynb").mkdir()
    (folder / "dangling" / "x.ipynb").symlink_to("nowhere")
    os.mkfifo(folder / "pipe" / "x.ipynb")


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", *map(str, arguments)])
    return end.value.code, *capsys.readouterr()


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.system
def test_a_folder_of_everything_is_graded_with_one_command(tmp_path, released, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)             # as the help's example, whose folder is relative
    folder, out = tmp_path / "submitted", tmp_path / "grades.csv"
    hand_in(folder, HANDED_IN, released)
    hand_in_what_is_none(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, said, log = call(capsys, "submitted", "--out", "grades.csv", "--workers", 3, "--seconds", SECONDS, "--memory", 0.5)
    assert status == 0, log
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    rows, wrong = {}, []
    for row in table(out):
        rows.setdefault(row["student"].removeprefix("'"), []).append(row)
    assert len(rows) == len(HANDED_IN) + len(UNGRADED)
    for name, (lesson, _, expected) in HANDED_IN.items():
        tasks = [task for known in exercises.lessons() if known.name == lesson for task in known.tasks]
        assert [row["exercise"] for row in rows[name]] == [task.name for task in tasks]
        for row, task, (outcome, *patterns) in zip(rows[name], tasks, expected, strict=True):
            got = (row["said"], row["answer"], row["check"])
            fits = all(re.search(pattern, text) if pattern else not text or name in ("kills", "cheats") for pattern, text in zip(patterns, got, strict=True))
            if not re.fullmatch(outcome, row["outcome"]) or not fits or float(row["points"]) != (task.points if row["outcome"] == "passed" else 0):
                wrong.append((name, task.name, row["outcome"], *got))
    assert not wrong, "\n".join(map(str, wrong))
    for path, reason in UNGRADED.items():
        (row,) = rows[path.partition("/")[0]]
        assert row["outcome"] == "not graded" and row["said"].startswith(reason) and row["points"] == "0", row
    if subprocess.run(["unshare", "--user", "--net", "--pid", "--fork", "true"], capture_output=True).returncode == 0:
        assert ASLEEP not in subprocess.run(["ps", "-Ao", "args"], capture_output=True, text=True).stdout

    assert log.count("\n") == len(rows) and f"[{len(rows)}/{len(rows)}] " in log
    page = out.with_suffix(".html").read_text()
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page and "<script" not in page
    assert f"{len(rows)} of {len(rows)} submissions seen, {len(HANDED_IN)} graded" in page

    # Again: nothing is graded anew but what has changed.
    table_before = out.read_bytes()
    (folder / "stubs" / "work.ipynb").write_bytes((folder / "right" / "work.ipynb").read_bytes())
    status, _, log = call(capsys, "submitted", "--out", "grades.csv", "--workers", 3, "--seconds", SECONDS, "--memory", 0.5)
    assert status == 0 and Counter("graded before" in line for line in log.splitlines()) == {True: len(rows) - 1, False: 1}
    changed = [(old, new) for old, new in zip(table_before.splitlines(), out.read_bytes().splitlines(), strict=True) if old != new]
    assert [new.split(b",")[4] for _, new in changed] == [b"passed"] * 2


@pytest.mark.system
def test_a_grading_that_is_interrupted_goes_on_where_it_was(tmp_path, released):
    folder, out = tmp_path / "submitted", tmp_path / "grades.csv"
    hand_in(folder, ("right", "sleeps"), released)
    signal.signal(signal.SIGINT, signal.default_int_handler)        # a shell's background job ignores it
    command = [sys.executable, "-m", "m2kd_lite.cli", "grade", folder, "--out", out, "--workers", "1", "--seconds", "600"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert "right/work.ipynb" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] .startswith("m2kd-lite: stopped; 1 of 2 submissions are graded") and process.returncode == 130
    assert [row["outcome"] for row in table(out)] == ["passed", "passed"]


@pytest.mark.parametrize("lesson", ["03_multi_model_distillation", "04_auxiliary_head", "07_exemplars"])
def test_the_other_lessons_solutions_are_told_too(lesson):
    (lesson,) = [known for known in exercises.lessons() if known.name == lesson]
    for task in lesson.tasks:
        solving = remarks.solves(task.solution, lesson.imports, checks.EXERCISES[task.name].reference)
        assert remarks.remark([lesson.imports, task.solution], task.function, solving).startswith("calls "), task.name


def solving(exercise):
    ((lesson, task),) = [(lesson, task) for lesson in exercises.lessons() for task in lesson.tasks if task.name == exercise]
    return lambda *sources: remarks.remark([lesson.imports, *sources], task.function,
                                           remarks.solves(task.solution, lesson.imports, checks.EXERCISES[exercise].reference))


@pytest.mark.parametrize("sources, said", [
    ((FALLS,), ""),
    ((COPY,), "reads as metrics.forgetting does (100 % alike)"),
    ((COPY.replace("if drops else 0.0", "if len(drops) else 0"),), "reads as metrics.forgetting does ("),
    (("import m2kd_lite as kit\ndef forgetting(rows):\n    return kit.forgetting(rows)",), "calls metrics.forgetting"),
    (("from m2kd_lite.method.metrics import forgetting",), "calls metrics.forgetting"),
    (("from m2kd_lite.method.metrics import *\nlibrary = forgetting\ndef forgetting(rows): return library(rows)",), "calls metrics.forgetting"),
    (("import m2kd_lite.method.metrics\nf = m2kd_lite.method.metrics\ndef forgetting(rows): return getattr(f, 'forgetting')(rows)",), "calls metrics.forgetting"),
    (("def helper(rows): return metrics.forgetting(rows)", "def forgetting(rows): return helper(rows)"), "calls metrics.forgetting"),
    (("def compare(rows): return metrics.forgetting(rows)", FALLS), ""),               # to compare is no answer
    (("%%time\n!ls\n" + FALLS, "this is no Python"), ""),
    ((), ""),
], ids=range(11))
def test_a_remark_says_whether_the_answer_is_the_librarys(sources, said):
    told = solving("forgetting")(*sources)
    assert told.startswith(said) and bool(told) == bool(said)


def test_what_solves_an_exercise_is_read_from_the_lesson():
    def of(exercise):
        ((lesson, task),) = [(lesson, task) for lesson in exercises.lessons() for task in lesson.tasks if task.name == exercise]
        return remarks.solves(task.solution, lesson.imports, checks.EXERCISES[exercise].reference)

    assert of("forgetting") == [metrics.forgetting] and of("active") == [masks.active] and of("sequential_plan") == [targets.penultimate]
    assert of("distillation_loss") == [losses.distillation_loss, losses.binary_cross_entropy]       # the one hands on to the other
    assert [one.__name__ for one in of("nearest_mean")] == ["means_of", "nearest", "nearest_mean"]


def test_every_exercise_is_found_in_its_lesson():
    tasks = [task for lesson in exercises.lessons() for task in lesson.tasks]
    assert sorted(task.name for task in tasks) == sorted(checks.EXERCISES) and all(task.points > 0 for task in tasks)
    assert all(task.source == f"checks.{task.name}({task.function})" for task in tasks)        # what grading calls


def test_a_submission_is_told_by_its_cells_and_runs_without_demonstrations(released):
    notebook = written(FORGETTING, own("mine = 1"), released)
    lesson = exercises.lesson_of(notebook.cells, exercises.lessons())
    assert lesson.name == FORGETTING
    found = exercises.pieces(notebook.cells, lesson)
    assert [piece.role for piece in found] == ["own", "answer", "check", "answer", "check"]
    for cell in notebook.cells:                         # as a tool leaves it that keeps neither ids nor metadata
        cell.id, cell.metadata = f"x{id(cell)}", {}
    assert exercises.lesson_of(notebook.cells, exercises.lessons()).name == FORGETTING
    bare = exercises.pieces(notebook.cells, lesson)
    assert [piece.role for piece in bare] == ["own"] * 3 and AVERAGE in [piece.source for piece in bare]


def test_the_student_is_the_folder_or_the_name(tmp_path):
    for name in ("ada/work.ipynb", "ben/01/deep.ipynb", f"cleo_{FORGETTING}.ipynb", "dan.ipynb", ".hidden/x.ipynb", "ada/.ipynb_checkpoints/work.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert [one.student for one in grade.submissions(tmp_path)] == ["ada", "ben", "cleo", "dan"]


def test_bad_input_is_one_line(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.csv").write_text("years,of\nwork,1\n")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.ipynb").write_text("{}")
    for arguments, said in (((), "FOLDER: missing"), ((tmp_path / "there",), "--out: missing"),
                            ((tmp_path / "gone", "--out", tmp_path / "a.csv"), "gone: not a folder"),
                            ((tmp_path / "there", "--out", tmp_path / "a.csv"), "there: no notebook in it"),
                            ((tmp_path / "some", "--out", tmp_path / "a.txt"), "ends in .csv"),
                            ((tmp_path / "some", "--out", tmp_path / "mine.csv"), "mine.csv: exists already and is no table of grades"),
                            ((tmp_path / "some", "--out", tmp_path / "a.csv", "--workers", "0"), "--workers 0: not allowed"),
                            ((tmp_path / "some", "--out", tmp_path / "a.csv", "--seconds", "-1"), "--seconds -1: not allowed"),
                            ((tmp_path / "some", "--out", tmp_path / "a.csv", "--memory", "much"), "--memory much: not allowed")):
        status, _, told = call(capsys, *arguments)
        assert status == 2 and said in told and told.count("\n") == 1, told
    assert (tmp_path / "mine.csv").read_text() == "years,of\nwork,1\n" and not (tmp_path / "a.csv").exists()
    with pytest.raises(BadInput, match="no notebook"):
        grade.grade(tmp_path / "there", tmp_path / "a.csv")


def test_a_table_can_be_opened_in_a_spreadsheet_and_read_again(tmp_path):
    row = dict.fromkeys(grade.COLUMNS, "") | {"student": "=cmd()", "notebook": "-a/x.ipynb", "said": "two, \"words\"\nand a line"}
    (tmp_path / "a.csv").write_bytes(grade._as_csv([row]))
    assert table(tmp_path / "a.csv")[0]["student"] == "'=cmd()"
    assert grade._read(tmp_path / "a.csv") == {"-a/x.ipynb": [row]}


def test_the_page_counts_by_exercise():
    row = dict.fromkeys(grade.COLUMNS, "") | {"exercise": "prune", "lesson": "05", "outcome": "mistake", "said": "the wrong <way>", "of": "2", "points": "0"}
    rows = [row | {"notebook": name, "student": name} for name in "abc"] + [row | {"notebook": "d", "outcome": "passed", "points": "2", "said": "", "answer": "calls it"}]
    page = gradepage.render(rows, 5)
    assert "4 of 5 submissions seen, 4 graded" in page and "the wrong &lt;way&gt; (3×)" in page and "Worth a look" in page and "Not graded" not in page


def test_grading_is_not_loaded_with_torch():
    code = "import sys, m2kd_lite.course.grade; assert not {'torch', 'nbformat', 'IPython'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))

"""The syllabus: goals as the lessons have them, each with an exercise that exists, and courses that fit their time."""
import re
from pathlib import Path

import nbformat
import pytest
from benchmarks import times

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "syllabus.md").read_text()
LESSONS = {path.stem[:2]: path for path in times.LESSONS if path.stem != "08_paper_figures"}         # which is no lesson
GOALS = re.findall(r"(?m)^\| (\d\d) \| (.+) \| (\d\d): (.+) \|$", TEXT)


def named(exercises):
    """The exercises of a row, one by one: "`prune`, Vary it, questions 2, 3" has four."""
    text, _, numbers = re.match(r"(.*?)(questions? ([\d, ]+))?$", exercises).groups()
    return [part.strip("` ") for part in text.split(",") if part.strip()] + [f"question {number}" for number in re.findall(r"\d+", numbers or "")]


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_goals_are_those_at_the_head_of_the_lesson(lesson):
    head = nbformat.read(LESSONS[lesson], 4).cells[0].source
    assert [goal for of, goal, *_ in GOALS if of == lesson] == [goal.rstrip(";.") for goal in re.findall(r"(?m)^- (.*)$", head)]


def test_every_goal_has_an_exercise_and_every_exercise_is_named_once():
    there = []
    for lesson, path in LESSONS.items():
        names, questions = times.exercises(path)
        there += [(lesson, name) for name in names] + [(lesson, f"question {number}") for number in range(1, questions + 1)]
    found = [(lesson, name) for _, _, lesson, exercises in GOALS for name in named(exercises)]
    assert len(there) > 60 and sorted(found) == sorted(there)
    assert all(named(exercises) for *_, exercises in GOALS)


def test_the_courses_fit_their_time_and_the_parts_to_leave_out_exist():
    lab, workshop, course = TEXT.split("\n## ")[3:6]
    sums = [[int(number) for number in re.findall(r"\*\*together\*\* \| (\d+)", part)] for part in (lab, workshop, course)]
    assert sums[0] == [120] and sums[1] == [240] and len(sums[2]) == 10 and max(sums[2]) <= 120
    order = [[int(number) for number in re.findall(r"\| (?:lesson `|talk `)(\d\d)", part)] for part in (lab, workshop, course)]
    assert all(lessons == sorted(lessons) for lessons in order) and set(order[2]) == {*range(11)}
    headings = "\n".join(cell.source for path in times.LESSONS for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    left_out = [name for part in (lab, workshop, course) for name in re.findall(r'"([^"]+)"', " ".join(part.split()))]
    assert len(left_out) > 6
    for name in left_out:
        assert re.search(rf"(?m)^##+ (See it: )?{re.escape(name.rstrip('.'))}", headings), name

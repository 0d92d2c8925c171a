"""The minutes at the head of a lesson are an estimate by one formula, and every page says the same ones."""
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from benchmarks import times

ROOT = Path(__file__).parents[2]
every_lesson = pytest.mark.parametrize("path", times.LESSONS, ids=lambda path: path.stem)


def time_of(path):
    return re.search(r"(?m)^\*\*Time\*\*: .*$", nbformat.read(path, 4).cells[0].source)[0]


@every_lesson
def test_the_time_at_the_head_follows_from_the_lesson_to_five_minutes(path):
    """Where this fails, the lesson has grown: `python -m benchmarks.times --write`."""
    work, line = times.of_lesson(path), time_of(path)
    assert abs(times.said(path) - work.minutes) <= times.ROUND and times.said(path) % times.ROUND == 0
    for part, what in zip(work.parts, ("for the text", "for the code", "to write", "for the machine"), strict=True):
        told = re.search(rf"(\d+|less than one) {what}", line)
        assert told or part == 0
        assert not told or abs((0.5 if "less" in told[1] else int(told[1])) - part) <= times.ROUND / 2
    assert ("The questions at the end" in line) == (times.exercises(path)[1] > 0)


def test_text_code_and_answers_are_counted_as_the_formula_says():
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    assert times.of_cell(markdown("Two words – and $s = t$.\n\n**Time**: about 5 minutes, an estimate")).words == 5
    assert times.of_cell(code("import this\nfrom a import b\n\n# why\nx = 1\nprint(x)")).read == 2
    stub = code('def f(a):\n    """What it does."""\n    ### BEGIN SOLUTION\n    return g(a)\n    ### END SOLUTION\n')
    assert times.of_cell(stub) == times.Work(read=2)
    shown = code("notebook.source(library.f)", outputs=[nbformat.v4.new_output("display_data", {
        "text/markdown": "`f.py`:\n\n```python\n@decorated\ndef f(a,\n      b):\n    # why\n    c = a\n    return c\n```"})])
    assert times.of_cell(shown) == times.Work(read=6, written=2)
    assert times.Work(words=119, read=25, written=3, seconds=60).parts == pytest.approx((1, 3, 6, 1))
    assert times.Work(words=119, seconds=30).minutes == pytest.approx(1.5)


@every_lesson
def test_a_lesson_is_the_sum_of_its_sections(path):
    found, seconds = times.sections(path), times.measured()[path.stem]
    assert len(found) > 8 and min(part.minutes for part in found.values()) >= 0
    assert sum(part.minutes for part in found.values()) + float(seconds["seconds"]) / 60 == pytest.approx(times.of_lesson(path).minutes)
    assert "cores" in seconds["machine"]


@pytest.mark.parametrize("path", times.PAGES, ids=lambda path: path.name)
def test_the_tables_of_the_pages_say_what_the_lessons_say(path):
    text = path.read_text()
    assert times.filled(text) == text
    wrong = re.sub(r"\| (\d+) \|", "| 7 |", text)
    assert times.filled(wrong) != wrong


def test_the_range_on_the_front_pages_is_that_of_the_lessons():
    minutes = [times.said(path) for path in times.LESSONS if path.stem != "08_paper_figures"]          # which is no lesson
    for name in ("README.md", "docs/index.md"):
        assert f"A lesson takes {min(minutes)} to {max(minutes)} minutes by our estimate" in " ".join((ROOT / name).read_text().split())
    assert max(float(row["seconds"]) for row in times.measured().values()) < 4 * 60            # "up to four"


def test_the_syllabus_gives_the_rates_of_the_formula():
    text = " ".join((ROOT / "docs" / "syllabus.md").read_text().split())
    written = 1 / times.LINES_WRITTEN_A_MINUTE
    assert (f"words / {times.WORDS_A_MINUTE:.0f} + lines of code to read / {times.LINES_READ_A_MINUTE:.1f} + lines to write × {written:.0f}"
            in text)
    assert times.MINUTES_A_QUESTION == times.ROUND == 5 and "counts five minutes" in text and "rounded to five minutes" in text


def test_writing_the_time_changes_that_line_alone(tmp_path):
    path = shutil.copy(times.LESSONS[2], tmp_path)
    before = Path(path).read_text().splitlines()
    times.write(Path(path), times.time_line(times.Work(words=119 * 33), asks=False))
    after = Path(path).read_text().splitlines()
    (changed,) = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed.strip() == ('"**Time**: about 35 minutes, an estimate: 33 for the text, 0 for the code, less than one for the machine, on two '
                               'idle cores. No GPU, no network.\\n",')

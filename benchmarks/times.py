"""How long a lesson takes a student: an estimate from what stands in the notebook, and the formula behind it.

`python -m benchmarks.times` prints each lesson's minutes and what they are made of, then those of its sections. With `--write`, the **Time**
lines of the notebooks and the tables of the pages for instructors say so; nothing else in these files changes. Nobody has been timed: the rates
below are two published ones and two assumptions, and docs/syllabus.md repeats them.
"""
from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[01]*.ipynb"))
PAGES = [ROOT / "docs" / name for name in ("syllabus.md", "instructors.md")]
SECONDS = Path(__file__).with_name("seconds.csv")       # of all cells, by `python -m benchmarks.notebooks`

# Adults read English non-fiction silently at 238 words a minute (Brysbaert 2019, doi:10.1016/j.jml.2019.104047). That we assume to halve
# where formulas, tables and figures have to be understood; a symbol counts as a word.
WORDS_A_MINUTE = 238 / 2
# Reviewers of application code prepare at about 500 lines an hour (Humphrey 1989, quoted in McConnell, Code Complete, chapter 21).
LINES_READ_A_MINUTE = 500 / 60
# An assumption: a line of the library's own answer takes two minutes to find, with the failed tries before it.
LINES_WRITTEN_A_MINUTE = 1 / 2
MINUTES_A_QUESTION = 5                                  # an assumption: the lessons say "a few minutes" of each
TALK, SHORT_TALK = 10, 5                                # the slides before a lesson; those of 00 and 08 are short
ROUND = 5                                               # minutes; more precise than that the estimate is not
SOLUTION = re.compile(r"(?s)### BEGIN SOLUTION.*?### END SOLUTION")
TIME_LINE = re.compile(r"\*\*Time\*\*: [^\n]*")


@dataclass(frozen=True)
class Work:
    """What there is to do in a notebook or a part of one: words and lines of code to read, lines to write, seconds to wait."""

    words: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.words + other.words, self.read + other.read, self.written + other.written, self.seconds + other.seconds)

    @property
    def parts(self) -> tuple[float, float, float, float]:
        """Minutes for the text, the code, the exercises and the machine."""
        return (self.words / WORDS_A_MINUTE, self.read / LINES_READ_A_MINUTE, self.written / LINES_WRITTEN_A_MINUTE, self.seconds / 60)

    @property
    def minutes(self) -> float:
        """All of it: the one formula."""
        return sum(self.parts)


def of_cell(cell: nbformat.NotebookNode) -> Work:
    """The work in a cell. An answer is counted as the library's own, which the lesson shows after the check: to write, then to compare."""
    if cell.cell_type == "markdown":
        text = re.sub(r"<[^>\n]+>", " ", TIME_LINE.sub("", cell.source))
        return Work(words=len(re.findall(r"\S*\w\S*", text)))
    code = lines_of(SOLUTION.sub("", cell.source))
    if "notebook.source(" not in cell.source:
        return Work(read=code)
    shown = [code for output in cell.outputs for code in re.findall(r"(?s)```python\n(.*?)```", output.get("data", {}).get("text/markdown", ""))]
    return Work(read=code + sum(map(lines_of, shown)), written=sum(map(body, shown)))


def lines_of(code: str) -> int:
    """Lines that are read: no blank ones, comments and imports."""
    lines = (line.strip() for line in code.splitlines())
    return sum(bool(line) and not line.startswith(("#", "import ", "from ")) for line in lines)


def body(function: str) -> int:
    """Lines of a function that a student has to write: the signature is given."""
    first = ast.parse(function).body[0].body[0].lineno
    return lines_of("\n".join(function.splitlines()[first - 1:]))


def sections(path: Path) -> dict[str, Work]:
    """The work in a notebook by its headings of the second rank; what stands before the first is "". The machine's seconds are not in it."""
    found, title = {"": Work()}, ""
    for cell in nbformat.read(path, 4).cells:
        pieces = re.split(r"(?m)^(## .*)$", cell.source) if cell.cell_type == "markdown" else [None]
        for place, piece in enumerate(pieces):
            if place % 2:
                title = piece.removeprefix("## ")
            found[title] = found.get(title, Work()) + of_cell(nbformat.v4.new_markdown_cell(piece) if piece is not None else cell)
    return found


def measured() -> dict[str, dict[str, str]]:
    """The rows of seconds.csv by notebook."""
    with SECONDS.open(encoding="utf-8", newline="") as file:
        return {row["notebook"]: row for row in csv.DictReader(file)}


def of_lesson(path: Path) -> Work:
    """All work in a lesson, the machine's seconds included."""
    return sum(sections(path).values(), Work(seconds=float(measured()[path.stem]["seconds"])))


def rounded(minutes: float) -> int:
    """To the nearest five minutes, and never to none."""
    return max(ROUND, ROUND * round(minutes / ROUND))


def time_line(work: Work, asks: bool = True) -> str:
    """What stands at the head of a lesson; `asks`: it has questions at its end."""
    text, code, writing, machine = (round(part) for part in work.parts)
    parts = [f"{text} for the text", f"{code} for the code", *([f"{writing} to write"] if writing else []),
             f"{machine} for the machine" if machine else "less than one for the machine"]
    return (f"**Time**: about {rounded(work.minutes)} minutes, an estimate: {', '.join(parts)}, on two idle cores. "
            + ("The questions at the end come on top. " if asks else "") + "No GPU, no network.")


def said(path: Path) -> int:
    """The minutes that the head of a lesson says: what all pages go by."""
    return int(re.search(r"\*\*Time\*\*: about (\d+) minutes, an estimate", nbformat.read(path, 4).cells[0].source)[1])


def exercises(path: Path) -> tuple[list[str], int]:
    """What tests a student: the functions that are checked for points, and parts to try by name; and the number of questions at the end."""
    cells = nbformat.read(path, 4).cells
    checked = [re.search(r"checks\.(\w+)\(", cell.source)[1] for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    tried = [name for name in ("By hand", "Vary it") if re.search(rf"(?m)^##+ {name}$", text)]
    asked = re.search(r"(?ms)^## Exercises$(.*?)^## ", text)
    return checked + tried, len(re.findall(r"(?m)^\d+\. ", asked[1])) if asked else 0


def filled(page: str) -> str:
    """A page with its tables of minutes as the lessons say them; every other line stays.

    A row of a course begins with what takes the time, such as "lesson `NAME`" (`ROW`); "together" is the sum of its table. A row of
    the course at a glance begins with a lesson's name alone, and goes on with its minutes and the machine's seconds.
    """
    lines, total = [], 0
    for line in page.splitlines():
        total = total if line.startswith("|") else 0
        if row := ROW.match(line):
            kind, name, number = row.groups()
            minutes = total if "together" in kind else int(number) if kind == "break" else MINUTES_OF[kind](name)
            total += minutes
            line = line[:row.start(3)] + str(minutes) + line[row.end(3):]
        elif row := re.match(r"\| `([01]\d_\w+)` \| \d+ \| \d+ \|", line):
            line = f"| `{row[1]}` | {said(lesson(row[1]))} | {measured()[row[1]]['seconds']} |" + line[row.end():]
        lines.append(line)
    return "\n".join(lines) + "\n"


def lesson(name: str) -> Path:
    """The file of a lesson."""
    return ROOT / "notebooks" / f"{name}.ipynb"


ROW = re.compile(r"\| (talk|lesson|questions of|break|\*\*together\*\*)(?: `(\w+)`)? \| (\d+) \|")
MINUTES_OF = {
    "talk": lambda name: SHORT_TALK if name in ("00", "08") else TALK,
    "lesson": lambda name: said(lesson(name)),
    "questions of": lambda name: MINUTES_A_QUESTION * exercises(lesson(name))[1],
}


def main() -> int:
    """Print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the estimates where they are said")
    asked = parser.parse_args()
    for path in LESSONS:
        work = of_lesson(path)
        print(f"{path.stem:<30} {work.minutes:5.1f} -> {rounded(work.minutes):3}: " + ", ".join(f"{part:.1f}" for part in work.parts))
        for title, part in sections(path).items():
            print(f"    {part.minutes:5.1f}  {title}")
        if asked.write:
            write(path, time_line(work, exercises(path)[1] > 0))
    for page in PAGES if asked.write else ():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def write(path: Path, line: str) -> None:
    """Replace the **Time** line in the file of a notebook, as JSON has it: every other byte stays."""
    text, new = path.read_text(encoding="utf-8"), json.dumps(line, ensure_ascii=False)[1:-1]
    path.write_text(re.sub(r"\*\*Time\*\*: [^\"\n]*?(?=(\\n)?\")", lambda _: new, text, count=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

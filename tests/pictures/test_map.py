"""The map of the course."""
from pathlib import Path

from m2kd_lite import pictures

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_map_names_lessons_that_exist_and_says_the_loop_in_words():
    figure = pictures.map.loop_map("One step")
    for part in ("new classes arrive (lesson 01)", "then the next step begins"):
        assert part in figure.alt_text
    for *_, who, _ in pictures.map.PARTS:
        for number in who.split("\n")[0].removeprefix("lessons").removeprefix("lesson").split(","):
            assert list(NOTEBOOKS.glob(f"{number.strip()}_*.ipynb")), who

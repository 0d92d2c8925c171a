"""The talks that `make slides` makes: every slide has notes, figures can be read without eyes, and nothing is asked of another machine."""
import importlib.util
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "docs" / "slides").glob("[01]*.md"))
every_talk = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def deck():
    spec = importlib.util.spec_from_file_location("slides_deck", ROOT / "docs" / "slides" / "deck.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_talk_before_each_lesson():
    assert [path.stem for path in SOURCES] == [path.stem for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb"))]


@pytest.mark.system
@every_talk
def test_a_talk_has_three_figures_and_notes_on_every_slide(slides, source):
    page = BeautifulSoup((slides / f"{source.stem}.html").read_text(), "html.parser")
    shown = [section for section in page.select(".slides > section > section")]
    assert 4 <= len(shown) <= 7
    pictures = [image for section in shown for image in section.select("img")]
    assert len(pictures) >= 3 and all(image["src"].startswith("data:image/png") and len(image["alt"].split()) > 4 for image in pictures)
    for section in shown:
        notes = " ".join(aside.get_text(" ") for aside in section.select("aside.notes"))
        assert all(f"{word} :" in notes for word in ("Say", "Ask", "Wait for")) and len(notes.split()) > 30, section.get_text()[:80]
    assert "They get wrong" in page.get_text() and not page.select(".jp-InputArea-editor")
    spoken = sum(len(aside.get_text().split()) for aside in page.select("aside.notes"))
    assert 2 - 0.5 < spoken / 183 < 4 + 0.5   # "two to four minutes": Brysbaert 2019 has 183 words a minute aloud


@pytest.mark.system
@every_talk
def test_a_talk_asks_nothing_of_another_machine_and_finds_its_files(slides, source):
    html = (slides / f"{source.stem}.html").read_text()
    page = BeautifulSoup(html, "html.parser")
    asked = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "img", "iframe", "source"])]
    asked = [address for address in asked if address and not address.startswith("data:")]
    assert {"reveal.js/dist/reveal.js", "reveal.js/plugin/notes/notes.js", "tex-svg.js"} <= set(asked)
    assert not [address for address in asked if urlsplit(address).scheme or urlsplit(address).netloc or not (slides / address).is_file()]
    styles = html + "".join(path.read_text() for path in slides.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//|@import|import\s+\w+\s+from", styles)


@pytest.mark.system
def test_measured_numbers_and_mistakes_reach_the_notes(slides, deck):
    from m2kd_lite.checks import EXERCISES
    page = BeautifulSoup((slides / "05_pruning_and_reconstruction.html").read_text(), "html.parser")
    notes = " ".join(" ".join(aside.get_text(" ").split()) for aside in page.select("aside.notes"))
    whole = deck.ends(deck.runs("glyphs_grid", method="m2kd-no-pruning", class_batch=20))
    assert f"no pruning: {deck.span(whole.average_incremental_accuracy)}" in notes
    assert any(" ".join(mistake.message.split()) in notes for mistake in EXERCISES["prune"].mistakes)


def test_runs_that_are_not_there_or_not_one_experiment_are_told(deck):
    with pytest.raises(ValueError, match="no run with"):
        deck.runs("lessons", method="m2kd", class_batch=7)
    with pytest.raises(ValueError, match="several experiments"):
        deck.runs("glyphs_grid", method="m2kd", class_batch=20)
    with pytest.raises(ValueError, match="one mistake each"):
        deck.mistakes("prune", "the moon is the wrong one")
    assert deck.span([2, 1.04, 3]) == "1.0 to 3.0 %" and deck.span([2], " points") == "2.0 points"

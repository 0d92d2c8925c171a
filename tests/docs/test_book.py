"""The site that `make book` makes: whole, with every link, picture and lesson in its place. tests/browser/test_book.py looks at it."""
import importlib.util
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]


def machinery(name):
    """A module of docs/book, which is no package."""
    spec = importlib.util.spec_from_file_location(f"book_{name}", ROOT / "docs" / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(book):
    """Address within the site to what stands there."""
    found = {path.relative_to(book).as_posix(): BeautifulSoup(path.read_text(), "html.parser") for path in book.rglob("*.html")}
    assert len(found) > 25 and "index.html" in found
    return found


@pytest.mark.system
def test_every_lesson_page_and_room_is_there_and_can_be_reached_from_the_front(pages):
    names = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    names |= {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    rooms = {path.name for path in (ROOT / "m2kd_lite").iterdir() if (path / "__init__.py").exists()}
    names |= {f"api/{room}.html" for room in rooms} | {"api/index.html", "experiments.html"}
    names |= {f"{path.stem}.html" for path in (ROOT / "docs").glob("*_m2kd.ipynb")}
    assert not names - pages.keys()
    reached = {urldefrag(link["href"]).url for link in pages["index.html"].select(".sidebar-tree a")}
    assert not names - reached - {"index.html"}


@pytest.mark.system
def test_every_link_within_the_site_leads_somewhere(book, pages):
    anchors = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in pages.items()}
    wrong, seen = [], 0
    for name, page in pages.items():
        for tag in page.find_all(["a", "img", "link", "script"]):
            address = tag.get("href") or tag.get("src")
            if not address or urlsplit(address).scheme in ("http", "https", "data", "mailto"):
                continue
            path, anchor = urldefrag(address)
            target = (book / name).parent / unquote(urlsplit(path).path) if path else book / name
            inside = target.resolve().relative_to(book.resolve()).as_posix()
            seen += 1
            if not target.is_file() or anchor and inside in anchors and anchor not in anchors[inside] | {""}:
                wrong.append((name, address))
    assert seen > 1000 and not wrong


@pytest.mark.system
def test_every_picture_of_a_lesson_is_there_with_its_alternative_text(pages):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
        texts = [" ".join(output.metadata["image/png"]["alt"].split()) for output in outputs if "image/png" in output.get("data", {})]
        shown = [image.get("alt") for image in pages[f"notebooks/{path.stem}.html"].select("article img")]
        assert [text for text in shown if text in texts] == texts
        assert all(len(text or "") > 20 for text in shown), path.name


@pytest.mark.system
def test_a_panel_becomes_a_note_and_no_widget_is_left(pages):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text, page = path.read_text(), pages[f"notebooks/{path.stem}.html"]
        assert str(page).count("A panel with controls.") == text.count('"application/vnd.jupyter.widget-view+json"'), path.name
        assert "widget-view" not in str(page) and "\x1b[" not in str(page)


@pytest.mark.system
def test_every_public_name_leads_from_the_table_to_its_docstring(pages):
    import m2kd_lite
    links = {link.get_text(): urldefrag(link["href"]) for link in pages["api/index.html"].select("article td a")}
    assert {f"m2kd_lite.{name}" for name in m2kd_lite.__all__} == links.keys()
    assert not [name for name, (page, anchor) in links.items() if pages[f"api/{page}"].find(id=anchor) is None]


# ---- what the pages are made by -------------------------------------------------------------------------------------

def test_sections_of_a_docstring_become_fields():
    as_fields = machinery("docstrings").as_fields
    assert as_fields("A line: *all* of ROOT/CLASS/*.png, `a * b`.") == r"A line: *all* of ROOT/CLASS/\*.png, `a * b`."
    said = as_fields("Head.\n\nParameters\n----------\na, b : (N,) int64,\n    each once.\n\nReturns\n-------\nwhat: it is.\n\n"
                     "Raises\n------\nBadInput : no.")
    assert said.split() == ("Head. :Parameters: **a, b** (N,) int64, each once. :Returns: what: it is. :Raises: **BadInput** no.").split()


def test_names_of_pages_and_functions_become_links_but_not_in_code():
    linked = machinery("__main__").linked
    assert linked("See `docs/choices.md` and `docs/nothing.md`.", "../") == "See [`docs/choices.md`](../choices.md) and `docs/nothing.md`."
    assert linked("[05](../notebooks/05_pruning_and_reconstruction.ipynb)", "") == "[05](notebooks/05_pruning_and_reconstruction.ipynb)"
    assert linked("`losses.total_loss`, `losses.py`, `loss.total`", "") == (
        "{py:obj}`losses.total_loss <m2kd_lite.method.losses.total_loss>`, `losses.py`, `loss.total`")
    for code in ("    cat `docs/choices.md`\n", "```\n`docs/choices.md`\n```\n", "[`docs/choices.md`](choices.md)"):
        assert linked(code, "") == code


def test_an_output_is_changed_only_in_what_a_static_page_cannot_show():
    lesson = machinery("__main__").lesson
    table = {"output_type": "display_data", "metadata": {},
             "data": {"text/html": '<style scoped>x</style><table border="1" class="dataframe">'}}
    panel = {"output_type": "display_data", "metadata": {},
             "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "Explorer(children=…)"}}
    said = [{"output_type": "stream", "name": "stdout", "text": text} for text in ("one\n", "two\n", "three\n")]
    cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [said[0], table, panel, *said[1:]]}
    shown = lesson(json.loads(json.dumps({"cells": [cell]})), "../")["cells"][0]
    assert shown["outputs"][1]["data"]["text/html"] == '<table class="dataframe">'
    assert "../figures/explorer.png" in shown["outputs"][2]["data"]["text/markdown"]
    assert [output["text"] for output in shown["outputs"] if "text" in output] == ["one\n", "two\nthree\n"]         # where they were
    assert len(shown["outputs"]) == 4 and shown["source"] == "1"


def test_links_of_the_docs_lead_somewhere_without_the_site_too():
    links = [(path, link) for path in (ROOT / "docs").glob("*.md") for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    assert len(links) > 30
    assert not [(path.name, link) for path, link in links
                if not link.startswith("https:") and not (path.parent / urldefrag(link).url).exists()]


def test_commands_md_has_every_option_and_command():
    from m2kd_lite.cli import app, data_app
    from m2kd_lite.config import RunConfig, option
    text = (ROOT / "docs" / "commands.md").read_text()
    assert not [name for name in RunConfig.model_fields if f"`{option(name)}`" not in text]
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(names) >= 7 and not [name for name in names if f"m2kd-lite {name}" not in text]
    assert not [command.name for command in data_app.registered_commands if f"m2kd-lite data {command.name}" not in text]


def test_install_md_has_every_make_target_and_extra():
    import tomllib
    text = (ROOT / "docs" / "install.md").read_text()
    targets = re.search(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())[1].split()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [name for name in targets if f"`make {name}`" not in text] and not [name for name in extras if f"| `{name}` |" not in text]

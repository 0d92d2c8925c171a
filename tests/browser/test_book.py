"""The site of `make book` in a browser: nothing is asked of another machine, equations are drawn, and nobody is shut out."""
import functools
import http.server
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.system

PHONE, DESKTOP = {"width": 360, "height": 800}, {"width": 1280, "height": 900}
# Of a page, once its equations are drawn: what is wrong with it.
LOOK = """async () => {
    const wrong = [], text = document.querySelector("article").cloneNode(true);
    await window.MathJax?.startup?.promise;
    text.querySelectorAll("pre, code, .math").forEach(code => code.remove());
    if (/\\$\\$|\\\\\\(|\\\\\\[|\\\\frac/.test(text.textContent)) wrong.push("raw TeX");
    const equations = document.querySelectorAll(".math").length, drawn = document.querySelectorAll("mjx-container").length;
    if (equations != drawn || document.querySelector("mjx-merror, [data-mml-node=merror]"))
        wrong.push(`${drawn} of ${equations} equations are drawn`);
    for (const code of document.querySelectorAll("pre, code"))
        if (!/mono/i.test(getComputedStyle(code).fontFamily)) wrong.push(`not monospaced: ${code.innerText.slice(0, 40)}`);
    if (document.documentElement.scrollWidth > innerWidth) wrong.push(`${document.documentElement.scrollWidth} pixels wide`);
    return {wrong, equations};
}"""


@pytest.fixture(scope="module")
def site(browser_type_launch_args, book):           # the browser first: without one there is nothing to build for
    handler = functools.partial(Quiet, directory=str(book))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said):
        pass


def test_every_page_is_whole_on_a_phone_without_another_machine(watched, site, book):
    opened, equations = watched(), 0
    opened.page.set_viewport_size(PHONE)
    for path in sorted(book.rglob("*.html")):
        if path.name == "search.html":
            continue
        opened.page.goto(f"{site}/{path.relative_to(book).as_posix()}")
        found = opened.page.evaluate(LOOK)
        equations += found["equations"]
        assert not found["wrong"] and not opened.wrong, (path.name, found["wrong"], opened.wrong)
    assert equations > 100


@pytest.mark.parametrize("name", ["index.html", "notebooks/02_sequential_distillation.html", "api/results.html"])
def test_axe_finds_nothing_serious_on_any_screen_light_or_dark(watched, site, name):
    page = watched().page
    page.goto(f"{site}/{name}")
    page.wait_for_load_state("networkidle")
    page.add_script_tag(path=Path(__file__).parent / "axe" / "axe.min.js")
    for size in (PHONE, DESKTOP):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(300)                      # colours fade over
            found = page.evaluate("axe.run({resultTypes: ['violations']})")
            assert len(found["passes"]) > 10
            assert not [(rule["id"], node["target"], node["failureSummary"]) for rule in found["violations"]
                        if rule["impact"] in ("serious", "critical") for node in rule["nodes"]]


def test_axe_finds_nothing_serious_on_any_lesson(watched, site, book):
    page, axe = watched().page, (Path(__file__).parent / "axe" / "axe.min.js").read_text()
    page.set_viewport_size(DESKTOP)
    lessons = sorted((book / "notebooks").glob("[01]*.html"))
    assert len(lessons) == 11
    for lesson in lessons:
        page.goto(f"{site}/notebooks/{lesson.name}")
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")
        assert not [(lesson.name, rule["id"], node["target"], node["failureSummary"]) for rule in found["violations"]
                    if rule["impact"] in ("serious", "critical") for node in rule["nodes"]]


def test_it_is_dark_for_those_who_want_it_dark(watched, site):
    page = watched().page
    page.goto(f"{site}/index.html")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_the_search_finds_the_auxiliary_head(watched, site):
    opened = watched()
    opened.page.goto(f"{site}/index.html")
    opened.page.get_by_role("textbox", name="Search").fill("auxiliary")
    opened.page.keyboard.press("Enter")
    expect(opened.page.locator("#search-results")).to_contain_text("Multi-level distillation: the auxiliary head")
    assert not opened.wrong

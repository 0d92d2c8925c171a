"""The talks in a browser, as a speaker opens them: nothing overflows, equations are drawn, the notes are where the speaker's view looks."""
import pytest

pytestmark = pytest.mark.system

# Of the slide that is shown: what is wrong with it. A figure's own margins are white, so text must not touch the edge either.
LOOK = """() => {
    const slide = Reveal.getCurrentSlide(), wrong = [];
    for (const part of slide.querySelectorAll("*")) {
        if (part.closest("aside, mjx-assistive-mml")) continue;
        const box = part.getBoundingClientRect();
        if (box.width && box.height && (box.bottom > 710 || box.right > 1250)) wrong.push(`${part.tagName} ends at ${box.right}, ${box.bottom}`);
    }
    if (/\\$|\\\\frac/.test(slide.innerText)) wrong.push("raw TeX");
    if (!Reveal.getSlideNotes()) wrong.push("no notes");
    return wrong;
}"""


def test_every_slide_fits_and_has_its_notes(watched, slides):
    opened, seen, equations = watched(), 0, 0
    opened.page.set_viewport_size({"width": 1280, "height": 720})
    for path in sorted(slides.glob("*.html")):
        opened.page.goto(path.as_uri())
        opened.page.wait_for_function("window.Reveal && Reveal.isReady()")
        opened.page.evaluate("MathJax.startup.promise")
        equations += opened.page.locator("mjx-container").count()
        for number in range(opened.page.evaluate("Reveal.getTotalSlides()")):
            opened.page.evaluate(f"Reveal.slide({number})")
            assert not opened.page.evaluate(LOOK), (path.name, number)
            seen += 1
    assert seen >= 9 * 4 and equations > 10
    assert not [said for said in opened.wrong if "file:/" not in said]

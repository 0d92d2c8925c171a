"""The playground as a person uses it: as a page of Voilà, and as a notebook in JupyterLab."""
import re
from pathlib import Path

import pytest
from browser.panels import CONTROLS, chosen, move, open_notebook, open_page, reach, sentence, slider
from playwright.sync_api import expect

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def as_page(watched, voila):
    opened = watched()
    open_page(opened.page, voila)
    return opened


@pytest.fixture(scope="module")
def as_notebook(watched, lab):
    opened = watched()
    open_notebook(opened.page, lab)
    return opened


@pytest.fixture(params=["as_page", "as_notebook"])
def playground(request, watched):           # `watched` is named so that pytest sees that there is a browser behind
    opened = request.getfixturevalue(request.param)
    yield opened.page
    assert not opened.wrong


def test_another_class_batch_is_said_and_drawn(playground):
    stream = reach(playground, "Class order")
    handle, picture = slider(stream, "Class batch"), stream.locator("img")
    move(handle, "Home")
    expect(sentence(stream)).to_contain_text("make 20 incremental steps")
    before = picture.get_attribute("alt")
    move(handle, "ArrowRight")
    expect(sentence(stream)).to_contain_text("make 10 incremental steps")
    expect(picture).not_to_have_attribute("alt", before)
    chosen(stream, "Class order").select_option("natural")
    expect(sentence(stream)).to_contain_text("in order natural make 10 incremental steps")


def test_play_goes_through_all_models_and_each_is_exact(playground):
    stepper = reach(playground, "Layer")
    move(slider(stepper, "Model"), "Home")
    expect(sentence(stepper)).to_contain_text(re.compile(r"^Model 1 of 5 .* 0, exactly\.$"))
    stepper.locator(".widget-play button").first.click()
    for model in (2, 5):
        expect(sentence(stepper)).to_contain_text(re.compile(rf"^Model {model} of 5 .* 0, exactly\.$"))
    playground.wait_for_timeout(2000)          # a player stops one interval after its last value; a move before that would send it on


def test_models_are_stepped_through_by_keyboard(playground):
    stepper = reach(playground, "Layer")
    handle = slider(stepper, "Model")
    for key, model in (("Home", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        move(handle, key)
        expect(sentence(stepper)).to_contain_text(f"Model {model} of 5")
        expect(stepper.locator("img")).to_have_attribute("alt", re.compile(rf"Model {model} of 5"))


def test_another_layer_and_another_image_are_chosen(playground):
    stepper = reach(playground, "Layer")
    chosen(stepper, "Layer").select_option("stage3.0.conv2")
    expect(sentence(stepper)).to_contain_text("% of stage3.0.conv2.")
    chosen(stepper, "Image").select_option(label="class 1: 2")
    expect(sentence(stepper)).to_contain_text("It takes the image, of class 1,")


def test_a_mirrored_image_has_a_row_of_its_own(playground):
    viewer = reach(playground, "Mirrored")
    box = chosen(viewer, "Mirrored")
    expect(sentence(viewer)).to_contain_text("as it is")
    before = sentence(viewer).inner_text()
    box.press("Space")
    expect(sentence(viewer)).to_contain_text("mirrored")
    assert sentence(viewer).inner_text().replace("mirrored", "as it is") != before
    box.press("Space")
    expect(sentence(viewer)).to_have_text(before)


# ---- the explorer ---------------------------------------------------------------------------------------------------

@pytest.fixture
def explorer(playground):
    """On ten digits, LwF-MC alone: nothing takes long."""
    explorer = reach(playground, "Pruning ratio")
    chosen(explorer, "Data set").select_option("glyphs")
    for method in ("FT", "M²KD"):
        chosen(explorer, method).uncheck()
    return explorer


def test_what_was_measured_is_shown_for_another_class_batch_and_pruning_ratio(playground):
    explorer = reach(playground, "Pruning ratio")
    picture = explorer.locator("img").first
    chosen(explorer, "M²KD").check()
    expect(sentence(explorer)).to_contain_text("M²KD, ratio 0.8 ends at")
    expect(explorer.locator("table")).to_contain_text("M²KD, ratio 0.8")
    before = picture.get_attribute("alt")
    move(slider(explorer, "Pruning ratio"), "ArrowRight")
    expect(sentence(explorer)).to_contain_text("M²KD, ratio 0.9 ")
    move(slider(explorer, "Class batch"), "ArrowRight")
    expect(explorer.locator("table")).to_contain_text("LwF-MC")
    expect(picture).not_to_have_attribute("alt", before)
    move(slider(explorer, "Class batch"), "ArrowLeft")
    move(slider(explorer, "Pruning ratio"), "ArrowLeft")
    expect(sentence(explorer)).to_contain_text("M²KD, ratio 0.8 ends at")


def test_photographs_that_were_measured_are_shown_and_cannot_be_trained_here(as_page):
    explorer = reach(as_page.page, "Pruning ratio")
    images = chosen(explorer, "Data set")
    names = [name.replace("\xa0", " ") for name in images.locator("option").all_inner_texts()]        # no name breaks in the middle
    images.select_option(index=next(i for i, name in enumerate(names) if name.startswith("CIFAR-100: profile quick")))
    chosen(explorer, "iCaRL").check()
    chosen(explorer, "Exemplars").select_option("800")
    expect(sentence(explorer)).to_contain_text("iCaRL, 800 exemplars ends at")
    move(slider(explorer, "Class batch"), "ArrowLeft")
    expect(sentence(explorer)).to_contain_text("it cannot be trained here, for its images are not embedded")
    expect(explorer.get_by_role("button", name="Train it now")).to_be_hidden()
    chosen(explorer, "iCaRL").uncheck()
    images.select_option("glyphs")
    assert not as_page.wrong


def test_what_is_not_there_is_trained_cancelled_and_trained_to_its_end(explorer, request):
    """The notebook and the page share a bank: each trains another run."""
    seed = "1" if "as_page" in request.node.name else "2"
    chosen(explorer, "Data set").select_option("digits")
    batch = slider(explorer, "Class batch")
    expect(batch).to_have_attribute("aria-valuetext", "2")      # which is in the bank; one digit a step is not
    move(batch, "ArrowLeft")
    chosen(explorer, "Seed").select_option(seed)
    expect(sentence(explorer)).to_contain_text(f"LwF-MC with seed {seed} is not in the bank")
    train, cancel = (explorer.get_by_role("button", name=name) for name in ("Train it now", "Cancel"))
    train.click()
    expect(explorer.get_by_text(re.compile(r"^step \d+/10 train \d+/10: loss"))).to_be_visible()
    expect(train).to_be_hidden()
    cancel.click()
    expect(sentence(explorer)).to_contain_text("The training ended: stopped; it goes on from here when it is started again.")
    expect(cancel).to_be_hidden()
    train.click()
    chosen(explorer, "M²KD").check()            # the panel stays usable
    expect(sentence(explorer)).to_contain_text("M²KD, ratio 0.8")
    expect(sentence(explorer)).to_contain_text("LwF-MC ends at", timeout=300_000)
    expect(explorer).to_contain_text("Profile quick; ")
    chosen(explorer, "M²KD").uncheck()
    expect(train).to_be_hidden()


# ---- the page -------------------------------------------------------------------------------------------------------

def test_the_page_shows_no_code_and_names_itself(as_page):
    expect(as_page.page).to_have_title("m2kd-lite playground")
    assert "import" not in as_page.page.locator("body").inner_text()
    assert as_page.page.get_by_role("main").get_by_role("heading").count() >= 4
    assert not as_page.wrong


def test_tab_reaches_every_control_in_the_pages_order(as_page):
    page = as_page.page
    controls = page.locator(f":is({CONTROLS}, [role=region]):visible")          # a frame that scrolls is reached as well
    page.evaluate("document.activeElement.blur()")
    page.locator("h1").click()              # the keyboard begins where the reader is
    reached = []
    for _ in range(controls.count()):
        page.keyboard.press("Tab")
        reached.append(controls.evaluate_all("(all) => all.indexOf(document.activeElement)"))
    assert len(reached) > 10 and reached == list(range(len(reached)))
    assert not as_page.wrong


def test_the_stepper_is_used_with_the_keyboard_alone(as_page):
    """From the page's heading: Tab to the model, arrows; on to the layer and the image, chosen by typing; back to Play, and press it."""
    page = as_page.page
    stepper = reach(page, "Layer")

    def tab_to(control, key="Tab"):
        for _ in range(60):
            page.keyboard.press(key)
            if control.evaluate("(it) => it === document.activeElement"):
                return
        raise AssertionError(f"{key} does not reach {control}")

    page.evaluate("document.activeElement.blur()")
    page.locator("h1").click()
    tab_to(slider(stepper, "Model"))
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(sentence(stepper)).to_contain_text("Model 2 of 5")
    tab_to(chosen(stepper, "Layer"))
    page.keyboard.type("stage3.0.conv2")
    expect(sentence(stepper)).to_contain_text("% of stage3.0.conv2")
    tab_to(chosen(stepper, "Image"))
    before = sentence(stepper).inner_text()
    page.keyboard.press("ArrowDown")
    expect(sentence(stepper)).not_to_have_text(before)
    tab_to(stepper.locator(".widget-play button").first, "Shift+Tab")
    page.keyboard.press("Enter")
    expect(sentence(stepper)).to_contain_text("Model 5 of 5")
    assert not as_page.wrong


def serious(page):
    """What axe finds on a page that matters: rule, place, why."""
    page.add_script_tag(path=Path(__file__).parent / "axe" / "axe.min.js")
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [(rule["id"], node["target"], node["failureSummary"]) for rule in found["violations"]
            if rule["impact"] in ("serious", "critical") for node in rule["nodes"]]


def test_the_page_fits_a_phone_and_is_readable_in_the_dark(watched, voila):
    opened = watched()
    opened.page.set_viewport_size({"width": 360, "height": 800})
    open_page(opened.page, f"{voila}&theme=dark")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert not serious(opened.page)
    wide = opened.page.evaluate("""[...document.querySelectorAll("img, p, .widget-slider, .widget-dropdown")]
        .filter(it => it.checkVisibility() && !it.closest('[role=region]') && it.getBoundingClientRect().right > innerWidth + 1)
        .map(it => it.outerHTML.slice(0, 200))""")
    assert not wide and not opened.wrong


def test_every_control_says_what_it_is(as_page):
    """Beside it, for those who see it; and to a screen reader."""
    nameless = as_page.page.locator(f":is({CONTROLS}):visible").evaluate_all("""(all) => all.filter(control => {
        const label = control.closest("label")
            || control.closest(".widget-slider, .widget-dropdown, .jupyter-widgets").querySelector(".widget-label");
        const drawn = control.matches(".widget-play button") && control.querySelector("i") && control.title;
        return !(drawn || control.innerText.trim() && control.matches("button") || label && label.checkVisibility() && label.innerText.trim());
    }).map(control => control.outerHTML)""")
    assert not nameless


def test_axe_finds_nothing_serious(as_page):
    assert not serious(as_page.page)


def test_an_error_and_a_request_elsewhere_are_heard(watched):
    opened = watched()
    opened.page.route("**", lambda route: route.abort())
    opened.page.evaluate("fetch('http://198.51.100.1/').catch(() => console.error('a word of warning'))")
    assert "a request to another machine: http://198.51.100.1/" in opened.wrong
    assert "a word of warning" in opened.wrong


def test_a_sliders_handle_says_its_own_name_and_value(playground):
    explorer = reach(playground, "Pruning ratio")
    chosen(explorer, "Data set").select_option("digits")
    for label, key, value in (("Class batch", "Home", "1"), ("Class batch", "End", "5"), ("Pruning ratio", "End", "0.9")):
        handle = slider(explorer, label)
        move(handle, key)
        expect(handle).to_have_attribute("aria-label", label)
        expect(handle).to_have_attribute("aria-valuetext", value)
    move(slider(explorer, "Pruning ratio"), "ArrowLeft")

"""Panels as a person meets them: by what is written beside a control."""
from playwright.sync_api import Locator, Page, TimeoutError, expect

expect.set_options(timeout=60_000)

# Whatever the keyboard can reach on a panel.
CONTROLS = "select, input, textarea, button, [contenteditable=true], .noUi-handle"


def panel(page: Page, label: str) -> Locator:
    """The panel that has a control with this label, which no panel before it may have."""
    return page.locator(".widget-vbox").filter(has=page.locator("p[role=status]")).filter(has=page.get_by_text(label, exact=True)).first


def sentence(panel: Locator) -> Locator:
    """What the panel says about its figure."""
    return panel.locator("p[role=status]").first


def slider(panel: Locator, label: str) -> Locator:
    """The handle of a slider, which takes the arrow keys, Home and End."""
    return panel.locator(".widget-slider").filter(has_text=label).locator(".noUi-handle")


def move(handle: Locator, key: str) -> None:
    """A key, pressed on a control."""
    handle.focus()
    handle.press(key)


def chosen(panel: Locator, label: str) -> Locator:
    """A drop-down list or a check box."""
    return panel.get_by_label(label, exact=True)


def open_page(page: Page, address: str) -> None:
    """The playground as a page, once its last panel is there."""
    page.goto(address)
    expect(page.locator("p[role=status]").last).to_be_visible()


def open_notebook(page: Page, address: str) -> None:
    """The playground in JupyterLab, with Run All chosen from the menu."""
    page.goto(address)
    page.get_by_text("| Idle").wait_for()           # cells that are run before the kernel is there are forgotten
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()


def reach(page: Page, label: str) -> Locator:
    """The panel with this label, scrolled to: JupyterLab draws only the cells that are in view."""
    found = panel(page, label)
    for way in [1] * 30 + [-1] * 30:
        try:
            found.wait_for(timeout=1000)
            found.scroll_into_view_if_needed()
            return found
        except TimeoutError:
            page.mouse.move(640, 600)
            page.mouse.wheel(0, 400 * way)
    raise AssertionError(f"no panel with a control {label}")

"""How long a panel takes from a control's move to its new figure: `python -m benchmarks.panels`.

First in a browser, where there is a Chromium: from the key that moves a slider until the new picture is decoded. Then in the kernel
alone, where every figure is drawn anew. Each control's values are gone through, several times over. A panel keeps what it has drawn, and
draws the likeliest next ones ahead; so in the browser the stepper is also asked for nothing but figures that it has not shown before.
"""
from __future__ import annotations

import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row, main
from m2kd_lite import data, widgets
from m2kd_lite.config import RunConfig
from m2kd_lite.training import train

GOAL = "<= 150"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Of a slider's handle: moves it by keys, and gives the milliseconds from each key until the panel's next picture is decoded.
WATCH = """async ([handle, keys]) => {
    const panel = handle.closest(".widget-vbox"), taken = [];
    const pause = () => new Promise(done => setTimeout(done, 200));
    handle.focus();
    for (const key of keys) {
        const begun = performance.now();
        const next = new Promise(done => {
            const watch = new MutationObserver(async () => {
                const image = panel.querySelector("img");
                if (!image || image === before) return;
                watch.disconnect();
                await image.decode();
                done(performance.now() - begun);
            });
            const before = panel.querySelector("img");
            watch.observe(panel, { childList: true, subtree: true });
        });
        handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        taken.push(await next);
        await pause();
    }
    return taken;
}"""


def rows() -> Iterator[Row]:
    """One row a control of a panel."""
    if CHROMIUM:
        yield from in_a_browser()
    explorer = widgets.explorer(["finetune", "lwf-mc", "m2kd-no-pruning", "m2kd"])
    yield from moves("explorer", explorer, "pruning_ratio", (0.6, 0.7, 0.75, 0.8, 0.9))
    yield from moves("explorer", explorer, "class_batch", (5, 10, 20, 50))
    yield from moves("stream viewer", widgets.stream_viewer(data.load("glyphs")), "class_batch", (5, 10, 20, 50))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train.run(RunConfig.make(dict(method="m2kd", dataset="digits", class_batch=2, profile="smoke")), run)
        stepper = widgets.reconstruction_stepper(run)
        yield from moves("stepper", stepper, "model", range(1, 6))
        yield from moves("stepper", stepper, "layer", stepper.controls["layer"].options)
        yield from moves("target viewer", widgets.target_viewer(run), "step", range(2, 6))


def in_a_browser() -> Iterator[Row]:
    """The playground's sliders, on its page in Chromium."""
    from playwright.sync_api import sync_playwright
    with playground() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address, timeout=300_000)         # Voilà answers when the cells have run, the small run among them
        page.locator("p[role=status]").nth(3).wait_for(timeout=300_000)
        # A panel is known by a control that no other has.
        for panel, own, label, keys in (("stepper", "Layer", "Model", 4), ("stream viewer", "Class order", "Class batch", 3),
                                        ("target viewer", "Mirrored", "Step", 3)):
            place = page.locator(".widget-vbox").filter(has=page.get_by_text(own, exact=True)).last
            handle = place.locator(".widget-slider").filter(has_text=label).locator(".noUi-handle").element_handle()
            if own == "Layer":
                yield row("stepper: model moved by a key to one that was not shown before", first_time(page, place, handle, keys))
            handle.press("Home")
            page.wait_for_timeout(2000)
            there_and_back = ["ArrowRight"] * keys + ["ArrowLeft"] * keys
            taken = page.evaluate(WATCH, [handle, there_and_back * (1 + 100 // len(there_and_back))])[len(there_and_back):]
            yield row(f"{panel}: {label.lower()} moved by a key, until the picture is on the page", taken)
        browser.close()


def first_time(page, place, handle, keys: int) -> list[float]:
    """Of each layer, all models but the first, for the first time."""
    layers, taken = place.locator("select").first, []
    for layer in layers.locator("option").all_inner_texts():
        handle.press("Home")
        layers.select_option(layer)
        page.wait_for_timeout(2000)
        taken += page.evaluate(WATCH, [handle, ["ArrowRight"] * keys])
    return taken


@contextlib.contextmanager
def playground() -> Iterator[str]:
    """The address of the page, served until the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen([sys.executable, "-m", "m2kd_lite.cli", "playground", "--no-browser", f"--port={port}"], stdout=said, stderr=said)
        try:
            while "token=" not in (text := (said.seek(0), said.read())[1]):
                assert server.poll() is None, text
                time.sleep(0.5)
            yield next(word for word in text.split() if "token=" in word)
        finally:
            server.terminate()
            server.wait()


def moves(name: str, panel, control: str, values) -> Iterator[Row]:
    """A hundred moves, in the kernel. What is computed once is computed before, in a first round."""
    taken = []
    for turn in range(1 + -(-100 // len(values))):
        for value in values:
            panel.forget()
            begun = time.perf_counter()
            panel.controls[control].value = value
            if turn:
                taken.append(1000 * (time.perf_counter() - begun))
    yield row(f"{name}: {control.replace('_', ' ')} moved, until the figure is drawn", taken)


def row(what: str, taken: list[float]) -> Row:
    """The 95th percentile, with the median and the longest."""
    return Row(what, statistics.quantiles(taken, n=20)[-1], "ms", GOAL,
               f"95 % of moves; median {statistics.median(taken):.0f}, longest of {len(taken)}: {max(taken):.0f} ms")


if __name__ == "__main__":
    main(rows)

"""Names for what ipywidgets draws without one: a slider's handle, and a player's buttons, as a screen reader says them.

ipywidgets shows what a slider is called, but does not say it to a screen reader. This puts the shown name and value on the handle,
wherever the panel is drawn: JupyterLab, Voilà, VS Code. It draws nothing itself.
"""
from __future__ import annotations

import anywidget


class Names(anywidget.AnyWidget):
    """Invisible; names the controls of the panel that it lies in, now and whenever they change."""

    _esm = """
    const BUTTONS = { "fa-play": "Play or pause", "fa-stop": "Back to the first", "fa-retweet": "Repeat" };

    function name(panel) {
      for (const slider of panel.querySelectorAll(".widget-slider")) {
        const [handle, label, value] = [".noUi-handle", ".widget-label", ".widget-readout"].map(part => slider.querySelector(part));
        handle?.setAttribute("aria-label", label.textContent);
        handle?.setAttribute("aria-valuetext", value.textContent);      // a slider through a list would say the place in it
      }
      for (const [icon, called] of Object.entries(BUTTONS)) {
        for (const drawn of panel.querySelectorAll(`.widget-play button:not([aria-label]) .${icon}`)) {
          drawn.parentElement.setAttribute("aria-label", called);
          drawn.parentElement.title = called;
        }
      }
    }

    export default {
      render({ el }) {
        el.style.display = "none";
        let watch, waiting;
        const begin = () => {
          const panel = el.closest(".widget-vbox");
          if (!panel) {                     // not on the page yet
            waiting = setTimeout(begin, 100);
            return;
          }
          name(panel);
          watch = new MutationObserver(() => name(panel));
          watch.observe(panel, { childList: true, subtree: true, characterData: true });
        };
        begin();
        return () => { clearTimeout(waiting); watch?.disconnect(); };
      },
    };
    """

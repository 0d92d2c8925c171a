"""The map of the course: the loop that every method shares, and which lesson builds which part of it.

Called by the first lesson. The same rules as in `plots.py`.
"""
from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from m2kd_lite.pictures.plots import COLOURS, new_figure

# (place across, place down, what happens, who builds it, colour or None where nothing has to be chosen)
PARTS = (
    (0, 0, "new classes\narrive", "lesson 01", None),
    (1, 0, "teachers fill the\ntarget matrix", "lessons 02, 03\nEq. 1, 2", 0),
    (2, 0, "train on the new\nimages alone", "lessons 02, 04\nEq. 1–4", 2),
    (2, 1, "prune, fine-tune,\nfreeze", "lesson 05\nsection 3.3", 1),
    (1, 1, "remember models,\nor a few images", "lessons 05, 07\nEq. 7, 8; section 4.5", 4),
    (0, 1, "test on all classes\nseen so far", "lesson 01", None),
)
WIDE, HIGH, ACROSS, DOWN = 0.80, 0.62, 1.0, 1.0


def loop_map(title: str) -> Figure:
    """The loop of one incremental step as six boxes, each with the lesson that builds it."""
    told = "; then ".join(f"{_line(what)} ({_line(who)})" for _, _, what, who, _ in PARTS)
    figure, axis = new_figure(f"A loop of six boxes, run once for each incremental step: {told}; then the next step begins.",
                              width=7.6, height=4.0)
    for x, y, what, who, colour in PARTS:
        face = (COLOURS[colour], 0.22) if colour is not None else "white"
        axis.add_patch(FancyBboxPatch((x * ACROSS - WIDE / 2, y * DOWN - HIGH / 2), WIDE, HIGH, facecolor=face,
                                      edgecolor="black", linewidth=1, boxstyle="round,pad=0,rounding_size=0.05"))
        axis.text(x * ACROSS, y * DOWN - 0.10, what, ha="center", va="center", fontsize=11)
        axis.text(x * ACROSS, y * DOWN + 0.18, who, ha="center", va="center", fontsize=9, style="italic")
    places = [(x, y) for x, y, *_ in PARTS]
    for (x, y), (to_x, to_y) in zip(places, places[1:] + places[:1], strict=True):
        across, down = to_x - x, to_y - y
        axis.add_patch(FancyArrowPatch((x + across * WIDE / 2, y + down * HIGH / 2),
                                       (to_x - across * WIDE / 2, to_y - down * HIGH / 2),
                                       arrowstyle="-|>", mutation_scale=14, color="black", shrinkA=2, shrinkB=2))
    axis.text(0.04, 0.5, "next step", ha="left", va="center", fontsize=9)
    axis.set(xlim=(-0.5, 2.5), ylim=(1.42, -0.42), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _line(text: str) -> str:
    return text.replace("\n", " ")

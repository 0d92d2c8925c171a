"""The stream viewer: class batch and class order, and which classes arrive when."""
from __future__ import annotations

from dataclasses import replace
from functools import partial

import ipywidgets
from matplotlib.figure import Figure

from m2kd_lite.config import CLASS_ORDERS
from m2kd_lite.data.images import ImageSet
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.pictures.stream import class_stream
from m2kd_lite.widgets.panel import Panel

CLASS_BATCHES = (5, 10, 20, 25, 50)
ROWS = 5                # steps that are drawn; a stream of twenty would fill the screen


def render(images: ImageSet, class_batch: int, class_order: str, seed: int = 0) -> Figure:
    """The first steps of a stream: a row of images each.

    Raises
    ------
    BadInput : the class batch is larger than the data set.
    """
    stream = _stream(images, class_batch, class_order, seed)
    return class_stream(replace(stream, columns=stream.columns[:ROWS]), f"{class_batch} new classes a step: {_steps(stream)}")


def describe(images: ImageSet, class_batch: int, class_order: str, seed: int = 0) -> str:
    """What the figure shows."""
    stream = _stream(images, class_batch, class_order, seed)
    first = ", ".join(stream.class_names[:4])
    hidden = f" The first {ROWS} of {len(stream)} steps are drawn." if len(stream) > ROWS else ""
    return (f"{len(stream.class_names)} classes in order {class_order} make {_steps(stream)}. The first to arrive: {first}. "
            f"When the last step is trained, {stream.columns[-1].start} classes are old and none of their images is there.{hidden}")


def stream_viewer(images: ImageSet) -> Panel:
    """A panel with class batch and class order for a data set."""
    fitting = [batch for batch in CLASS_BATCHES if batch <= len(images.class_names)]
    controls = {
        "class_batch": ipywidgets.SelectionSlider(options=fitting, value=fitting[-2:][0], description="Class batch"),
        "class_order": ipywidgets.Dropdown(options=CLASS_ORDERS, value="seed1993", description="Class order"),
    }
    return Panel(controls, partial(render, images), partial(describe, images))


def _stream(images: ImageSet, class_batch: int, class_order: str, seed: int) -> ClassStream:
    return ClassStream.of(images, class_order, class_batch, seed)


def _steps(stream: ClassStream) -> str:
    return f"{len(stream)} incremental steps" if len(stream) > 1 else "one step, and nothing to forget"

"""The one stream through which the library speaks: `on_event` is called with a dictionary, and nothing is printed.

Terminals, notebooks, logs and tests all consume it (`progress.py` turns it into lines and bars). Kinds:

- ``progress``  what, done, total: something countable advances (called often)
- ``notice``    text: one line worth reading
- ``epoch``     step, steps, phase, epoch, epochs, lr, loss, seconds, images_per_second
- ``step``      step, steps, top1, top5, accuracy_by_step, seconds
- ``cell``      state ("finished", "found", "failed", "lost"), label, folder, seconds, done, total, seconds_left: of a sweep
- ``run``       state ("started", "resumed", "finished", "already finished"), folder
"""
from collections.abc import Callable

OnEvent = Callable[[dict], None]


def ignore(event: dict) -> None:
    """Nobody listens."""

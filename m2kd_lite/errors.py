"""The errors that the library raises on purpose, each worded for the person who typed the value.

`cli.py` turns them into one line and an exit status; notebooks show the line alone.
"""

from __future__ import annotations

_JOINERS = "\u200c\u200d"        # format characters that words and emoji of several scripts cannot do without


def printable(text: str, lines: bool = True) -> str:
    """Names of somebody else's making, as they may reach a terminal, a log or a page: what is no visible character is escaped.

    An escape sequence in a file's name would clear the screen, a bidirectional control would turn a line round, and half a
    surrogate pair cannot be written at all.

    Parameters
    ----------
    lines : keep the ends of lines; for texts of ours that have several.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _JOINERS or lines and char == "\n" else char.encode("unicode_escape").decode()
                   for char in text)


class M2KDError(Exception):
    """Any error raised on purpose. `exit_status` is what the command line returns."""

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback: one line is enough for these."""
        return [printable(f"{type(self).__name__}: {self}")]


class BadInput(M2KDError):
    """A value, a file or a folder that cannot be used: says which one, and what is allowed."""

    exit_status = 2


class CannotWrite(M2KDError):
    """A file could not be written: a full disk, a folder without permission. What was there before is untouched."""


class DamagedFile(M2KDError):
    """A file whose content is not what was written: torn, truncated or altered."""


class LayerExhausted(M2KDError):
    """A convolution has no free weight left to give to the next step."""


class Diverged(M2KDError):
    """The loss is no longer a finite number."""


class NotebookFailed(M2KDError):
    """A cell of an executed notebook raised an exception: `name` is its type, `traceback` what the notebook shows."""

    def __init__(self, message: str, name: str, traceback: str):
        super().__init__(message)
        self.name, self.traceback = name, traceback


TIME_LIMIT = 75                 # exit status when the time limit was reached: EX_TEMPFAIL of sysexits.h, "try again later"


class Interrupted(M2KDError):
    """The run was asked to stop, and did so after writing a checkpoint: 130 or 143 by a signal, 75 by its time limit."""

    exit_status = 130

    def __init__(self, message: str, exit_status: int = exit_status):
        super().__init__(message)
        self.exit_status = exit_status

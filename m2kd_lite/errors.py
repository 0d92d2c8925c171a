"""The errors that the library raises on purpose, each worded for the person who typed the value.

`cli.py` turns them into one line and an exit status; notebooks show the line alone.
"""


class M2KDError(Exception):
    """Any error raised on purpose. `exit_status` is what the command line returns."""

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback: one line is enough for these."""
        return [f"{type(self).__name__}: {self}"]


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


class Interrupted(M2KDError):
    """The run was asked to stop, and did so after writing a checkpoint."""

    exit_status = 130

    def __init__(self, message: str, exit_status: int = exit_status):
        super().__init__(message)
        self.exit_status = exit_status

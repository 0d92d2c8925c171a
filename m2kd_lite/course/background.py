"""A run in a process of its own, so that a notebook stays usable: its events come back, and it can be stopped.

The child is `python -m m2kd_lite.course.background OUT`. It reads the configuration from its standard input, and writes events
(`events.py`) to its standard output, a line of JSON each. When its input ends, because the parent asks it to stop or is
gone, it writes a checkpoint and ends. Used by the explorer.
"""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import Interrupted, M2KDError
from m2kd_lite.events import OnEvent


class BackgroundRun:
    """One run, training from now on; a folder with a checkpoint of it is gone on with.

    Parameters
    ----------
    config, out : the run and its folder, as for `train.run`.
    on_event : receives its events, on a thread of this process.
    on_end : called last, on that thread, with None if the run is finished, otherwise with why not, in one line.
    """

    def __init__(self, config: RunConfig, out: Path, on_event: OnEvent, on_end: Callable[[str | None], None]):
        self.stopping = False
        self._child = subprocess.Popen[str]([sys.executable, "-m", "m2kd_lite.course.background", str(Path(out).resolve())], text=True,
                                       encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None and self._child.stdout is not None
        self._to_child, self._from_child = self._child.stdin, self._child.stdout
        self._to_child.write(config.model_dump_json() + "\n")
        self._to_child.flush()
        self._reader = Thread(target=self._read, args=(on_event, on_end), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Ask it to write a checkpoint and end; `on_end` follows."""
        self.stopping = True
        self._to_child.close()

    def wait(self) -> None:
        """Until it has ended and `on_end` has returned."""
        self._reader.join()

    def _read(self, on_event: OnEvent, on_end: Callable[[str | None], None]) -> None:
        outcome = failure = None
        for line in self._from_child:
            said = json.loads(line)
            if "outcome" in said:
                outcome = said
            elif failure is None:
                try:
                    on_event(said)
                except Exception as error:      # whatever the listener does wrong, the run shall not go on unheard
                    failure = error
                    self.stop()
        status = self._child.wait()
        if failure is not None:
            on_end(f"what it said could not be shown ({type(failure).__name__}: {failure})")
            raise failure
        on_end(outcome["outcome"] if outcome else f"the training process ended with status {status}")


def main(out: str) -> None:
    """The child. Its last line is {"outcome": null} for a finished run, otherwise why it is none."""
    from m2kd_lite.training import train
    config = RunConfig.make(json.loads(sys.stdin.readline()))
    stop: list[int] = []

    def until_input_ends() -> None:
        sys.stdin.read()
        stop.append(1)

    channel, sys.stdout = sys.stdout, sys.stderr        # what a library prints is no event

    def say(event: dict) -> None:
        print(json.dumps(event), file=channel, flush=True)

    Thread(target=until_input_ends, daemon=True).start()
    try:
        train.run(config, Path(out), resume=True, on_event=say, should_stop=lambda: stop[0] if stop else None)
        outcome = None
    except Interrupted:
        outcome = "stopped; it goes on from here when it is started again"
    except M2KDError as error:
        outcome = str(error)
    say({"outcome": outcome})


if __name__ == "__main__":
    main(sys.argv[1])

"""A run's folder: what is in it, who may write, and the checkpoint that lets a run go on.

    config.json  metrics.json  events.jsonl  snapshots.safetensors  live.safetensors  checkpoint/ (while unfinished)
    painter.safetensors (of a method that draws)

A file named `stop`, put there by anybody, asks the run to write a checkpoint and end.

The checkpoint is kept in two generations, each whole by itself: state-a and state-b, written by turns, and beside each
the models of finished steps, which are written once a step. A damaged file is named, and the run goes on from the other
ones. Used by `train.py` alone; readers of finished runs use `read_run`.
"""
from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from m2kd_lite.config import RunConfig, option
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.events import OnEvent
from m2kd_lite.files import forms, storage
from m2kd_lite.method.snapshots import Snapshots


STOP = "stop"
LONGEST_LINE = 1000         # of an error that repeats what a file says
# Settings in which a resumed run may differ: its images are known by their content, a run may go on for more steps, and what is still to be
# computed may be in other arithmetic, for all that it was computed in is recorded.
MAY_DIFFER = ("data_root", "steps", "precision")
STOP_SECONDS = 1.0          # between looks for it
_FILES = ("config.json", "metrics.json", "snapshots.safetensors", "live.safetensors", "painter.safetensors")
_CHECKPOINT_FILES = tuple(f"{what}-{generation}.safetensors" for generation in "ab" for what in ("state", "models"))


def check_usable(path: Path, config: RunConfig, resume: bool) -> None:
    """Raise BadInput unless a run may begin, or go on, in this folder; asked before anything slow is done.

    A folder that holds something is used only with `resume`, and only for the run that it holds.
    """
    storage.check_local(path)
    try:
        holds_something = path.exists() and not _is_blank(path)
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be used ({error.strerror or error})") from None
    if holds_something:
        if not resume:
            raise BadInput(f"--out {path}: exists already and is never overwritten; give another folder, or --resume")
        check_same(read_config(path), config, is_finished(path))


def _is_blank(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a run leaves that was stopped before it could write config.json."""
    return path.is_dir() and all(storage.is_leftover(item, ["config.json"]) or item.name in (".lock", STOP) and
                                 item.is_file() and not item.stat().st_size for item in path.iterdir())


class RunFolder:
    """One run's folder, held by one writer at a time.

    Use as a context manager. `config` is what the folder's run is or will be.

    Raises
    ------
    BadInput : the folder holds something and `resume` is false; or another configuration; or another writer.
    CannotWrite : the disk is full, or the folder cannot be written to.
    """

    def __init__(self, path: Path, config: RunConfig, resume: bool):
        self.path = Path(path)
        check_usable(self.path, config, resume)
        self._acquire()
        try:
            check_usable(self.path, config, resume)     # again, now that no other run can change the answer
            self._begin(config)
        except BaseException:
            self._lock.release()
            raise
        self._models_in: dict[str, int] = {}        # generation: how many models its file is known to hold
        self._looked = 0.0

    def _acquire(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(f"--out {self.path}: another run is writing there; wait for it, or give another folder") from None
        except OSError as error:
            raise BadInput(f"--out {self.path}: cannot write there ({error.strerror or error})") from None

    def _begin(self, config: RunConfig) -> None:
        """Put in order what a killed writer left, and say whose folder this is."""
        if is_finished(self.path) and read_config(self.path) == config:
            raise BadInput(f"--out {self.path}: another process has finished this run in the meantime")
        storage.remove_leftovers(self.path, _FILES)
        storage.remove_leftovers(self.path / "checkpoint", _CHECKPOINT_FILES)
        if not (self.path / "config.json").exists():
            self._write_config(config)
        self._drop_torn_line()

    def adopt(self, config: RunConfig) -> None:
        """Write down the settings in which this run differs from what it began with, if any (`MAY_DIFFER`).

        Raises
        ------
        BadInput : it has ended after fewer steps, and there is no checkpoint to go on from.
        """
        if read_config(self.path) == config:
            return
        if is_finished(self.path):
            if not any(self._checkpoint("state", generation).exists() for generation in "ab"):
                raise BadInput(f"--out {self.path}: its checkpoint is missing, so it cannot be resumed; give another folder")
            (self.path / "metrics.json").unlink()           # the checkpoint has all that it says
        self._write_config(config)

    def _write_config(self, config: RunConfig) -> None:
        storage.save_json(self.path / "config.json", {"schema": 1, "config": config.model_dump(mode="json")})

    def _drop_torn_line(self) -> None:
        """Half a line at the end of events.jsonl would spoil the next one too."""
        path = self.path / "events.jsonl"
        try:
            raw = path.read_bytes() if path.exists() else b""
            if raw and not raw.endswith(b"\n"):
                os.truncate(path, raw.rfind(b"\n") + 1)
        except OSError as error:
            raise CannotWrite(f"{path}: cannot write: {error.strerror or error}") from error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc) -> None:
        self._lock.release()

    def stop_asked(self) -> bool:
        """Whether there is a file named `stop`; it is removed, for the request is met. Looked for once a second."""
        now = time.monotonic()
        if now - self._looked < STOP_SECONDS:
            return False
        self._looked = now
        asked = (self.path / STOP).exists()
        if asked:
            with contextlib.suppress(OSError):
                (self.path / STOP).unlink()
        return asked

    def log(self, event: dict) -> None:
        """Append one line to events.jsonl. Epochs that a resumed run repeats appear twice; the later line counts."""
        try:
            with open(self.path / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise CannotWrite(f"{self.path / 'events.jsonl'}: cannot write: {error.strerror or error}") from error

    def save_checkpoint(self, tensors: dict, notes: dict, past: Snapshots) -> None:
        """Overwrite the older of the two generations. `notes["serial"]` must rise by one from call to call.

        A run's first checkpoint is written as both, so that there is always a second to go on from.
        """
        serial = notes["serial"]
        if not self._checkpoint("state", "ab"[(serial - 1) % 2]).exists():
            self._save_generation(tensors, notes | {"serial": serial - 1}, past)
        self._save_generation(tensors, notes, past)

    def _save_generation(self, tensors: dict, notes: dict, past: Snapshots) -> None:
        generation = "ab"[notes["serial"] % 2]
        if self._models_in.get(generation) != len(past):
            past.save(self._checkpoint("models", generation))
            self._models_in[generation] = len(past)
        # Last: until then the older state stands, whose models are among the new ones.
        storage.save_tensors(self._checkpoint("state", generation), tensors, notes | {"models": len(past)})

    def load_checkpoint(self, on_event: OnEvent, device: torch.device) -> tuple[dict, dict, Snapshots] | None:
        """The newest readable state as (tensors, notes, models); None where the run had not got so far.

        Its models are read from either file that has them: what one step stored, later steps never change.

        Raises
        ------
        DamagedFile : there are checkpoints, and none can be read.
        """
        states, damage = self._readable("state", _load_state)
        if not states and not damage:
            return None
        models, more_damage = self._readable("models", lambda path: Snapshots.load(path, device))
        damage += more_damage
        for generation, (tensors, notes) in sorted(states.items(), key=lambda item: -item[1][1]["serial"]):
            enough = {other: past for other, past in models.items() if len(past) >= notes["models"]}
            if enough:
                for text in damage:
                    on_event({"event": "notice", "text": f"{text}; going on from the other generation"})
                past = enough.get(generation, next(iter(enough.values())))
                return tensors, notes, past.first(notes["models"])
            damage.append(f"{self._checkpoint('state', generation)}: the models of its {notes['models']} steps are gone")
        raise DamagedFile("; ".join(damage))

    def _readable(self, what: str, load: Callable[[Path], Any]) -> tuple[dict[str, Any], list[str]]:
        """What can be read of the two generations, and what is wrong with the others."""
        found, damage = {}, []
        for generation in "ab":
            path = self._checkpoint(what, generation)
            if path.exists():
                try:
                    found[generation] = load(path)
                except (DamagedFile, BadInput) as error:
                    damage.append(str(error))
        return found, damage

    def _checkpoint(self, what: str, generation: str) -> Path:
        return self.path / "checkpoint" / f"{what}-{generation}.safetensors"

    def finish(self, metrics: dict, complete: bool) -> None:
        """Write metrics.json, which makes the run finished, then drop the checkpoint of one that has no further steps."""
        storage.save_json(self.path / "metrics.json", metrics)
        if complete:
            drop_checkpoint(self.path)


def _load_state(path: Path) -> tuple[dict, dict]:
    tensors, notes = storage.load_tensors(path)
    wrong = forms.misfit(forms.Checkpoint, notes)
    if wrong:
        raise DamagedFile(f"{path}: not a checkpoint ({wrong})")
    return tensors, notes


def drop_checkpoint(path: Path) -> None:
    """Remove the checkpoint of a finished run. What cannot be removed stays: the run is finished all the same."""
    folder = Path(path) / "checkpoint"
    with contextlib.suppress(OSError):
        for name in _CHECKPOINT_FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left, read and checked."""

    path: Path
    config: RunConfig
    metrics: dict

    @property
    def is_complete(self) -> bool:
        """Whether it has seen all classes: one that was to end after fewer steps may go on."""
        return self.metrics["steps"][-1]["classes_seen"] == len(self.metrics["class_names"])


def read_config(path: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises
    ------
    BadInput : not a run folder.
    DamagedFile : its config.json was altered.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise BadInput(f"{path}: not a run folder (it has no config.json)")
    content = storage.load_json(path / "config.json")
    try:
        return RunConfig.make(content["config"])
    except BadInput as error:           # as of a version that has other settings
        raise BadInput(f"{path / 'config.json'}: {error}"[:LONGEST_LINE]) from None
    except Exception as error:          # whatever a hostile file provokes, it is the file's fault
        raise DamagedFile(f"{path / 'config.json'}: not a run's settings ({type(error).__name__})") from None


def _config_of(values: dict) -> RunConfig | None:
    """The settings that a file names; those that are younger than the file have their defaults. None where they are none."""
    try:
        return RunConfig.make(values)
    except BadInput:
        return None


def is_finished(path: Path) -> bool:
    """Whether the folder holds a finished run: metrics.json is written last."""
    return (Path(path) / "metrics.json").is_file()


def read_run(path: Path) -> FinishedRun:
    """A finished run.

    Raises
    ------
    BadInput : the folder holds no finished run; says how to finish it.
    DamagedFile : config.json or metrics.json was altered, or is of another run.
    """
    config = read_config(path)
    if not is_finished(path):
        raise BadInput(f"{path}: this run is not finished; finish it with: m2kd-lite run --out {shlex.quote(str(path))} --resume")
    file = Path(path) / "metrics.json"
    metrics = storage.load_json(file)
    wrong = forms.misfit(forms.Metrics, metrics)
    if wrong:
        raise DamagedFile(f"{file}: not the results of a run ({wrong})")
    if _config_of(metrics["config"]) != config:
        raise DamagedFile(f"{file}: of a run with other settings than config.json")
    return FinishedRun(Path(path), config, metrics)


def check_same(stored: RunConfig, asked: RunConfig, finished: bool) -> None:
    """Raise BadInput, naming the first difference, unless both are the same run.

    `MAY_DIFFER` names what may differ: `train.run` holds the images' content against the run's, there may be more steps, not fewer, and where
    nothing is left to compute the arithmetic is what it was.
    """
    more = stored.steps is not None and (asked.steps is None or asked.steps > stored.steps)
    refused = {"steps": not more, "precision": finished and not more}
    for name in RunConfig.model_fields:
        was, now = getattr(stored, name), getattr(asked, name)
        if was != now and refused.get(name, name not in MAY_DIFFER):
            raise BadInput(f"{option(name)} {_shown(name, now)}: not allowed with --resume; this folder's run has {_shown(name, was)}; "
                           + ("give more, or all" if name == "steps" and was is not None else "give another folder for other settings"))


def _shown(name: str, value: Any) -> str:
    return "all" if name == "steps" and value is None else str(value)

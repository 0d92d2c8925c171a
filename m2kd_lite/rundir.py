"""A run's folder: what is in it, who may write, and the checkpoint that lets a run go on.

    config.json  metrics.json  events.jsonl  snapshots.safetensors  checkpoint/ (while unfinished)

The checkpoint is kept in two generations, each whole by itself: state-a and state-b, written by turns, and beside each
the models of finished steps, which are written once a step. A torn newer generation is named, and the older one is
read. Used by `train.py` alone; readers of finished runs use `read_run`.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from m2kd_lite import storage
from m2kd_lite.config import RunConfig, option
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.events import OnEvent
from m2kd_lite.snapshots import Snapshots


def check_usable(path: Path, config: RunConfig, resume: bool) -> None:
    """Raise BadInput unless a run may begin, or go on, in this folder; asked before anything slow is done.

    A folder that holds something is used only with `resume`, and only for the run that it holds.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not resume:
            raise BadInput(f"--out {path}: exists already and is never overwritten; give another folder, or --resume")
        check_same(read_config(path), config)


class RunFolder:
    """One run's folder, held by one writer at a time.

    Use as a context manager. `config` is what the folder's run is or will be.

    Raises
    ------
    BadInput : the folder holds something and `resume` is false; or another configuration; or another writer.
    """

    def __init__(self, path: Path, config: RunConfig, resume: bool):
        self.path = Path(path)
        check_usable(self.path, config, resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(f"--out {path}: another run is writing there; wait for it, or give another folder") from None
        except OSError as error:
            raise BadInput(f"--out {path}: cannot write there ({error.strerror or error})") from None
        if not (self.path / "config.json").exists():
            storage.save_json(self.path / "config.json", {"schema": 1, "config": config.model_dump(mode="json")})
        self._models_in: dict[str, int] = {}        # generation: how many models its file is known to hold

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc) -> None:
        self._lock.release()

    def log(self, event: dict) -> None:
        """Append one line to events.jsonl. Epochs that a resumed run repeats appear twice; the later line counts."""
        try:
            with open(self.path / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise CannotWrite(f"{self.path / 'events.jsonl'}: cannot write: {error.strerror or error}") from error

    def save_checkpoint(self, tensors: dict, notes: dict, past: Snapshots) -> None:
        """Overwrite the older of the two generations. `notes["serial"]` must rise from call to call."""
        generation = "ab"[notes["serial"] % 2]
        if self._models_in.get(generation) != len(past):
            past.save(self._checkpoint("models", generation))
            self._models_in[generation] = len(past)
        # Last, since it makes the generation valid: until then, it is the one of the models' former content, or none.
        storage.save_tensors(self._checkpoint("state", generation), tensors, notes | {"models": len(past)})

    def load_checkpoint(self, on_event: OnEvent, device: torch.device) -> tuple[dict, dict, Snapshots] | None:
        """The newest readable generation as (tensors, notes, models); None where the run had not got so far.

        Raises
        ------
        DamagedFile : there are checkpoints, and none can be read.
        """
        found, damage = [], []
        for generation in "ab":
            if self._checkpoint("state", generation).exists():
                try:
                    found.append(self._load_generation(generation, device))
                except (DamagedFile, BadInput) as error:
                    damage.append(str(error))
        if not found:
            if damage:
                raise DamagedFile("; ".join(damage))
            return None
        for text in damage:
            on_event({"event": "notice", "text": f"{text}; going on from the other generation"})
        return max(found, key=lambda state: state[1]["serial"])

    def _load_generation(self, generation: str, device: torch.device) -> tuple[dict, dict, Snapshots]:
        tensors, notes = storage.load_tensors(self._checkpoint("state", generation))
        path = self._checkpoint("models", generation)
        past = Snapshots.load(path, device)
        if len(past) != notes.get("models"):
            raise DamagedFile(f"{path}: holds the models of {len(past)} steps, its state of {notes.get('models')}")
        return tensors, notes, past

    def _checkpoint(self, what: str, generation: str) -> Path:
        return self.path / "checkpoint" / f"{what}-{generation}.safetensors"

    def finish(self, metrics: dict) -> None:
        """Write metrics.json, which makes the run finished, then drop the checkpoint."""
        storage.save_json(self.path / "metrics.json", metrics)
        for generation in "ab":
            for what in ("state", "models"):
                self._checkpoint(what, generation).unlink(missing_ok=True)
        folder = self.path / "checkpoint"
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left, read and checked."""

    path: Path
    config: RunConfig
    metrics: dict


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
    return RunConfig.make(storage.load_json(path / "config.json")["config"])


def is_finished(path: Path) -> bool:
    """Whether the folder holds a finished run: metrics.json is written last."""
    return (Path(path) / "metrics.json").is_file()


def read_run(path: Path) -> FinishedRun:
    """A finished run. Raises BadInput where the folder holds none, saying how to finish it."""
    config = read_config(path)
    if not is_finished(path):
        raise BadInput(f"{path}: this run is not finished; finish it with: m2kd-lite run --out {path} --resume")
    return FinishedRun(Path(path), config, storage.load_json(Path(path) / "metrics.json"))


def check_same(stored: RunConfig, asked: RunConfig) -> None:
    """Raise BadInput, naming the first difference, unless both are the same run."""
    for name in RunConfig.model_fields:
        if getattr(stored, name) != getattr(asked, name):
            raise BadInput(f"{option(name)} {getattr(asked, name)}: not allowed with --resume; this folder's run has "
                           f"{getattr(stored, name)}; give another folder for other settings")

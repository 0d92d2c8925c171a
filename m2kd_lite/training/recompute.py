"""The results of a finished run once more, from its models, its settings and the images: what a stranger's metrics.json is held against.

Every model is rebuilt from `snapshots.safetensors` and tested as `train.py` did; exemplars are chosen and soft targets filled again.
What cannot be seen this way is how the models were trained. Used by the leaderboard.
"""
from __future__ import annotations

import numpy as np

from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import DamagedFile
from m2kd_lite.method import exemplars, painter_file
from m2kd_lite.method.importance import Walk
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.painter import Painter
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS, Method
from m2kd_lite.training import measure
from m2kd_lite.training.device import autocast, prepare_device
from m2kd_lite.training.loop import TrainingData
from m2kd_lite.training.rundir import FinishedRun
from m2kd_lite.training.state import Position, State, identity

# Another processor rounds otherwise, and moves the few images that two classes share almost equally.
TOLERANCE = 0.005
MEASURED = ("steps", "average_incremental_accuracy", "final_accuracy", "forgetting", "bytes")


def again(run: FinishedRun, stream: ClassStream, method: Method | None = None) -> dict:
    """The metrics of a run, with everything that was measured measured again; settings, environment and seconds are as they were.

    Parameters
    ----------
    run : as `read_run` gives it.
    stream : of the run's settings, with the images that it was trained on.
    method : a row that decides otherwise than the run's own, and is trained alike: what it would have said, without training again.

    Raises
    ------
    BadInput : an unknown method, or no snapshots.
    DamagedFile : other images; or models of another run, or of too few steps.
    """
    if stream.sha256 != run.metrics["data_sha256"]:
        raise DamagedFile(f"its images have SHA-256 {run.metrics['data_sha256'][:12]}, those here {stream.sha256[:12]}")
    method = method or METHODS[run.config.method]
    device, _ = prepare_device(run.config.model_copy(update={"device": "cpu", "precision": "fp32"}))
    past = Snapshots.load(run.path / "snapshots.safetensors")
    state = State.new(run.config, method, stream, device)
    count = run.config.steps or len(stream)
    if len(past) != count or len(run.metrics["steps"]) != count:
        raise DamagedFile(f"it has {len(past)} models and results of {len(run.metrics['steps'])} steps; its settings make {count}")
    if (past.backbone, past.channels, past.auxiliary, past.cosine, identity(past.notes)) != (
            state.past.backbone, state.past.channels, state.past.auxiliary, state.past.cosine, identity(state.past.notes)):
        raise DamagedFile("its models are of another run")
    state.environments = run.metrics.get("environments") or [run.metrics["environment"]]
    painter = painter_file.load(run.path / painter_file.FILE) if method.paints else None
    for step in range(1, count + 1):
        with autocast(device, _precision(state.environments, step)):
            _measure(step, state, past, stream, run.config, method, painter)
    measured = measure.of_run(state, stream, run.config, method)
    seconds = [{name: was[name] for name in ("train_seconds", "teacher_seconds", "loss")} for was in run.metrics["steps"]]
    measured["steps"] = [step | was for step, was in zip(measured["steps"], seconds, strict=True)]
    return run.metrics | {name: measured[name] for name in MEASURED}


def _precision(environments: list[dict], step: int) -> str:
    """The arithmetic in which a step was measured: that of the last environment which the run had reached by then."""
    reached = [each for each in environments if (each.get("since") or {"step": 1})["step"] <= step]
    return "bf16" if reached and str(reached[-1].get("precision")).startswith("bf16") else "fp32"


def _measure(step: int, state: State, past: Snapshots, stream: ClassStream, config: RunConfig, method: Method, painter: Painter | None) -> None:
    """One step's results, appended to the state's, which is left as `train.py` leaves it."""
    net = past.reconstruct(step, method.rebuild)
    assert isinstance(net, IncrementalNet)
    state.net, state.past, state.position = net.eval(), past.first(step), Position(step=step, phase="done")
    state.painter = painter.first(step) if painter else None
    state.walk = Walk(state.net, method.penalty, len(stream.class_names)) if method.penalty else None
    new = stream.new_rows(step, all_seen=method.memory == "all images")
    images, labels = stream.train_rows([new, *state.exemplars])
    columns = stream.columns[:step]
    # Only a rescaled decision looks at what was asked for.
    plan = method.teachers(columns) if method.decision == "rescaled" else []
    main, auxiliary = method.fill(plan, lambda teacher: past.reconstruct(teacher, method.rebuild), images, labels, columns[-1].stop)
    if method.keeps_exemplars:
        state.exemplars = exemplars.after_step(state.exemplars, state.net, stream, step, config.exemplars)
    training = TrainingData(images, labels, main, auxiliary[:, :, :columns[-1].start])
    state.results.append(measure.of_step(state, stream, config, method, training))


def differences(said: dict, found: dict) -> list[str]:
    """What metrics.json says that is not what was found: a line each, none where it may be believed.

    Parameters
    ----------
    said, found : the content of metrics.json, and what `again` makes of the run. Predictions may differ in `TOLERANCE` of the test
        images of a step; what is computed from a step's confusion matrix must follow from it; bytes must be the same.
    """
    lines = []
    for was, now in zip(said["steps"], found["steps"], strict=True):
        matrix, true = np.array(was["confusion"]), np.array(now["confusion"])
        if matrix.shape != true.shape or (matrix.sum(1) != true.sum(1)).any():
            lines.append(f"step {was['step']}: its confusion matrix is of other test images")
            continue
        moved = np.abs(matrix - true).sum() / 2
        if moved > TOLERANCE * true.sum():
            lines.append(f"step {was['step']}: {moved:.0f} of {true.sum()} predictions are not the model's")
        if not _near(was["top1"], 100 * np.trace(matrix) / matrix.sum()):
            lines.append(f"step {was['step']}: top-1 {was['top1']:.3f} %, and its confusion matrix says {100 * np.trace(matrix) / matrix.sum():.3f} %")
        asked = {"top5": (was["top5"], now["top5"])}
        if "network" in now:
            asked["the network alone"] = (was.get("network", {}).get("top1", -1.0), now["network"]["top1"])
        lines += [f"step {was['step']}: {what} {one:.3f} %, found {other:.3f} %" for what, (one, other) in asked.items()
                  if not _near(one, other, 100 * TOLERANCE)]
        if not all(map(_near, was["accuracy_by_step"], _by_step(matrix, said, was["step"]))):
            lines.append(f"step {was['step']}: the accuracies by step do not follow from its confusion matrix")
    for name in ("average_incremental_accuracy", "final_accuracy", "forgetting"):
        if not _near(said[name], found[name], 100 * TOLERANCE):
            lines.append(f"{name.replace('_', ' ')} {said[name]:.3f}, found {found[name]:.3f}")
    if said["bytes"] != found["bytes"]:
        lines.append(f"bytes {said['bytes']['total']:,}, found {found['bytes']['total']:,}")
    return lines


def _by_step(matrix: np.ndarray, said: dict, step: int) -> list[float]:
    ends = [result["classes_seen"] for result in said["steps"]][:step]
    right = np.diag(matrix)
    return [100 * right[begin:end].sum() / max(matrix[begin:end].sum(), 1) for begin, end in zip([0, *ends], ends, strict=False)]


def _near(a: float, b: float, within: float = 0.001) -> bool:
    return abs(a - b) <= within


"""What is measured when a step ends, and what is written when a run does.

The decision is the method's: the largest output, the nearest class mean, or rescaled or aligned outputs. The bytes are those that the
method must carry on. Called by `train.py`.
"""
from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from m2kd_lite.config import RunConfig
from m2kd_lite.data.shards import Images
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import aligning, exemplars, metrics, painter_file, replay, scaled, snapshots
from m2kd_lite.method.table import Method
from m2kd_lite.training import draws
from m2kd_lite.training.loop import TrainingData
from m2kd_lite.training.state import State


def of_step(state: State, stream: ClassStream, config: RunConfig, method: Method, training: TrainingData) -> dict[str, Any]:
    """An entry of `steps` in metrics.json: the live model on all classes seen, and the bytes that the method carries on.

    Parameters
    ----------
    state : at the end of a step; its network is put into eval mode.
    training : what the step trained on.
    """
    columns = stream.columns[:state.position.step]
    images, labels = stream.test(state.position.step)
    images, labels = images.to(training.images.device), labels.to(training.images.device)
    best, notes = decide(state, stream, config, method, training, images)
    if method.decision != "argmax":
        network = metrics.step_results(metrics.predict(state.net, images), labels, columns)
        notes["network"] = {name: network[name] for name in ("top1", "top5", "accuracy_by_step")}
    if state.duel:
        critic = metrics.step_results(replay.predict(state.duel.critic, images), labels, columns)
        notes["critic"] = {name: critic[name] for name in ("top1", "top5", "accuracy_by_step")}
    stored_images = len(training.images) if method.memory == "all images" else sum(map(len, state.exemplars))
    return {"step": state.position.step, **metrics.step_results(best, labels, columns), **notes,
            "train_seconds": state.seconds["train"], "teacher_seconds": state.seconds["teacher"], "loss": state.step_loss,
            "bytes": snapshots.ledger(state.past, method.memory, stored_images * images[0].numel(),
                                      state.walk.carried_bytes() if state.walk else 0,
                                      painter_file.carried_bytes(state.painter) if state.painter else None)}


def decide(state: State, stream: ClassStream, config: RunConfig, method: Method, training: TrainingData,
           images: Images) -> tuple[Tensor, dict]:
    """The likeliest classes of test images, best first, as the method chooses them; and what it looked at besides."""
    net = state.net.eval()
    if method.decision == "nearest class mean":
        kept, labels = stream.train_rows(state.exemplars)
        kept, labels = kept.to(images.device), labels.to(images.device)
        means = exemplars.class_means(net, kept[:], labels, len(state.exemplars))
        return exemplars.nearest(exemplars.normalised_features(net, images), means), {}
    if method.decision == "rescaled":
        drawn = draws.of_training(config, state.position.step, len(training.images))
        # Of sigmoids, one matrix holds labels and teachers.
        soft = training.auxiliary_targets if method.softmax else training.auxiliary_targets[:, :, :0]
        asked = scaled.asked_for(training.main_targets, soft, drawn)
        probabilities = None if method.softmax else torch.sigmoid
        rescaled = functools.partial(scaled.scores, asked=asked, probabilities=probabilities)
        return metrics.predict(net, images, scores=rescaled), {"asked_for": asked.tolist()}
    if method.decision == "aligned":
        return metrics.predict(aligning.aligned(net, stream.columns[state.position.step - 1].start), images), {}
    return metrics.predict(net, images), {}


def of_run(state: State, stream: ClassStream, config: RunConfig, method: Method) -> dict[str, Any]:
    """metrics.json, but for the seconds: settings, environments, every step's entry, and what they amount to."""
    steps = [{name: value for name, value in result.items() if name != "bytes"} for result in state.results]
    per_step = [{"step": result["step"], **result["bytes"]} for result in state.results]
    top1 = [result["top1"] for result in steps]
    return {
        "schema": 1,
        "config": config.model_dump(mode="json"),
        "environment": {name: value for name, value in state.environments[-1].items() if name != "since"},
        "environments": state.environments,
        "data_sha256": stream.sha256,
        "class_names": list(stream.class_names),
        "steps": steps,
        "average_incremental_accuracy": metrics.average_incremental_accuracy(top1),
        "final_accuracy": top1[-1],
        "forgetting": metrics.forgetting([result["accuracy_by_step"] for result in steps]),
        "bytes": {"per_step": per_step, "total": per_step[-1]["total"], "added": per_step[-1]["total"] - per_step[0]["total"]},
        **({"exemplars": exemplars.inventory(state.exemplars, stream)} if method.keeps_exemplars else {}),
    }

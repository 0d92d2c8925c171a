"""How good the drawings are, as numbers: is what is drawn taken for what it should be, and can one learn from it?

Two classifiers, as the run's own, learn all classes at once: one from real images, one from drawn ones. Each is then asked about the other
kind. This looks at all training images and is no part of the method. Called by `train.py` when a run ends.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from m2kd_lite.config import RunConfig
from m2kd_lite.data.shards import blocks_of
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import losses, metrics
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.painter import Painter
from m2kd_lite.training import draws, paint
from m2kd_lite.training.device import autocast
from m2kd_lite.training.loop import TrainingData, Update

AFTER_ALL = 0               # the "step" that asks for these drawings: no step of a run has it


def of_run(painter: Painter | None, stream: ClassStream, config: RunConfig, precision: str) -> dict[str, dict[str, list[float]]]:
    """For metrics.json, `drawings`: per cent right, by step; nothing without a painter.

    `recognised` counts drawn images, whose classifier learnt from real ones; `teaches` counts real test images, whose classifier learnt
    from drawn ones.
    """
    if painter is None:
        return {}
    columns, device = stream.columns[:len(painter.parts)], painter.device
    real, labels = stream.train(len(columns), all_seen=True)
    real = torch.cat(list(blocks_of(real))).to(device)
    drawn, drawn_labels = paint.drawn(painter, columns, round(len(labels) / columns[-1].stop), config.seed, AFTER_ALL)
    test, test_labels = stream.test(len(columns))
    out = {}
    with autocast(device, precision):
        for name, taught, asked in (("recognised", (real, labels.to(device)), (drawn, drawn_labels.to(device))),
                                    ("teaches", (drawn, drawn_labels.to(device)), (test.to(device), test_labels.to(device)))):
            best = metrics.predict(classifier(*taught, config, precision), asked[0])
            out[name] = metrics.step_results(best, asked[1], columns)["accuracy_by_step"]
    return {"drawings": out}


def classifier(images: Tensor, labels: Tensor, config: RunConfig, precision: str) -> IncrementalNet:
    """A network as the run's own that has learnt all classes at once, in eval mode, from (N, C, H, W) uint8 images on their device."""
    classes, device = int(labels.max()) + 1, images.device
    net = IncrementalNet(config.backbone, images.shape[1], False, config.seed, config.prior)
    net.set_pixel_statistics(images)
    net.grow_heads(classes, 1)
    net = net.to(device).train()
    targets = F.one_hot(labels, classes).float().expand(2, -1, -1)
    size, batches = draws.batches(config, len(images))
    update = Update(net, TrainingData(images, labels, targets, targets[:, :, :0]),
                    lambda logits, auxiliary_logits, main_targets, *rest: losses.distillation_loss(logits, main_targets, classes),
                    batch_size=size, frozen={}, momenta={name: torch.zeros_like(weight) for name, weight in net.named_parameters()},
                    loss_sum=torch.zeros((), dtype=torch.float64, device=device), momentum=config.momentum, weight_decay=config.weight_decay,
                    precision=precision)
    for epoch in range(config.epochs):
        update.set_rate(config.learning_rate(epoch))
        order, flips = (part.to(device) for part in draws.of_epoch(config, AFTER_ALL, "train", epoch, len(images))[:2])
        for batch in range(batches):
            rows = slice(batch * size, (batch + 1) * size)
            update(order[rows], flips[rows])
    return net.eval()

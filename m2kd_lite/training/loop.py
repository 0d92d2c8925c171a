"""One update of the network, from a draw of images to the moved weights: what every experiment waits for.

Gather, augment, forward, both losses, backward, mask, SGD. The draw, the learning rate and the sum of losses lie in fixed
tensors, and nothing in between asks the device for a value: so a GPU records the update once, as one CUDA graph, and
replays it. The CPU runs the same lines. Used by `train.py` and the benchmarks.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.sgd import sgd

from m2kd_lite.data.shards import Images, Rows
from m2kd_lite.method.importance import Walk
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.training.device import autocast, is_compiled
from m2kd_lite.training.draws import PADDING
from m2kd_lite.training.feed import Feed

# (logits, auxiliary logits or None, main targets, auxiliary targets, labels) of a batch, to a scalar.
Objective = Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor], Tensor]
# (augmented images, labels) of a batch, to its main and auxiliary targets.
Ask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingData:
    """What a step trains on, all of it on the device, but for images that are more than it holds (`feed.py`).

    Attributes
    ----------
    images : (N, C, H, W) uint8.
    labels : (N,) int64, positions in the class order.
    main_targets : (2, N, classes seen) float32; index 0 for the image as it is, 1 for its mirror image.
    auxiliary_targets : (2, N, old classes) float32.
    """

    images: Images
    labels: Tensor
    main_targets: Tensor
    auxiliary_targets: Tensor


class Update:
    """Call it with the rows and flips of a batch, and the network has learnt from them.

    Parameters
    ----------
    net : moved in place; in train mode.
    data, objective : what to learn from, and the loss.
    batch_size : images of every batch.
    frozen : per convolution, bool, the weights that must not move.
    momenta : per parameter, float32 of its shape; moved in place.
    loss_sum : scalar float64; each update adds its loss.
    momentum, weight_decay : of SGD.
    precision : see `device.autocast`.
    walk : what holds important weights, for a method with a penalty.
    ask : gives the targets of a batch where images are cropped, too many to be asked about before.
    """

    def __init__(self, net: IncrementalNet, data: TrainingData, objective: Objective, *, batch_size: int,
                 frozen: Mapping[str, Tensor], momenta: Mapping[str, Tensor], loss_sum: Tensor, momentum: float,
                 weight_decay: float, precision: str, walk: Walk | None = None, ask: Ask | None = None):
        self._net, self._data, self._objective, self._precision, self._walk = net, data, objective, precision, walk
        self._ask = ask
        # Only what is differentiated: teachers and measurements compute in bf16 as always, and a rebuilt model gives the same bits.
        self._logits = functools.partial(net, backbone=torch.compile(net.backbone)) if is_compiled(precision) else net
        self._loss_sum = loss_sum
        self._device = data.images.device
        self._rows = torch.zeros(batch_size, dtype=torch.int64, device=self._device)
        self._flips = torch.zeros_like(self._rows)
        self._feed = Feed(data.images, batch_size) if isinstance(data.images, Rows) else None
        self._shifts = torch.full((batch_size, 2), PADDING, device=self._device)
        self._rate = torch.zeros((), device=self._device)
        convolutions = net.convolutions()
        self._frozen = [(convolutions[name], is_frozen) for name, is_frozen in frozen.items()]
        self._momenta = [(parameter, momenta[name]) for name, parameter in net.named_parameters()]
        # Fused: the one SGD that reads its rate from a tensor without fetching it. As fast as the others on a CPU. The function, since
        # the class loads torch.compile, which takes longer than a training of seconds.
        self._sgd = functools.partial(sgd, fused=True, weight_decay=weight_decay, momentum=momentum, lr=self._rate, dampening=0.0,
                                      nesterov=False, maximize=False)
        self._go = self._record() if self._device.type == "cuda" else self._update

    def __call__(self, rows: Tensor, flips: Tensor, shifts: Tensor | None = None, *, coming: Tensor | None = None) -> None:
        """Learn from a batch.

        Parameters
        ----------
        rows, flips : (batch size,) int64; flip 1 takes the mirror image.
        shifts : (batch size, 2) int64, where each crop begins, down and across; only for an update with `ask`.
        coming : the rows of the next call, if they are known: images on disk are read ahead.
        """
        if self._feed:
            self._feed.fill(rows.cpu(), None if coming is None else coming.cpu())
        self._rows.copy_(rows)
        self._flips.copy_(flips)
        if shifts is not None:
            self._shifts.copy_(shifts)
        self._go()
        if self._walk:
            self._walk.tick()

    def set_rate(self, rate: float) -> None:
        """The learning rate from now on."""
        self._rate.fill_(rate)

    def _update(self) -> None:
        images = self._feed.batch if self._feed else self._data.images[self._rows]
        images = torch.where(self._flips[:, None, None, None].bool(), images.flip(3), images)
        if self._ask:
            images = crops(images, self._shifts)
        main_targets, auxiliary_targets = self._targets(images)
        with autocast(self._device, self._precision):
            logits, auxiliary_logits = self._logits(images)
        loss = self._objective(logits, auxiliary_logits, main_targets, auxiliary_targets, self._data.labels[self._rows])
        self._net.zero_grad(set_to_none=True)
        loss.backward()
        for weight, is_frozen in self._frozen:
            assert weight.grad is not None
            weight.grad.masked_fill_(is_frozen, 0.0)        # before the update, so that no momentum builds up
        if self._walk:
            noted = self._walk.before_update()
        self._step()
        if self._walk:
            self._walk.after_update(noted)
        self._loss_sum += loss.detach()

    @torch.no_grad()
    def _step(self) -> None:
        """Move every weight that the loss has reached."""
        reached = [(parameter, parameter.grad, momentum) for parameter, momentum in self._momenta if parameter.grad is not None]
        parameters, gradients, momenta = map(list, zip(*reached, strict=True))
        self._sgd(parameters, gradients, momenta)

    def _targets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the images of this batch are asked to match: looked up, for the teachers have spoken before; or asked now."""
        if self._ask:
            with torch.no_grad(), autocast(self._device, self._precision):
                return self._ask(images, self._data.labels[self._rows])
        return self._data.main_targets[self._flips, self._rows], self._data.auxiliary_targets[self._flips, self._rows]

    def _record(self) -> Callable[[], None]:
        """Capture `_update` as a CUDA graph; calling the result replays it.

        The warm-up that a capture needs updates the network for real, so everything that an update moves is put back.
        """
        moved = [*self._net.parameters(), *self._net.buffers(), self._loss_sum, *(momentum for _, momentum in self._momenta)]
        if self._walk:
            moved += [*self._walk.traces["squares"].values(), *self._walk.traces["path"].values()]
        before = [tensor.detach().clone() for tensor in moved]
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._update()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        with torch.no_grad():
            for tensor, was in zip(moved, before, strict=True):
                tensor.copy_(was)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update()
        return graph.replay


def crops(images: Tensor, shifts: Tensor) -> Tensor:
    """Each image with a black border of `PADDING` pixels, cut back to its size from where its shift says.

    Parameters
    ----------
    images : (N, C, H, W) uint8.
    shifts : (N, 2) int64, 0 to 2 x `PADDING`: how many rows and columns of the bordered image are left out before the cut.
    """
    height, width = images.shape[2:]
    bordered = F.pad(images, (PADDING,) * 4)
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)                  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)                # (N, W)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    return bordered.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

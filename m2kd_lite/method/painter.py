"""A painter: a generator of images whose weights are reserved step by step, so that it draws old classes as it did (DGM).

Ostapenko et al., "Learning to Remember", CVPR 2019: each step learns a mask over the weights of shared layers, beside batch norms
and a last layer of its own. What a mask takes is reserved, and never moves again; the layers grow, so that as many weights are free as before. So one set of
weights holds a generator a step, as M²KD's holds a classifier a step (`masks.py`). How masks come about is in `reserving.py`, how the painter
learns in `replay.py`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2kd_lite.errors import BadInput
from m2kd_lite.method.reserving import MASKING, Masking, grown
from m2kd_lite.seeds import torch_seed

SIZE = 32                   # pixels across: four layers, from 1x1 over 4, 8 and 16
KERNEL = 4
DRAW, LEAST_NOISE = 128, 28     # numbers that an image is made from, the class's one-hot among them; and how many are chance at least
SPREAD = 0.02               # of new weights, a normal deviation: Radford et al. 2016 (DCGAN), section 3
AT_ONCE = 256               # images drawn together; fixed, for another number may pick another kernel
SETTLING = 1024             # draws from which the batch norms of a step take their statistics, when its mask has become binary


# ---- the generator --------------------------------------------------------------------------------------------------


class StepPart(nn.Module):
    """What one step has for itself: batch norms, the layer that ends in an image, and, when it has ended, its binary masks."""

    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=1.0) for width in widths)     # statistics of one batch: see `settle`
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            norm.num_batches_tracked = None
        self.last = nn.ConvTranspose2d(widths[-1], channels, KERNEL, 2, 1, bias=False)
        self.masks = nn.ParameterList()

    @property
    def widths(self) -> list[int]:
        """Output channels of the shared layers."""
        return [norm.num_features for norm in self.norms if isinstance(norm, nn.BatchNorm2d)]


class Painter(nn.Module):
    """One set of weights, and a generator a step.

    Parameters
    ----------
    classes : of the whole stream.
    channels : colour channels of an image.
    width : channels before the last layer, in step 1; the layers before have 2 and 4 times as many.
    seed : of the initial weights.
    masking : the functions by which weights are taken and held.

    Attributes
    ----------
    weights : of the shared transposed convolutions, (in, out, 4, 4) each.
    embeddings : of the step under way, one number a weight; empty between steps.
    parts : one `StepPart` a step.
    """

    def __init__(self, classes: int, channels: int, width: int, seed: int, masking: Masking = MASKING):
        super().__init__()
        self.classes, self.channels, self.width, self.seed, self.masking = classes, channels, width, seed, masking
        self.draw_size = max(DRAW, classes + LEAST_NOISE)
        self.weights, self.embeddings, self.parts = nn.ParameterList(), nn.ParameterList(), nn.ModuleList()

    @property
    def steps(self) -> list[StepPart]:
        """What each step has for itself, as a list."""
        return [part for part in self.parts if isinstance(part, StepPart)]

    # ---- a step ----

    def begin_step(self) -> None:
        """Grow; draw all weights anew that are not reserved; begin the embeddings at 0."""
        reserved, was, step, device = self.reserved(), list(self.weights), len(self.parts) + 1, self.device
        widths = first = [self.draw_size, 4 * self.width, 2 * self.width, self.width]
        if self.parts:
            last = [self.draw_size, *self.steps[-1].widths]
            widths = [self.draw_size, *grown(last, first, [int(taken.sum()) for taken in reserved], KERNEL)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, step, "paint"))
            fresh = [SPREAD * torch.randn(into, out, KERNEL, KERNEL) for into, out in zip(widths, widths[1:], strict=False)]
            part = StepPart(widths[1:], self.channels)
            nn.init.normal_(part.last.weight, 0.0, SPREAD)
        for new, old, kept in zip(fresh, was, reserved, strict=False):
            part_of = new[:old.shape[0], :old.shape[1]]
            part_of.copy_(torch.where(kept, old.detach(), part_of.to(device)))
        self.weights = nn.ParameterList(weight.to(device) for weight in fresh)
        self.embeddings = nn.ParameterList(torch.zeros_like(weight) for weight in self.weights)
        self.parts.append(part.to(device))

    def reserve(self) -> None:
        """End a step: the masks become binary, and what they take is reserved; the embeddings have served."""
        self.steps[-1].masks = nn.ParameterList(nn.Parameter(embedding.detach() > 0, requires_grad=False) for embedding in self.embeddings)
        self.embeddings = nn.ParameterList()

    def reserved(self, steps: int | None = None) -> list[Tensor]:
        """Per shared layer, bool: which weights the masks of the first `steps` steps take, of all finished ones if None."""
        parts = [part.masks for part in self.steps[:steps] if part.masks]
        return [self.masking.cumulative([masks[layer] for masks in parts], weight) for layer, weight in enumerate(self.weights)]

    def owners(self) -> list[Tensor]:
        """Per shared layer, uint8: the step that first took each weight, 0 where none has; what a mask of M²KD says."""
        out = [torch.zeros_like(weight, dtype=torch.uint8) for weight in self.weights]
        for step, part in enumerate(self.steps, 1):
            for owner, mask in zip(out, part.masks, strict=False):
                there = owner[:mask.shape[0], :mask.shape[1]]
                there[mask & (there == 0)] = step
        return out

    def first(self, steps: int) -> Painter:
        """The painter as it was when so many steps had ended, sharing its tensors: what they reserved has not changed since."""
        new = Painter(self.classes, self.channels, self.width, self.seed, self.masking)
        new.parts = nn.ModuleList(self.steps[:steps])
        shapes = [mask.shape for mask in self.steps[steps - 1].masks]
        new.weights = nn.ParameterList(nn.Parameter(weight[:shape[0], :shape[1]], requires_grad=False)
                                       for weight, shape in zip(self.weights, shapes, strict=True))
        return new

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device if self.parts else torch.device("cpu")

    # ---- images ----

    def forward(self, draws: Tensor, step: int, s: float | None = None) -> Tensor:
        """Images of a step's classes, from -1 to 1.

        Parameters
        ----------
        draws : (N, draw size) float32, see `draws`.
        step : whose generator, from 1.
        s : steepness of the masks of the step under way; None for a step that has ended.

        Returns
        -------
        (N, channels, 32, 32) float32.
        """
        part, maps = self.steps[step - 1], draws[:, :, None, None]
        for layer, norm in enumerate(part.norms):
            stride, padding = (2, 1) if layer else (1, 0)
            maps = F.relu(norm(F.conv_transpose2d(maps, self.weight(layer, step, s), stride=stride, padding=padding)))
        return torch.tanh(part.last(maps))

    def weight(self, layer: int, step: int, s: float | None = None) -> Tensor:
        """The weight of a shared layer as a step sees it: masked, without the channels that later steps added."""
        weight = self.weights[layer]
        if s is not None:
            return weight * self.masking.soft(self.embeddings[layer], s)
        mask = self.steps[step - 1].masks[layer]
        return torch.where(mask, weight[:mask.shape[0], :mask.shape[1]], 0.0)

    def draws(self, labels: Tensor, noise: Tensor) -> Tensor:
        """What images are made from: (N, draw size), the one-hot of each label, then chance.

        Parameters
        ----------
        labels : (N,) int64.
        noise : (N, draw size) float32; its first numbers make room for the one-hot.
        """
        return torch.cat([F.one_hot(labels, self.classes).to(noise.dtype), noise[:, self.classes:]], dim=1)

    @torch.no_grad()
    def settle(self, draws: Tensor) -> None:
        """Give the batch norms of the last step their statistics, with its binary masks.

        While it trained, masks were soft in some batches, and each batch was normalised by itself.
        """
        self.parts[-1].train()
        self(draws, len(self.parts))
        self.parts.eval()

    @torch.no_grad()
    def paint(self, labels: Tensor, noise: Tensor, step: int) -> Tensor:
        """(N, channels, 32, 32) uint8 images of finished step `step`, whose classes the labels are of. See `draws`."""
        self.parts.eval()
        draws = self.draws(labels, noise)
        return torch.cat([_grey(self(draws[start:start + AT_ONCE], step)) for start in range(0, len(draws), AT_ONCE)])

    # ---- what is carried on ----

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> Painter:
        """Become the painter of a state dictionary, with the steps that it has; returns itself.

        Raises
        ------
        KeyError, ValueError : it is no such dictionary.
        """
        steps = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("parts.")), default=-1)
        with torch.device("meta"):          # nothing is drawn, and nothing allocated before its size is checked
            for step in range(steps):
                part = StepPart([len(state[f"parts.{step}.norms.{layer}.weight"]) for layer in range(3)], self.channels)
                shapes = [(into, out, KERNEL, KERNEL) for into, out in zip([self.draw_size, *part.widths], part.widths, strict=False)]
                if step < steps - 1 or "embeddings.0" not in state:
                    part.masks = nn.ParameterList(nn.Parameter(torch.zeros(shape, dtype=torch.bool), requires_grad=False) for shape in shapes)
                self.parts.append(part)
            if steps:
                self.weights = nn.ParameterList(torch.zeros(shape) for shape in shapes)
                self.embeddings = nn.ParameterList([] if part.masks else [torch.zeros(shape) for shape in shapes])
        own = self.state_dict()
        odd = sorted(own.keys() ^ state.keys()) or [name for name, tensor in own.items()
                                                    if (tensor.shape, tensor.dtype) != (state[name].shape, state[name].dtype)]
        if odd:
            raise ValueError(f"the painter does not fit at {odd[0]}")
        if steps:
            self.to_empty(device=state["weights.0"].device)
        for name, tensor in self.state_dict().items():      # `load_state_dict` would ask for counters that these batch norms have not
            tensor.copy_(state[name])
        return self


def check_drawable(shape: Sequence[int]) -> None:
    """Raise BadInput unless images, (N, C, H, W), have the size that is drawn."""
    height, width = shape[2:]
    if (height, width) != (SIZE, SIZE):
        raise BadInput(f"--method dgm: draws images of {SIZE}x{SIZE} pixels, and this data set has {width}x{height}; give another method or data set")


def _grey(pixels: Tensor) -> Tensor:
    """From -1..1 to grey levels, uint8."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

"""The networks: ResNet-32 for 32x32 images and its small siblings, torchvision's ResNet-18, and heads that grow.

Section 4.1: "we use ResNet-32 with input size 32 x 32 for Cifar-100 and ResNet-18 with input size 224 x 224"; "We
extract the output of the second residual block for auxiliary distillation". `IncrementalNet` takes the uint8 images as
they lie in memory and normalises them itself, so that a snapshot needs nothing beside it.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2kd_lite.data.shards import Images, blocks_of
from m2kd_lite.seeds import torch_seed

# Depth 6n + 2: three stages of n blocks with 16, 32 and 64 channels (He et al. 2016, section 4.2).
BLOCKS_PER_STAGE = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet32": 5}
# Channels last is what oneDNN and cuDNN compute in: 1.2 times as fast as channels first on the CPUs measured. Without
# them it has no kernels. Part of the network rather than of the loop, because another layout may pick another kernel,
# and a rebuilt model must give the same bits.
MEMORY_FORMAT = (torch.channels_last if torch.backends.mkldnn.is_available() or torch.cuda.is_available()
                 else torch.contiguous_format)
# Where the scale of a cosine head begins; LUCIR's code begins at 1. docs/choices.md has what was measured.
COSINE_SCALE = 1.0
# Normalised images, to the feature maps of the second and of the last stage.
Backbone = Callable[[Tensor], tuple[Tensor, Tensor]]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: subsample, pad with zero channels).

    The last block of a network ends without a ReLU, as in iCaRL's released network: features may be negative.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, last: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride, self.new_channels, self.last = stride, channels_out - channels_in, last

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        if self.new_channels:
            half = self.new_channels // 2
            # Pooling over one pixel is subsampling; unlike slicing, its gradient keeps the layout in memory.
            x = F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, half, self.new_channels - half))
        out = residual + x
        return out if self.last else F.relu_(out)


class SmallResNet(nn.Module):
    """ResNet-(6n+2) for small images; `forward` gives the feature maps of the second and the third stage."""

    middle_width, final_width = 32, 64

    def __init__(self, blocks: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stage1 = self._stage(16, 16, blocks, stride=1)
        self.stage2 = self._stage(16, 32, blocks, stride=2)
        self.stage3 = self._stage(32, 64, blocks, stride=2, last=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(channels_in: int, channels_out: int, blocks: int, stride: int, last: bool = False) -> nn.Sequential:
        return nn.Sequential(*[
            BasicBlock(channels_in if i == 0 else channels_out, channels_out, stride if i == 0 else 1,
                       last=last and i == blocks - 1)
            for i in range(blocks)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu_(self.bn1(self.conv1(x)))
        middle = self.stage2(self.stage1(x))                        # (N, 32, H/2, W/2)
        return middle, self.stage3(middle)                          # (N, 64, H/4, W/4)


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier; `forward` gives the maps of the second and the last stage."""

    middle_width, final_width = 128, 512

    def __init__(self, channels: int):
        super().__init__()
        from torchvision.models import resnet18
        body = resnet18(weights=None)
        if channels != 3:
            body.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        self.stage1, self.stage2, self.stage3, self.stage4 = body.layer1, body.layer2, body.layer3, body.layer4

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.stage2(self.stage1(self.stem(x)))             # (N, 128, H/8, W/8)
        return middle, self.stage4(self.stage3(middle))             # (N, 512, H/32, W/32)


class IncrementalNet(nn.Module):
    """A backbone with a main head, and an auxiliary head where the method has one; both grow by a class batch.

    Parameters
    ----------
    backbone : a name of `config.BACKBONES`.
    channels : colour channels of the images.
    auxiliary : whether there is an auxiliary head (section 3.2). It serves training only.
    seed : seed of the initial weights.
    prior : the probability that a new output begins with, as a sigmoid: the log-odds are added to its drawn bias.
    cosine : whether the main head looks at directions only: an output is scale times the cosine of the angle between features and row,
        plus the bias (Hou et al., LUCIR, CVPR 2019, section 3.2). The scale is learnt.
    """

    pixel_mean: Tensor      # (1, channels, 1, 1) float32, grey levels
    pixel_std: Tensor
    auxiliary: nn.Linear | None
    scale: nn.Parameter | None

    def __init__(self, backbone: str, channels: int, auxiliary: bool, seed: int, prior: float = 0.5, cosine: bool = False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, step=0, phase="init"))
            small = backbone in BLOCKS_PER_STAGE
            self.backbone: SmallResNet | ResNet18 = SmallResNet(BLOCKS_PER_STAGE[backbone], channels) if small else ResNet18(channels)
        self.main = _blank_head(self.backbone.final_width, 0)
        self.auxiliary = _blank_head(self.backbone.middle_width, 0) if auxiliary else None
        self.scale = nn.Parameter(torch.full((1,), COSINE_SCALE)) if cosine else None
        self.register_buffer("pixel_mean", torch.zeros(1, channels, 1, 1))      # grey levels, 0-255
        self.register_buffer("pixel_std", torch.ones(1, channels, 1, 1))
        self.seed, self.log_odds = seed, math.log(prior / (1 - prior))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None       # unused at a fixed momentum; a snapshot need not hold it
        self.to(memory_format=MEMORY_FORMAT)

    def forward(self, images: Tensor, backbone: Backbone | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits of the main and of the auxiliary head.

        Parameters
        ----------
        images : (N, C, H, W) uint8.
        backbone : what computes the maps in place of `self.backbone`: the same weights, compiled (training/loop.py).

        Returns
        -------
        (N, classes seen) float32, and the same or None for the auxiliary head.
        """
        middle, final = self._maps(images, self.backbone if backbone is None else backbone)
        logits = self._main_logits(_global_average(final)).float()
        if self.auxiliary is None:
            return logits, None
        return logits, self.auxiliary(_global_average(middle)).float()

    def _main_logits(self, features: Tensor) -> Tensor:
        if self.scale is None:
            return self.main(features)
        return self.scale * F.linear(F.normalize(features), F.normalize(self.main.weight)) + self.main.bias

    def features(self, images: Tensor) -> Tensor:
        """What the main head reads: (N, width) float32, from (N, C, H, W) uint8."""
        return _global_average(self._maps(images, self.backbone)[1]).float()

    def _maps(self, images: Tensor, backbone: Backbone) -> tuple[Tensor, Tensor]:
        pixels = images.to(self.pixel_mean.dtype, memory_format=MEMORY_FORMAT)
        return backbone((pixels - self.pixel_mean) / self.pixel_std)

    def set_pixel_statistics(self, images: Images) -> None:
        """Take the normalisation, a mean and a deviation per channel, from the first step's training images."""
        counts = torch.zeros((images.shape[1], 256), dtype=torch.float64)       # whole numbers, so the order of blocks does not count
        for block in blocks_of(images):
            pixels = block.transpose(0, 1).reshape(len(counts), -1)
            counts += torch.stack([torch.bincount(row.int(), minlength=256) for row in pixels]).double().cpu()
        levels = torch.arange(256, dtype=torch.float64)
        mean = (counts @ levels) / counts.sum(1)
        variance = (counts @ levels**2) / counts.sum(1) - mean**2
        self.pixel_mean.copy_(mean.view(1, -1, 1, 1))
        self.pixel_std.copy_(variance.clamp_min(1.0).sqrt().view(1, -1, 1, 1))

    def grow_heads(self, classes: int, step: int) -> None:
        """Widen both heads to `classes` outputs; the old rows stay, the new ones are drawn for this step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, step, phase="heads"))
            self.main = _grown(self.main, classes, self.log_odds)
            if self.auxiliary is not None:
                self.auxiliary = _grown(self.auxiliary, classes, self.log_odds)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> IncrementalNet:
        """Become the network of a state dictionary, heads of its width included; returns itself.

        Raises
        ------
        ValueError : names or shapes do not fit.
        """
        classes = len(state["main.weight"])
        device = self.pixel_mean.device
        self.main = _blank_head(self.main.in_features, classes).to(device)
        if self.auxiliary is not None:
            self.auxiliary = _blank_head(self.auxiliary.in_features, classes).to(device)
        own = self.state_dict()
        odd = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
        if odd:
            raise ValueError(f"the state does not fit this network at {odd[0]}")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        return self

    def convolutions(self) -> dict[str, nn.Parameter]:
        """The weights that masks own, by name: every convolution of the backbone, and nothing else."""
        named = dict(self.named_parameters())
        return {f"{name}.weight": named[f"{name}.weight"] for name, module in self.named_modules() if isinstance(module, nn.Conv2d)}


def at_once(images: Images, most: int) -> int:
    """How many images a network looks at together: `most` up to 64x64; of larger ones so many that they take no more memory."""
    return max(1, min(most, most * 64 * 64 // images.shape[2:].numel()))


@functools.cache
def convolution_sizes(backbone: str, channels: int) -> dict[str, int]:
    """How many weights each convolution of a backbone has, by the names of `IncrementalNet.convolutions`."""
    return {name: weight.numel() for name, weight in IncrementalNet(backbone, channels, False, 0).convolutions().items()}


def _global_average(maps: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C). Pooling over the whole map, because the gradient of `mean` loses the layout in memory
    (a training step took 1.1 times as long), and that of adaptive pooling is not deterministic on a GPU.
    """
    height, width = maps.shape[2:]
    return F.avg_pool2d(maps, (height, width)).flatten(1)


def _blank_head(width: int, classes: int) -> nn.Linear:
    head = nn.Linear(width, 1, device="meta")               # on meta nothing is drawn, and no global state moves
    head.out_features = classes
    head.weight = nn.Parameter(torch.zeros(classes, width))
    head.bias = nn.Parameter(torch.zeros(classes))
    return head


def _grown(head: nn.Linear, classes: int, log_odds: float) -> nn.Linear:
    wider = nn.Linear(head.in_features, classes).to(head.weight.device)     # drawn on the CPU, then moved
    with torch.no_grad():
        wider.bias.add_(log_odds)
        wider.weight[:head.out_features] = head.weight
        wider.bias[:head.out_features] = head.bias
    return wider

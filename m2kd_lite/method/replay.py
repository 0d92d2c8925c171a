"""How a painter learns: a critic tells real images from drawn ones and names their class (DGM, Ostapenko et al. 2019, section 3).

A Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017) whose critic also classifies (Odena et al. 2017). The critic begins
anew each step. `Duel.update` is one update of both; `painter.py` has the generator and its masks. Called by `training/paint.py`.
"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2kd_lite.data.shards import Images
from m2kd_lite.method import painter as painters
from m2kd_lite.method.painter import Painter
from m2kd_lite.method.reserving import compensation, newly_taken
from m2kd_lite.seeds import torch_seed

RATE, BETAS = 5e-4, (0.5, 0.999)    # of Adam: the authors use rates from 2e-4 to 5e-4; a lesson has few updates
GRADIENT_PENALTY = 1.0              # its weight; Gulrajani et al. have 10
SLOPE = 0.2                         # of the leaky ReLU


class Critic(nn.Module):
    """Three 5x5 convolutions of stride 2; then one output that is large for real images, and one a class.

    Parameters
    ----------
    channels : colour channels of the images.
    width : channels of the second convolution; the first has half of them, the third twice as many.
    classes : seen so far.
    seed, step : of the initial weights.
    """

    def __init__(self, channels: int, width: int, classes: int, seed: int, step: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, step, "critic"))
            half = max(1, width // 2)
            self.convolutions = nn.ModuleList(nn.Conv2d(into, out, 5, 2, 2, bias=into == channels)
                                              for into, out in ((channels, half), (half, width), (width, 2 * width)))
            self.norms = nn.ModuleList(nn.BatchNorm2d(out) for out in (width, 2 * width))
            self.real, self.classes = (nn.Linear(2 * width * 16, outputs) for outputs in (1, classes))
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            norm.num_batches_tracked = None

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """How real each image is, (N,), and its class, (N, classes) logits; from (N, C, 32, 32) float32, -1 to 1."""
        maps = F.leaky_relu(self.convolutions[0](pixels), SLOPE)
        for convolution, norm in zip(list(self.convolutions)[1:], self.norms, strict=True):
            maps = F.leaky_relu(norm(convolution(maps)), SLOPE)
        flat = maps.flatten(1)
        return self.real(flat).squeeze(1), self.classes(flat)


def pixels_of(images: Tensor) -> Tensor:
    """uint8 images as the critic sees them and the painter draws them: float32 from -1 to 1."""
    return images.float() / 127.5 - 1


def gradient_penalty(critic: Critic, real: Tensor, drawn: Tensor, where: Tensor) -> Tensor:
    """The square of the gradient's length less 1, on the way from real to drawn images, averaged (Gulrajani et al. 2017, Eq. 3).

    Parameters
    ----------
    where : (N,) float32 from 0 to 1, the place on each way.
    """
    between = torch.lerp(drawn, real, where[:, None, None, None]).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between)[0].sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def critic_loss(critic: Critic, real: Tensor, labels: Tensor, drawn: Tensor, where: Tensor) -> Tensor:
    """Wasserstein distance, to be made large; gradient penalty; cross entropy of the classes of real images."""
    says_real, classes = critic(real)
    says_drawn, _ = critic(drawn)
    return (says_drawn.mean() - says_real.mean() + GRADIENT_PENALTY * gradient_penalty(critic, real, drawn, where)
            + F.cross_entropy(classes, labels))


def painter_loss(critic: Critic, drawn: Tensor, labels: Tensor) -> Tensor:
    """What the painter is after: images that the critic takes for real, and for the class that was asked for."""
    says_real, classes = critic(drawn)
    return F.cross_entropy(classes, labels) - says_real.mean()


class Duel:
    """Painter against critic in one step.

    Parameters
    ----------
    painter : moved in place; its last step is under way.
    critic : moved in place.
    mask_penalty : price of free weights that the mask takes, at the painter's first size.
    """

    def __init__(self, painter: Painter, critic: Critic, mask_penalty: float):
        self.painter, self.critic, self.step = painter, critic, len(painter.parts)
        now, first = (sum(weight.numel() for weight in weights) for weights in (painter.weights, _first_sizes(painter)))
        self.price = mask_penalty * now / first
        self.reserved = painter.reserved(self.step - 1)
        learns = [*painter.weights, *painter.embeddings, *(p for p in painter.steps[-1].parameters() if p.requires_grad)]
        self.adams = {"painter": torch.optim.Adam(learns, RATE, BETAS), "critic": torch.optim.Adam(critic.parameters(), RATE, BETAS)}

    def update(self, real: Tensor, labels: Tensor, old: Tensor, old_labels: Tensor, noise: Tensor, where: Tensor, s: float) -> Tensor:
        """One update of the critic, then one of the painter. Returns the painter's loss, a scalar.

        Parameters
        ----------
        real, labels : new images, (N, C, 32, 32) uint8, and their classes. As many are drawn, of the same classes.
        old, old_labels : drawn images of earlier steps; their classes are all that the critic learns from them.
        noise : (N, draw size) float32.
        where : see `gradient_penalty`.
        s : steepness of the masks.
        """
        painter, critic = self.painter.train(), self.critic.train()
        drawn = painter(painter.draws(labels, noise), self.step, s)
        loss = critic_loss(critic, pixels_of(real), labels, drawn.detach(), where)
        if len(old) > 1:
            every = len(old_labels) / len(labels)       # a class counts alike, be it old or new
            loss = loss + every * F.cross_entropy(critic(pixels_of(old))[1], old_labels)
        self.adams["critic"].zero_grad()
        loss.backward()
        self.adams["critic"].step()

        masks = [painter.masking.soft(embedding, s) for embedding in painter.embeddings]
        loss = painter_loss(critic, drawn, labels) + self.price * newly_taken(masks, self.reserved)
        self.adams["painter"].zero_grad()
        loss.backward()
        self.hold_still(s)
        self.adams["painter"].step()
        return loss.detach()

    @torch.no_grad()
    def hold_still(self, s: float) -> None:
        """No gradient where a weight is reserved, and the compensated one for each embedding."""
        for weight, reserved in zip(self.painter.weights, self.reserved, strict=True):
            assert weight.grad is not None
            weight.grad = self.painter.masking.gradient(weight.grad, reserved)
        for embedding in self.painter.embeddings:
            assert embedding.grad is not None
            embedding.grad *= compensation(embedding, s)

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names to tensors, for a checkpoint: the critic, and what both Adams remember. The painter is kept by itself."""
        flat = {f"critic/{name}": tensor for name, tensor in self.critic.state_dict().items()}
        for who, adam in self.adams.items():
            flat |= {f"{who}-adam/{i}/{name}": tensor for i, known in adam.state_dict()["state"].items() for name, tensor in known.items()}
        return flat

    @torch.no_grad()
    def load(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of `to_tensors`. Raises KeyError or ValueError where they do not fit."""
        known: dict[str, dict[str, dict[str, Tensor]]] = {who: {} for who in self.adams}
        critic = {}
        for name, tensor in flat.items():
            group, rest = name.split("/", 1)
            if group == "critic":
                critic[rest] = tensor
            else:
                number, what = rest.split("/")
                known[group.removesuffix("-adam")].setdefault(number, {})[what] = tensor
        own = self.critic.state_dict()
        odd = sorted(own.keys() ^ critic.keys()) or [name for name in own if own[name].shape != critic[name].shape]
        if odd:
            raise ValueError(f"its critic does not fit at {odd[0]}")
        for name, tensor in own.items():
            tensor.copy_(critic[name])
        for who, adam in self.adams.items():
            parameters = adam.param_groups[0]["params"]
            if len(known[who]) not in (0, len(parameters)) or any(
                    of.keys() != {"step", "exp_avg", "exp_avg_sq"} or of["exp_avg"].shape != parameters[int(i)].shape
                    or of["exp_avg_sq"].shape != parameters[int(i)].shape or of["step"].shape for i, of in known[who].items()):
                raise ValueError(f"what it remembers of the {who} does not fit")
            state = {int(i): {name: tensor.cpu() if name == "step" else tensor for name, tensor in of.items()} for i, of in known[who].items()}
            adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})


def _first_sizes(painter: Painter) -> list[Tensor]:
    """Weights of the shapes that the shared layers began with; they hold nothing."""
    widths = [painter.draw_size, *painter.steps[0].widths]
    return [torch.empty(into, out, painters.KERNEL, painters.KERNEL, device="meta") for into, out in zip(widths, widths[1:], strict=False)]


@torch.no_grad()
def predict(critic: Critic, images: Images, top: int = 5) -> Tensor:
    """The critic's own opinion: the likeliest classes of uint8 images, best first, (N, min(top, classes)) int64."""
    critic.eval()
    rows = [critic(pixels_of(images[start:start + painters.AT_ONCE]))[1] for start in range(0, len(images), painters.AT_ONCE)]
    logits = torch.cat(rows)
    return logits.topk(min(top, logits.shape[1]), dim=1).indices

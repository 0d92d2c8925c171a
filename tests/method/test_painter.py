"""The painter and its critic: each formula against a literal one, and what is reserved against anything that could move it."""
import math

import pytest
import torch

from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.files import storage
from m2kd_lite.method import painter as painters
from m2kd_lite.method import painter_file, replay, reserving
from m2kd_lite.method.painter import Painter

CLASSES, WIDTH = 6, 3


def chance(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(step, seed=0):
    """What one update wants, of the two classes of a step: white squares, low or high."""
    labels = torch.arange(8) % 2 + 2 * (step - 1)
    images = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 5 * int(label):5 * int(label) + 8, 8:24] = 255
    return images, labels, chance(8, painters.DRAW, seed=seed), torch.rand(8, generator=torch.Generator().manual_seed(seed))


def new_duel(painter):
    step = len(painter.parts)
    return replay.Duel(painter, replay.Critic(1, WIDTH, 2 * step, 0, step), 1e-3)


def learn(painter, updates=6):
    """One whole step, a few updates long."""
    painter.begin_step()
    duel, step = new_duel(painter), len(painter.parts)
    images, labels, noise, where = batch(step)
    for i in range(updates):
        duel.update(images, labels, images[:0], labels[:0], noise, where, reserving.annealed(i, updates, 1, 2, reserving.S_MAX))
    painter.reserve()
    painter.settle(painter.draws(labels, noise))
    return duel


def drawing(painter, step):
    _, labels, noise, _ = batch(step, seed=5)
    return painter.paint(labels, noise, step)


@pytest.fixture(scope="module")
def three_steps():
    """A painter of three steps, and what each step's generator drew when it had ended."""
    painter, drawn = Painter(CLASSES, 1, WIDTH, seed=0), []
    for step in (1, 2, 3):
        learn(painter)
        drawn.append(drawing(painter, step))
    return painter, drawn


# ---- masks ----


def test_the_masks_grow_steep_over_the_epochs_and_within_each():
    ends = [reserving.annealed(epoch, 10, 7, 8, reserving.S_MAX) for epoch in range(10)]
    assert ends == sorted(ends) and ends[-1] == reserving.S_MAX and ends[0] == pytest.approx(1 / reserving.S_MAX)
    for epoch in range(1, 10):
        within = [reserving.annealed(epoch, 10, i, 8, reserving.S_MAX) for i in range(8)]
        assert within == sorted(within) and within[0] == pytest.approx(1 / ends[epoch]) and within[-1] == ends[epoch]


@pytest.mark.parametrize("s", [1e-5, 1.0, 300.0])
def test_compensated_the_gradient_of_an_embedding_does_not_depend_on_the_steepness(s):
    embedding = (chance(50) / 100).requires_grad_()
    pull = chance(50, seed=1)
    (pull * reserving.soft_mask(embedding, s)).sum().backward()
    # m (1 - m) = 1 / (2 cosh(s e) + 2), which is what the numerator of the compensation undoes
    expected = pull * reserving.S_MAX / (2 * (torch.cosh(embedding.detach()) + 1))
    torch.testing.assert_close(embedding.grad * reserving.compensation(embedding.detach(), s), expected, rtol=1e-3, atol=1e-3)


def test_the_compensation_is_finite_however_steep_the_mask():
    assert reserving.compensation(torch.tensor([-9.0, 0.0, 9.0]), reserving.S_MAX).isfinite().all()


def test_the_price_is_the_share_of_free_weights_that_the_masks_take():
    masks = [torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.0, 1.0])]
    reserved = [torch.tensor([False, True]), torch.tensor([False, False, True])]
    assert reserving.newly_taken(masks, reserved).item() == pytest.approx((0.5 + 0.25 + 0.0) / 3)


def test_layers_grow_by_what_is_reserved_and_by_no_channel_more():
    first, reserved = [128, 8, 4, 2], [5000, 300, 0]
    widths = [128, *reserving.grown(first, first, reserved, painters.KERNEL)]
    for layer, taken in enumerate(reserved):
        free = widths[layer] * widths[layer + 1] * 16 - taken
        started_with = first[layer] * first[layer + 1] * 16
        assert free >= started_with and (free - widths[layer] * 16 < started_with or widths[layer + 1] == first[layer + 1])
    assert widths[1] > 8 and widths[3] == 2


# ---- the generator ----


def test_what_an_old_step_draws_is_the_same_bits_after_two_more(three_steps):
    painter, drawn = three_steps
    assert [drawing(painter, step).equal(was) for step, was in zip((1, 2, 3), drawn, strict=True)] == [True] * 3
    assert not drawn[0].equal(drawn[1]) and drawn[0].float().std() > 1          # they are drawings, and not one grey
    assert painter.steps[2].widths[0] > painter.steps[0].widths[0]              # although layers have grown meanwhile


def test_reserved_weights_do_not_move_by_one_bit_and_free_ones_do():
    painter = Painter(CLASSES, 1, WIDTH, seed=0)
    learn(painter)
    reserved, before = painter.reserved(), [weight.detach().clone() for weight in painter.weights]
    painter.begin_step()
    began = [weight.detach().clone() for weight in painter.weights]
    duel = new_duel(painter)
    images, labels, noise, where = batch(2)
    for i in range(4):
        duel.update(images, labels, *(part[:6] for part in batch(1)[:2]), noise, where, reserving.annealed(i, 4, 1, 2, reserving.S_MAX))
    for taken, was, start, weight in zip(reserved, before, began, painter.weights, strict=True):
        now = weight.detach()[:was.shape[0], :was.shape[1]]
        assert 0 < taken.float().mean() < 1
        assert now[taken].equal(was[taken])
        assert (now != start[:was.shape[0], :was.shape[1]])[~taken].float().mean() > 0.3


def test_a_weight_is_owned_by_the_step_that_took_it_first(three_steps):
    painter, _ = three_steps
    for layer, (owners, reserved) in enumerate(zip(painter.owners(), painter.reserved(), strict=True)):
        assert owners.dtype == torch.uint8 and owners.unique().tolist() == [0, 1, 2, 3] and (owners > 0).equal(reserved)
        first, second = (part.masks[layer] for part in painter.steps[:2])
        assert (owners[:first.shape[0], :first.shape[1]][first] == 1).all()
        again = first & second[:first.shape[0], :first.shape[1]]
        assert again.any() and (owners[:first.shape[0], :first.shape[1]][again] == 1).all()


def test_a_step_sees_only_its_mask(three_steps):
    painter, _ = three_steps
    mask = painter.steps[0].masks[1]
    seen = painter.weight(1, 1)
    assert seen.shape == mask.shape and not seen[~mask].any() and seen[mask].equal(painter.weights[1][:mask.shape[0], :mask.shape[1]][mask])


def test_an_image_is_made_from_its_class_and_chance(three_steps):
    painter, _ = three_steps
    draws = painter.draws(torch.tensor([4]), chance(1, painters.DRAW))
    assert draws[0, :CLASSES].tolist() == [0, 0, 0, 0, 1, 0] and draws[0, CLASSES:].equal(chance(1, painters.DRAW)[0, CLASSES:])
    assert Painter(1000, 3, 4, 0).draw_size == 1000 + painters.LEAST_NOISE


def test_images_of_another_size_are_refused_in_a_line():
    painters.check_drawable((10, 3, 32, 32))
    with pytest.raises(BadInput, match="--method dgm: draws images of 32x32 pixels, and this data set has 64x48"):
        painters.check_drawable((10, 3, 48, 64))


# ---- the critic ----


class Slope(torch.nn.Module):
    """Says how real an image is by one fixed direction; and of every class that it is class 0, hardly."""

    def __init__(self, length):
        super().__init__()
        self.direction = torch.full((1024,), length / 32)

    def forward(self, pixels):
        return pixels.flatten(1) @ self.direction, torch.tensor([[0.1, 0.0]]).expand(len(pixels), 2)


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_the_gradient_penalty_wants_a_slope_of_one(length):
    real, drawn, where = chance(4, 1, 32, 32), chance(4, 1, 32, 32, seed=1), torch.rand(4)
    assert replay.gradient_penalty(Slope(length), real, drawn, where).item() == pytest.approx((length - 1) ** 2, abs=1e-4)


def test_both_losses_against_literal_ones():
    critic, real, drawn, labels = Slope(1.0), chance(4, 1, 32, 32), chance(4, 1, 32, 32, seed=1), torch.tensor([0, 1, 0, 1])
    wasserstein = sum(drawn.flatten(1).sum(1) / 32) / 4 - sum(real.flatten(1).sum(1) / 32) / 4
    entropy = (2 * math.log(1 + math.exp(-0.1)) + 2 * math.log(1 + math.exp(0.1))) / 4
    assert replay.critic_loss(critic, real, labels, drawn, torch.rand(4)).item() == pytest.approx(wasserstein.item() + entropy, abs=1e-4)
    assert replay.painter_loss(critic, drawn, labels).item() == pytest.approx(entropy - (drawn.flatten(1).sum(1) / 32).mean().item(), abs=1e-4)


def test_a_duel_taken_up_again_goes_on_with_the_same_bits():
    images, labels, noise, where = batch(1)

    def update(duel):
        duel.update(images, labels, images[:0], labels[:0], noise, where, 2.0)

    painter = Painter(CLASSES, 1, WIDTH, seed=0)
    painter.begin_step()
    duel = new_duel(painter)
    update(duel)
    kept = {name: tensor.clone() for name, tensor in painter.state_dict().items()}, {n: t.clone() for n, t in duel.to_tensors().items()}
    update(duel)
    again = Painter(CLASSES, 1, WIDTH, seed=0).load(kept[0])
    other = new_duel(again)
    other.load(kept[1])
    update(other)
    assert all(tensor.equal(again.state_dict()[name]) for name, tensor in painter.state_dict().items())
    assert all(tensor.equal(other.to_tensors()[name]) for name, tensor in duel.to_tensors().items())


# ---- a file ----


def test_every_step_is_drawn_from_its_file_bit_for_bit(three_steps, tmp_path):
    painter, drawn = three_steps
    painter_file.save(painter, tmp_path / "painter.safetensors")
    read = painter_file.load(tmp_path / "painter.safetensors")
    assert all(drawing(read, step).equal(was) for step, was in zip((1, 2, 3), drawn, strict=True))
    free = ~painter.reserved()[0]
    assert not read.weights[0][free].any() and painter.weights[0][free].any()           # which nobody needs
    assert sum(painter_file.carried_bytes(painter).values()) == sum(tensor.numel() for tensor in painter_file.to_tensors(painter)[0].values())


def test_masks_take_their_entropy_and_no_more():
    painter, draws = Painter(CLASSES, 1, 8, seed=0), torch.Generator().manual_seed(1)
    for share in (0.1, 0.2):
        painter.begin_step()
        for embedding in painter.embeddings:
            embedding.data = (torch.rand(embedding.shape, generator=draws) < share).float() - 0.5
        painter.reserve()
    masks = [sum(mask.numel() for mask in part.masks) for part in painter.steps]
    entropy = sum(-count * (share * math.log2(share) + (1 - share) * math.log2(1 - share)) / 8 for count, share in zip(masks, (0.1, 0.2), strict=True))
    assert entropy <= painter_file.carried_bytes(painter)["mask"] < 1.1 * entropy


@pytest.mark.parametrize("change", [{"classes": 200}, {"widths": [[1, 1, 1]] * 3}, {"widths": [[9999, 1, 1]]}, {"seed": -1}, {"widths": "none"}])
def test_a_file_that_says_something_else_is_named(three_steps, tmp_path, change):
    tensors, notes = painter_file.to_tensors(three_steps[0])
    storage.save_tensors(tmp_path / "other.safetensors", tensors, notes | change)
    with pytest.raises(DamagedFile, match=r"other.safetensors: not a painter's file"):
        painter_file.load(tmp_path / "other.safetensors")


def test_a_state_of_another_painter_is_refused(three_steps):
    state = three_steps[0].state_dict()
    with pytest.raises(ValueError, match="the painter does not fit at weights.0"):
        Painter(200, 1, WIDTH, seed=0).load(state)
    with pytest.raises(ValueError, match="the painter does not fit at"):
        Painter(CLASSES, 1, WIDTH, seed=0).load({name: tensor for name, tensor in state.items() if name != "parts.1.last.weight"})

"""Networks: parameter counts of the paper's families, shortcuts, and heads that grow."""
import pytest
import torch
from torch import nn

from m2kd_lite.method.nets import BasicBlock, IncrementalNet


def test_torch_and_torchvision_are_a_matching_pair():
    import torchvision
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]     # a compiled operator answers


@pytest.mark.parametrize("backbone, weights, layers", [
    ("resnet8", 74_160, 7), ("resnet14", 170_928, 13), ("resnet20", 267_696, 19), ("resnet32", 461_232, 31),
    ("resnet18", 11_166_912, 20)])
def test_convolution_weights(backbone, weights, layers):
    convolutions = IncrementalNet(backbone, 3, False, seed=0).convolutions()
    assert sum(weight.numel() for weight in convolutions.values()) == weights
    assert len(convolutions) == layers and all(weight.dim() == 4 for weight in convolutions.values())


def test_resnet_32_batch_norm_channels():
    net = IncrementalNet("resnet32", 3, False, seed=0)
    assert sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d)) == 1136


@pytest.mark.parametrize("backbone, size, middle", [("resnet32", 32, (32, 16, 16)), ("resnet18", 64, (128, 8, 8)),
                                                    ("resnet18", 224, (128, 28, 28))])
def test_shapes_and_where_the_auxiliary_head_branches(backbone, size, middle):
    net = IncrementalNet(backbone, 3, True, seed=0).eval()
    net.grow_heads(7, 1)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        logits, auxiliary = net(images)
        maps, _ = net.backbone(images.float())
    assert logits.shape == auxiliary.shape == (2, 7) and logits.dtype == torch.float32
    assert maps.shape[1:] == middle


def test_an_option_a_shortcut_subsamples_and_pads_with_zeros():
    block = BasicBlock(4, 8, stride=2, last=True).eval()
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    x = torch.randn(1, 4, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert (out[:, :2] == 0).all() and (out[:, 6:] == 0).all()
    assert sum(p.numel() for p in block.parameters()) == 8 * 4 * 9 + 8 * 8 * 9 + 4 * 8        # no weights in the shortcut


def test_features_may_be_negative_after_the_last_block_only():
    net = IncrementalNet("resnet14", 3, True, seed=0).eval()
    with torch.no_grad():
        middle, final = net.backbone(torch.randn(4, 3, 32, 32))
    assert middle.min() >= 0 > final.min()


def test_growing_keeps_the_old_rows_and_draws_the_new_ones_by_seed_and_step():
    nets = [IncrementalNet("resnet8", 3, True, seed=1) for _ in range(2)]
    for net in nets:
        torch.rand(3)                                               # the global generator plays no part
        net.grow_heads(4, step=1)
    old = [nets[0].main.weight.detach().clone(), nets[0].auxiliary.bias.detach().clone()]
    for net in nets:
        net.grow_heads(6, step=2)
    assert torch.equal(nets[0].main.weight[:4], old[0]) and torch.equal(nets[0].auxiliary.bias[:4], old[1])
    assert nets[0].main.out_features == 6 and nets[0].auxiliary.out_features == 6
    assert all(torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True))
    other = IncrementalNet("resnet8", 3, True, seed=2)
    assert not torch.equal(other.backbone.conv1.weight, nets[0].backbone.conv1.weight)


def test_building_a_network_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    net = IncrementalNet("resnet18", 3, True, seed=1)
    net.grow_heads(3, 1)
    net.load_state({name: tensor.clone() for name, tensor in net.state_dict().items()})
    assert torch.equal(torch.rand(2), expected)


def test_pixel_statistics_normalise_the_first_steps_images(images):
    net = IncrementalNet("resnet8", 3, False, seed=0)
    pixels, _ = images
    net.set_pixel_statistics(pixels)
    normal = (pixels.float() - net.pixel_mean) / net.pixel_std
    assert normal.mean((0, 2, 3)).abs().max() < 1e-4 and (normal.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_a_state_that_does_not_fit_is_named():
    net = IncrementalNet("resnet8", 3, False, seed=0)
    net.grow_heads(2, 1)
    state = dict(net.state_dict())
    state["backbone.conv1.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="backbone.conv1.weight"):
        net.load_state(state)

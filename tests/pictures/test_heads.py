"""Figures of the lesson on the auxiliary head: the diagram says what the network does, the curves have their minimum where they say."""
import numpy as np
import pytest
import torch

from m2kd_lite import pictures
from m2kd_lite.method import losses
from m2kd_lite.method.nets import IncrementalNet


def images(size=32, channels=3):
    return torch.zeros(2, channels, size, size, dtype=torch.uint8)


def network(backbone="resnet8", auxiliary=True, channels=3):
    net = IncrementalNet(backbone, channels, auxiliary, seed=0)
    net.grow_heads(10, 1)
    return net


def written(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_shapes_are_those_of_the_maps_that_the_heads_are_given():
    net = network()
    shapes = pictures.heads.map_shapes(net, images())
    middle, final = net.backbone(torch.zeros(2, 3, 32, 32))
    assert list(shapes) == ["stem", "stage1", "stage2", "stage3"]
    assert shapes["stage2"] == tuple(middle.shape[1:]) and shapes["stage3"] == tuple(final.shape[1:])


def test_measuring_shapes_leaves_the_network_as_it_was():
    net = network().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    pictures.heads.map_shapes(net, images())
    assert net.training and all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(("backbone", "size", "middle", "parts"), [("resnet8", 32, 32, 3), ("resnet18", 64, 128, 4)])
def test_the_diagram_shows_every_part_with_its_shape_and_the_branch_under_stage_2(backbone, size, middle, parts):
    figure = pictures.heads.two_heads(network(backbone), images(size), "Two heads")
    places = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert {f"stage {i}" for i in range(1, parts + 1)} < places.keys()
    assert places["auxiliary\nhead"][0] == places["stage 2"][0] + 1 and places["main head"][0] == parts + 3
    assert str(middle) in written(figure) and written(figure).count("10 logits") == 2
    assert figure.axes[0].patches[-1].get_linestyle() == "--"          # the auxiliary head, told apart without colour
    assert f"a branch leads to a mean of {middle} numbers" in figure.alt_text


def test_the_marked_minimum_is_that_of_the_library_s_loss():
    alphas = (0, 0.5, 2)
    figure = pictures.heads.pulled_down(0.6, alphas, "Pulled down")
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    for alpha, curve, mark in zip(alphas, curves, marks, strict=True):
        scores, values = curve.get_data()
        # One image, one old column, and a new column whose logit of 40 costs nothing.
        logits = torch.tensor([[float(np.log(scores[100] / (1 - scores[100]))), 40.0]])
        loss = losses.auxiliary_loss(logits, torch.tensor([[0.6]]), torch.tensor([1]), alpha, total_classes=1)
        assert values[100] == pytest.approx(loss.item(), rel=1e-5)
        assert scores[values.argmin()] == pytest.approx(mark.get_xdata()[0], abs=0.003)
        assert mark.get_xdata()[0] == pytest.approx(0.6 / (1 + alpha))
        assert f"at {0.6 / (1 + alpha):.2f} for alpha {alpha:g}" in figure.alt_text

"""The walk of RWalk and EWC against loops over single parameters, written from the paper; and runs that are held."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_config
from torch import nn

from m2kd_lite.method import importance
from m2kd_lite.method.importance import Penalty, Walk
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import train

OUTPUTS, RATE, STRENGTH = 10, 0.1, 0.7
UPDATES = (130, 75)         # of two steps: two intervals of 50 and a short one, then one and a short one


SPREAD = ((1.0, 0.2, 0.6), (0.2, 1.0, 0.9))     # of the inputs, in either step


class Line(nn.Module):
    """Four parameters and a loss: (w x + b - y)^2 / outputs, with a different x and y at every update."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor([0.5, -1.0, 0.3])), nn.Parameter(torch.tensor([0.2]))

    def loss(self, x, y):
        return (self.w @ x + self.b - y).square().sum() / OUTPUTS


def drawn():
    chance = np.random.default_rng(0)
    return [(chance.normal(size=3) * SPREAD[step], chance.normal() + step) for step in range(2) for _ in range(UPDATES[step])]


def ours(penalty):
    """The parameters after the walk, and its importances."""
    net, data = Line(), iter(drawn())
    walk, importances = Walk(net, penalty, OUTPUTS), []
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for step, updates in enumerate(UPDATES):
        walk.fit()
        for _ in range(updates):
            x, y = next(data)
            optimizer.zero_grad()
            net.loss(torch.tensor(x, dtype=torch.float32), y).backward()
            noted = walk.before_update()
            optimizer.step()
            walk.after_update(noted)
            walk.tick()
        walk.end_step(first=step == 0)
        importances.append(torch.cat(list(walk.traces["importance"].values())).tolist())
    return torch.cat([net.w, net.b]).tolist(), importances


def literal(path, released_averaging=False, never_reset=False):
    """Chaudhry et al. 2018, Eq. 6 to 8, in float64. The two mutants are what the released code does instead."""
    theta = [0.5, -1.0, 0.3, 0.2]
    held, weights, score, fisher = list(theta), [0.0] * 4, [0.0] * 4, None
    data, importances = iter(drawn()), []
    for step, updates in enumerate(UPDATES):
        gained, squares, omega, origin, since = [0.0] * 4, [0.0] * 4, [0.0] * 4, list(theta), 0
        for update in range(updates):
            x, y = next(data)
            wrong = sum(theta[i] * x[i] for i in range(3)) + theta[3] - y
            gradient = [2 * wrong * x[0], 2 * wrong * x[1], 2 * wrong * x[2], 2 * wrong]    # of the loss times all outputs
            for i in range(4):
                move = -RATE * (gradient[i] + 2 * STRENGTH * weights[i] * (theta[i] - held[i])) / OUTPUTS
                squares[i] += gradient[i] ** 2
                omega[i] += -gradient[i] * move
                theta[i] += move
            since += 1
            if since == 50 or update == updates - 1:
                newest = [square / since for square in squares]
                fisher = list(newest) if fisher is None else fisher
                for i in range(4):
                    gained[i] += max(omega[i], 0) / (0.5 * fisher[i] * (theta[i] - origin[i]) ** 2 + 1e-3)
                    fisher[i] = 0.9 * newest[i] + 0.1 * fisher[i]
                squares = squares if never_reset else [0.0] * 4
                omega, origin, since = [0.0] * 4, list(theta), 0
        if step == 0:
            score = gained
        else:
            average = [(old + new) / 2 for old, new in zip(score, gained, strict=True)]
            score = [old + new for old, new in zip(score, average, strict=True)] if released_averaging else average

        def unit(values):
            return [(value - min(values)) / (max(values) - min(values)) for value in values]

        weights = [f + (s if path else 0) for f, s in zip(unit(fisher), unit(score), strict=True)]
        held = list(theta)
        importances.append(weights)
    return theta, importances


@pytest.mark.parametrize("path", [True, False])
def test_walk_is_the_papers_in_loops(path):
    (where, weights), (theirs, expected) = ours(Penalty(path, STRENGTH)), literal(path)
    assert where == pytest.approx(theirs, rel=1e-4)
    for got, want in zip(weights, expected, strict=True):
        assert got == pytest.approx(want, abs=1e-4)
        assert max(got) <= 1 + path and min(got) >= 0


@pytest.mark.parametrize("mutant", [dict(released_averaging=True), dict(never_reset=True)])
def test_what_the_released_code_does_instead_gives_another_importance(mutant):
    assert ours(Penalty(True, STRENGTH))[1][1] != pytest.approx(literal(True, **mutant)[1][1], abs=1e-2)


def test_path_and_fisher_are_not_the_same_importance():
    assert ours(Penalty(True, STRENGTH))[1][0] != pytest.approx(ours(Penalty(False, STRENGTH))[1][0], abs=1e-2)


def test_new_outputs_have_no_importance_and_old_ones_keep_theirs():
    net = nn.Sequential(nn.Linear(3, 2))
    walk = Walk(net, Penalty(True), OUTPUTS)
    walk.traces["importance"]["0.weight"].fill_(0.5)
    old = net[0].weight.detach().clone()
    wider = nn.Linear(3, 4)
    with torch.no_grad():
        wider.weight[:2] = old
    net[0] = wider
    walk.fit()
    assert walk.traces["importance"]["0.weight"].tolist() == [[0.5] * 3] * 2 + [[0.0] * 3] * 2
    assert torch.equal(walk.traces["held"]["0.weight"], wider.weight)


def test_all_parameters_share_one_scale():
    scaled = importance.to_unit_range({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[5.0]]), "c": torch.empty(0)})
    assert {name: tensor.flatten().tolist() for name, tensor in scaled.items()} == {"a": [0.0, 0.5], "b": [1.0], "c": []}
    assert importance.to_unit_range({"a": torch.ones(3)})["a"].tolist() == [0.0] * 3       # nothing matters more than the rest


def moved(folder):
    """How far the convolutions went after step 1."""
    past = Snapshots.load(folder / "snapshots.safetensors")
    first, last = past.reconstruct(1).convolutions(), past.reconstruct(3).convolutions()
    return sum((last[name] - first[name]).square().sum().item() for name in first)


@pytest.mark.system
def test_without_strength_it_is_finetuning_and_with_it_something_else(tmp_path, finished):
    """How far all weights go is no measure here: three steps of two epochs are ruled by chance, at any strength."""
    far = {}
    for strength in (0.0, 3.0):
        row = replace(METHODS["rwalk"], penalty=Penalty(path=True, strength=strength))
        train.run(small_config("rwalk"), tmp_path / str(strength), method=row)
        far[strength] = moved(tmp_path / str(strength))
    plain = moved(finished("finetune")[0])
    assert far[0.0] == pytest.approx(plain, rel=1e-5) and far[3.0] != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(("method", "each"), [("rwalk", 8), ("ewc", 4)])
def test_what_is_carried_is_counted(method, each, finished):
    folder, written = finished(method)
    parameters = sum(weight.numel() for weight in Snapshots.load(folder / "snapshots.safetensors").reconstruct(3).parameters())
    more = written["bytes"]["per_step"][-1]["weights"] - finished("finetune")[1]["bytes"]["per_step"][-1]["weights"]
    assert more == each * parameters

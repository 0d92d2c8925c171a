"""Weight aligning: rows of equal average length, the network untouched, and a decision of the table like the others."""
from dataclasses import replace

import pytest
import torch
from conftest import small_config
from torch.nn import functional as F

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import scaled
from m2kd_lite.method.aligning import aligned
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import recompute, train
from m2kd_lite.training.rundir import read_run

CONFIG = small_config("m2kd-no-pruning", train_per_class=40, batch_size=16)


def net_of(*classes):
    net = IncrementalNet("resnet8", 3, False, 0)
    for step, count in enumerate(classes, 1):
        net.grow_heads(count, step)
    return net.eval()


def test_new_rows_have_the_average_length_of_the_old_ones_and_keep_their_directions():
    net = net_of(4, 7)
    with torch.no_grad():
        net.main.weight[4:] *= 3
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fair = aligned(net, 4)
    lengths = fair.main.weight.norm(dim=1)
    assert lengths[4:].mean().item() == pytest.approx(lengths[:4].mean().item(), rel=1e-5)
    assert torch.equal(fair.main.weight[:4], net.main.weight[:4]) and torch.equal(fair.main.bias, net.main.bias)
    torch.testing.assert_close(F.cosine_similarity(fair.main.weight, net.main.weight), torch.ones(7))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_with_no_old_classes_there_is_nothing_to_align():
    net = net_of(4)
    assert torch.equal(aligned(net, 0).main.weight, net.main.weight)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run with the row's own decision: twice the images of other tests, so that aligning changes some answers."""
    folder = tmp_path_factory.mktemp("own") / "run"
    return folder, train.run(CONFIG, folder)


@pytest.mark.system
@pytest.mark.parametrize("decision", ["aligned", "rescaled"])
def test_the_decision_alone_differs_from_the_row_s_own(decision, own, tmp_path):
    row = replace(METHODS["m2kd-no-pruning"], decision=decision)
    metrics = train.run(CONFIG, tmp_path / "run", method=row)
    folder, plain = own
    assert (tmp_path / "run" / "snapshots.safetensors").read_bytes() == (folder / "snapshots.safetensors").read_bytes()
    assert [step["network"]["top1"] for step in metrics["steps"]] == [step["top1"] for step in plain["steps"]]
    asked_later = recompute.again(read_run(folder), ClassStream.of_run(CONFIG), row)
    assert [step["confusion"] for step in asked_later["steps"]] == [step["confusion"] for step in metrics["steps"]]
    assert metrics["steps"][0]["top1"] == plain["steps"][0]["top1"] or decision == "rescaled"
    assert [step["confusion"] for step in metrics["steps"][1:]] != [step["confusion"] for step in plain["steps"][1:]]


def test_rescaled_sigmoids_are_divided_by_what_each_class_was_asked_for():
    logits, asked = torch.tensor([[0.0, 2.0]]), torch.tensor([1.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(scaled.scores(logits, asked, torch.sigmoid), torch.sigmoid(logits) * torch.tensor([0.9, 0.1]))

"""A head that looks at directions: its definition, and that a run with it keeps every promise of the others."""
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import file_digest, small_config, stop_after

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import DamagedFile
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import recompute, train
from m2kd_lite.training.rundir import read_run

ROW = replace(METHODS["m2kd"], cosine=True)
CONFIG = small_config("m2kd", prior=0.05)


def digest(folder):
    return file_digest(folder / "snapshots.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosine") / "run"
    train.run(CONFIG, folder, method=ROW)
    return folder


@pytest.fixture
def net():
    net = IncrementalNet("resnet8", 3, True, seed=0, prior=0.05, cosine=True).eval()
    net.grow_heads(5, 1)
    return net


@torch.no_grad()
def test_an_output_is_the_scaled_cosine_plus_the_bias(net, images):
    net.scale.fill_(3.0)
    features = net.features(images[0])
    logits, auxiliary = net(images[0])
    for i in range(len(features)):
        for label in range(5):
            row = net.main.weight[label]
            cosine = (features[i] @ row) / (features[i].norm() * row.norm())
            assert logits[i, label] == pytest.approx(3.0 * cosine.item() + net.main.bias[label].item(), abs=1e-5)
    assert logits.shape == auxiliary.shape == (24, 5)


@torch.no_grad()
def test_the_length_of_a_row_says_nothing_and_that_of_a_linear_head_does(net, images):
    linear = IncrementalNet("resnet8", 3, True, seed=0, prior=0.05).eval()
    linear.grow_heads(5, 1)
    for one, same in ((net, True), (linear, False)):
        before = one(images[0])[0]
        one.main.weight[4] *= 100
        assert torch.allclose(before, one(images[0])[0], atol=1e-5) == same


def test_the_scale_is_learnt_and_every_model_has_its_own(whole):
    past = Snapshots.load(whole / "snapshots.safetensors")
    scales = [part["scale"].item() for part in past.parts]
    assert len(set(scales)) == 3 and 1.0 not in scales
    assert [past.reconstruct(step).scale.item() for step in (1, 2, 3)] == scales


def test_stopped_anywhere_and_resumed_the_run_is_the_same(whole, tmp_path):
    for before, after in pairwise((-1, 5, 25, 41)):
        stop_after(after, CONFIG, tmp_path / "run", before, method=ROW)
    train.run(CONFIG, tmp_path / "run", resume=True, method=ROW)
    assert digest(tmp_path / "run") == digest(whole)


def test_its_results_are_found_again_from_its_models_and_by_no_other_row(whole):
    run, stream = read_run(whole), ClassStream.of_run(CONFIG)
    assert recompute.differences(run.metrics, recompute.again(run, stream, ROW)) == []
    with pytest.raises(DamagedFile, match="its models are of another run"):
        recompute.again(run, stream)


def test_files_of_the_other_heads_do_not_name_it(finished, whole):
    assert "cosine" not in Snapshots.load(finished("m2kd")[0] / "snapshots.safetensors").to_tensors()[1]
    assert Snapshots.load(whole / "snapshots.safetensors").to_tensors()[1]["cosine"] is True

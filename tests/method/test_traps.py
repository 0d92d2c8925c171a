"""Mistakes made on purpose are the mistakes they are called (benchmarks/traps.py)."""
import pytest
import torch
from torch import nn

from benchmarks import traps
from m2kd_lite.method import exemplars, metrics
from m2kd_lite.training.rundir import read_run

MEANS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_a_mean_at_the_origin_wins_where_every_cosine_is_below_one_half():
    angles = torch.tensor([10.0, 59.0, 61.0, 100.0, 200.0]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert traps.nearest_with_the_origin(features, MEANS)[:, 0].tolist() == [0, 1, 1, 1, 2]
    distances = torch.cdist(features, torch.cat([MEANS, torch.zeros(1, 2)]))
    assert traps.nearest_with_the_origin(features, MEANS)[:, 0].tolist() == distances.argmin(1).tolist()


def test_a_class_to_come_is_always_wrong():
    best, labels = torch.tensor([[0, 1], [2, 1], [2, 0]]), torch.tensor([0, 1, 0])
    found = traps.results_without_unseen(metrics.step_results)(best, labels, [range(2)])
    assert found["top1"] == pytest.approx(100 / 3) and found["top5"] == 100.0
    only_unseen = traps.results_without_unseen(metrics.step_results)(torch.full((3, 1), 2), labels, [range(2)])
    assert only_unseen["top1"] == only_unseen["top5"] == 0.0


def test_means_are_of_the_images_as_they_are_and_the_rest_is_put_back(monkeypatch):
    seen = []
    monkeypatch.setattr(exemplars, "normalised_features", lambda net, images: seen.append(images) or images.flatten(1))
    images, plain = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 2.0]]]]), exemplars.class_means
    with traps.decision(traps.UPRIGHT):
        assert exemplars.class_means(None, images, torch.tensor([0, 1]), 2).allclose(torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    assert len(seen) == 1 and exemplars.class_means is plain


@pytest.mark.system
def test_a_finished_run_is_asked_again(finished):
    folder, content = finished("icarl")
    as_it_is, *mistaken = ([row["top1"] for row in traps.asked_again(read_run(folder), variant)] for variant in ("", *traps.DECIDED))
    assert as_it_is == [round(step["top1"], 3) for step in content["steps"]]
    assert all(len(top1) == len(as_it_is) for top1 in mistaken)
    assert all(wrong <= right for wrong, right in zip(mistaken[0], as_it_is, strict=True))      # an unseen class can only take an image away


class Teacher(nn.Module):
    """Answers with the sum of an image's pixels, less the batch's mean in train mode."""

    def forward(self, images):
        sums = images.float().sum((1, 2, 3))[:, None] / 100
        return (sums - sums.mean() if self.training else sums), None


def test_teachers_in_train_mode_look_at_their_batch_and_answer_in_the_order_of_the_images():
    images = torch.arange(80).view(80, 1, 1, 1).to(torch.uint8)
    found, _ = traps.teachers_in_train_mode([(1, range(1))], lambda step: Teacher().eval(), images, torch.ones(80, dtype=torch.int64), 2)
    means = torch.arange(80) / 100 - found[:, :, 0].logit()     # of each image's batch
    assert len(means[0].mul(1000).round().unique()) == 3        # 80 images in batches of 32
    assert torch.equal(means[0], means[1])

"""Metrics against counting by hand."""
import pytest
import torch

from m2kd_lite.method import metrics


def test_forgetting_is_the_mean_fall_from_the_best():
    rows = [[80.0], [70.0, 90.0], [60.0, 95.0, 50.0], [40.0, 35.0, 20.0, 88.0]]
    # falls: 80 -> 40, 95 -> 35, 50 -> 20; the last step's own classes do not count
    assert metrics.forgetting(rows) == pytest.approx((40 + 60 + 30) / 3)
    assert metrics.forgetting([[80.0]]) == 0.0


def test_average_incremental_accuracy_is_the_mean_over_steps_not_the_last():
    assert metrics.average_incremental_accuracy([83.5, 61.8, 52.5, 51.5, 42.1]) == pytest.approx(58.28)


def test_step_results_by_hand():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    best = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 0], [0, 2], [0, 1]])
    out = metrics.step_results(best, labels, [range(0, 2), range(2, 3)])
    assert out["top1"] == pytest.approx(50.0) and out["top5"] == pytest.approx(100 * 5 / 6)
    assert out["accuracy_by_step"] == pytest.approx([100 * 2 / 3, 100 / 3])
    assert out["confusion"] == [[1, 1, 0], [0, 1, 0], [2, 0, 1]] and out["classes_seen"] == 3


def test_destinations_add_up_and_begin_with_the_accuracy_of_the_step():
    confusion = [[3, 1, 0, 0, 4], [0, 2, 1, 1, 0], [1, 0, 0, 2, 1], [0, 0, 0, 0, 8], [2, 0, 1, 1, 4]]
    shares = metrics.destinations(confusion, [range(0, 2), range(2, 4), range(4, 5)])
    assert (12 * shares[0]).tolist() == pytest.approx([5, 1, 0, 6])          # right, another of its step, earlier, later
    assert (12 * shares[1]).tolist() == pytest.approx([0, 2, 1, 9])
    assert (8 * shares[2]).tolist() == pytest.approx([4, 0, 4, 0])
    assert shares.sum(1).tolist() == pytest.approx([1, 1, 1]) and shares.shape == (3, len(metrics.DESTINATIONS))


def test_predict_ranks_by_the_main_head_over_batches(monkeypatch):
    scores = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))

    class Net(torch.nn.Module):
        def forward(self, images):
            rows = images[:, 0, 0, 0].long()
            return scores[rows], -scores[rows]

    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1)
    monkeypatch.setattr(metrics, "BATCH", 3)
    assert torch.equal(metrics.predict(Net(), images), scores.argsort(1, descending=True)[:, :5])

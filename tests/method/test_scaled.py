"""Scaled against loops over single numbers; and a run whose scores are divided as the file says."""
import math

import pytest
import torch
from conftest import small_config

from m2kd_lite.data.stream import ClassStream
from m2kd_lite.method import metrics, scaled
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import draws, train

N, OLD, SEEN, TOTAL = 5, 4, 7, 10


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(OLD, SEEN, (N,), generator=generator)
    return {"logits": 2 * torch.randn(N, SEEN, generator=generator, dtype=torch.float64),
            "hard": torch.nn.functional.one_hot(labels, SEEN).double(),
            "soft": torch.randn(N, OLD, generator=generator, dtype=torch.float64).softmax(1)}


def softmax(row):
    powers = [math.exp(z) for z in row]
    return [power / sum(powers) for power in powers]


def literal_loss(b, t, squared=True, outputs=TOTAL):
    total = 0.0
    for i in range(N):
        sharp, soft = softmax(b["logits"][i].tolist()), softmax((b["logits"][i] / t).tolist())
        total -= sum(b["hard"][i, j].item() * math.log(sharp[j]) for j in range(SEEN))
        total -= (t * t if squared else 1) * sum(b["soft"][i, j].item() * math.log(soft[j]) for j in range(OLD))
    return total / (N * outputs)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_loss_is_cross_entropy_and_scaled_distillation_in_loops(batch, temperature):
    ours = scaled.loss(batch["logits"], batch["hard"], batch["soft"], TOTAL, temperature)
    assert ours.item() == pytest.approx(literal_loss(batch, temperature), rel=1e-12)


@pytest.mark.parametrize("mutant", [dict(squared=False), dict(outputs=SEEN)])
def test_a_loss_without_t_squared_or_over_the_seen_outputs_is_another(batch, mutant):
    ours = scaled.loss(batch["logits"], batch["hard"], batch["soft"], TOTAL, 2.0)
    assert ours.item() != pytest.approx(literal_loss(batch, 2.0, **mutant), rel=1e-3)


def test_in_step_1_there_is_the_label_alone(batch):
    ours = scaled.loss(batch["logits"], batch["hard"], batch["soft"][:, :0], TOTAL)
    expected = torch.nn.functional.cross_entropy(batch["logits"], batch["hard"].argmax(1)) / TOTAL
    assert ours.item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradient_is_that_of_the_kullback_leibler_divergences(batch):
    logits = batch["logits"].clone().requires_grad_()
    wide = torch.nn.functional.pad(batch["soft"], (0, SEEN - OLD))
    log_p = logits.log_softmax(1)
    divergence = sum(torch.nn.functional.kl_div(log_p, target, reduction="sum") for target in (batch["hard"], wide))
    theirs, = torch.autograd.grad(divergence / (N * TOTAL), logits)
    ours, = torch.autograd.grad(scaled.loss(logits, batch["hard"], batch["soft"], TOTAL), logits)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_accumulator_counts_labels_and_teachers_image_by_image():
    generator = torch.Generator().manual_seed(5)
    hard = torch.nn.functional.one_hot(torch.tensor([4, 5, 6, 4]), SEEN).float().expand(2, -1, -1)
    soft = torch.randn(2, 4, OLD, generator=generator).softmax(2)
    drawn = [(torch.tensor([2, 0, 1]), torch.tensor([0, 1, 1])), (torch.tensor([3, 1, 0]), torch.tensor([1, 0, 1]))]
    expected = [1.0] * SEEN
    for rows, flips in drawn:
        for row, flip in zip(rows.tolist(), flips.tolist(), strict=True):
            for j in range(SEEN):
                expected[j] += hard[flip, row, j].item() + (4 * soft[flip, row, j].item() if j < OLD else 0)
    assert scaled.asked_for(hard, soft, drawn, temperature=2.0).tolist() == pytest.approx(expected, rel=1e-12)


def test_scores_are_divided_and_the_rarely_asked_gain():
    logits, asked = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([300.0, 20.0, 150.0], dtype=torch.float64)
    weights = [1 / 300, 1 / 20, 1 / 150]
    expected = [p * w / sum(weights) for p, w in zip(softmax([2.0, 1.9, 0.0]), weights, strict=True)]
    assert scaled.scores(logits, asked)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert logits.argmax().item() == 0 and scaled.scores(logits, asked).argmax().item() == 1


def test_a_run_divides_by_what_it_drew_and_trained_on(tmp_path):
    config = small_config("scaled")
    written = train.run(config, tmp_path / "run")
    stream, past = ClassStream.of_run(config), Snapshots.load(tmp_path / "run" / "snapshots.safetensors")
    images, labels = stream.train(3)
    columns = METHODS["scaled"].teachers(stream.columns)
    hard, soft = scaled.soft_targets(columns, past.reconstruct, images, labels, 10)
    assert torch.allclose(soft[:, :, :8].sum(2), torch.ones(2, len(images))) and torch.equal(soft[:, :, 8:], hard[:, :, 8:])
    assert not hard.requires_grad and not soft.requires_grad
    asked = scaled.asked_for(hard, soft[:, :, :8], draws.of_training(config, 3, len(images)))
    last = written["steps"][-1]
    assert last["asked_for"] == pytest.approx(asked.tolist(), rel=1e-6)
    trained = config.epochs * (len(images) // config.batch_size) * config.batch_size
    assert sum(last["asked_for"]) == pytest.approx(10 + 2 * trained, rel=1e-6)      # 1 a class, and twice each image
    tests, of = stream.test(3)
    rescaled = metrics.predict(past.reconstruct(3), tests, scores=lambda logits: scaled.scores(logits, asked))
    assert last["top1"] == metrics.step_results(rescaled, of, stream.columns)["top1"]
    assert last["network"]["top1"] != last["top1"]


def test_how_outputs_begin_changes_nothing_not_even_a_last_bit(tmp_path):
    """`unused_settings` calls two runs of a softmax that differ in their prior the same run."""
    accuracies, models = [], []
    for prior in (0.05, 0.5):
        accuracies.append(train.run(small_config("scaled", steps=2, prior=prior), tmp_path / str(prior))["steps"][-1]["confusion"])
        models.append(Snapshots.load(tmp_path / str(prior) / "snapshots.safetensors").state(2))
    assert accuracies[0] == accuracies[1] and all(torch.equal(models[0][name], models[1][name]) for name in models[0])

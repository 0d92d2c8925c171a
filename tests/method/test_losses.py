"""Each loss against a literal transcription of its equation: loops over i, k and j, in float64 Python."""
import math

import pytest
import torch

from m2kd_lite.method import losses

N, STEPS, TOTAL = 5, [range(0, 3), range(3, 5), range(5, 9)], 12     # P = 3; 12 classes in the whole stream
ALPHA, LAMBDA = 0.5, 1.3


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    classes = STEPS[-1].stop
    return {
        "logits": torch.randn(N, classes, generator=generator, dtype=torch.float64) * 3,
        "aux_logits": torch.randn(N, classes, generator=generator, dtype=torch.float64) * 3,
        # per earlier step, what its model says of every class it knows
        "teachers": [torch.rand(N, own.stop, generator=generator, dtype=torch.float64) for own in STEPS[:-1]],
        "labels": torch.randint(STEPS[-1].start, classes, (N,), generator=generator),
    }


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def term(target, score):
    """Both halves of the cross entropy of one output."""
    return -(target * math.log(score) + (1 - target) * math.log(1 - score))


def literal_eq1(b):
    total = 0.0
    for i in range(N):
        for j in range(STEPS[-1].start):                             # old classes, from the penultimate model
            total += term(b["teachers"][-1][i, j].item(), sigmoid(b["logits"][i, j].item()))
        for j in STEPS[-1]:                                          # current classes, from the label
            total += term(float(b["labels"][i] == j), sigmoid(b["logits"][i, j].item()))
    return total / (N * TOTAL)


def literal_eq2(b):
    total = 0.0
    for i in range(N):
        for k, own in enumerate(STEPS[:-1]):                         # the classes of step k, from the model of step k
            for j in own:
                total += term(b["teachers"][k][i, j].item(), sigmoid(b["logits"][i, j].item()))
        for j in STEPS[-1]:
            total += term(float(b["labels"][i] == j), sigmoid(b["logits"][i, j].item()))
    return total / (N * TOTAL)


def literal_eq3(b):
    distilled = classified = 0.0
    for i in range(N):
        for k, own in enumerate(STEPS[:-1]):
            for j in own:
                distilled += term(b["teachers"][k][i, j].item(), sigmoid(b["aux_logits"][i, j].item()))
        for j in range(STEPS[-1].stop):                              # all columns, old ones too
            classified += term(float(b["labels"][i] == j), sigmoid(b["aux_logits"][i, j].item()))
    return (distilled + ALPHA * classified) / (N * TOTAL)


def matrix(b, plan):
    """The target matrix by assignment: `plan` lists (index of the teacher, columns)."""
    targets = torch.zeros_like(b["logits"])
    for i in range(N):
        targets[i, b["labels"][i]] = 1
    for teacher, columns in plan:
        for j in columns:
            targets[:, j] = b["teachers"][teacher][:, j]
    return targets


EQ1_PLAN = [(1, range(0, 5))]
EQ2_PLAN = [(0, STEPS[0]), (1, STEPS[1])]


def test_main_loss_on_penultimate_targets_is_eq_1(batch):
    ours = losses.distillation_loss(batch["logits"], matrix(batch, EQ1_PLAN), TOTAL)
    assert ours.item() == pytest.approx(literal_eq1(batch), rel=1e-12)


def test_main_loss_on_own_step_targets_is_eq_2(batch):
    ours = losses.distillation_loss(batch["logits"], matrix(batch, EQ2_PLAN), TOTAL)
    assert ours.item() == pytest.approx(literal_eq2(batch), rel=1e-12)
    assert literal_eq1(batch) != pytest.approx(literal_eq2(batch), rel=1e-3)    # the two are told apart


def test_auxiliary_loss_is_eq_3(batch):
    soft = matrix(batch, EQ2_PLAN)[:, :STEPS[-1].start]
    ours = losses.auxiliary_loss(batch["aux_logits"], soft, batch["labels"], ALPHA, TOTAL)
    assert ours.item() == pytest.approx(literal_eq3(batch), rel=1e-12)


def test_total_loss_is_eq_4(batch):
    main, auxiliary = torch.tensor(literal_eq2(batch)), torch.tensor(literal_eq3(batch))
    assert losses.total_loss(main, auxiliary, LAMBDA).item() == pytest.approx(
        literal_eq2(batch) + LAMBDA * literal_eq3(batch), rel=1e-6)


def test_in_step_1_the_auxiliary_loss_is_alpha_times_classification(batch):
    none = torch.zeros(N, 0, dtype=torch.float64)
    one = losses.auxiliary_loss(batch["aux_logits"], none, batch["labels"], 1.0, TOTAL)
    half = losses.auxiliary_loss(batch["aux_logits"], none, batch["labels"], 0.5, TOTAL)
    assert half.item() == pytest.approx(one.item() / 2)


def test_the_normaliser_is_all_classes_of_the_stream_not_those_seen(batch):
    targets = matrix(batch, EQ2_PLAN)
    seen = targets.shape[1]
    assert losses.distillation_loss(batch["logits"], targets, 2 * seen).item() == pytest.approx(
        losses.distillation_loss(batch["logits"], targets, seen).item() / 2)


def test_the_printed_half_alone_would_push_every_sigmoid_to_1():
    """Why both halves are run: without the second, a target of 0 exerts no pull at all."""
    logit = torch.zeros(1, 1, requires_grad=True)
    losses.binary_cross_entropy(logit, torch.zeros(1, 1), 1).backward()
    assert logit.grad.item() > 0                                     # descent lowers the logit
    printed = torch.zeros(1, 1, requires_grad=True)
    (-(torch.zeros(1, 1) * torch.sigmoid(printed).log()).sum()).backward()
    assert printed.grad.item() == 0


def test_saturated_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = losses.binary_cross_entropy(logits, torch.tensor([[0.0, 1.0]]), 2)
    loss.backward()
    assert loss.item() == pytest.approx(200.0) and logits.grad.isfinite().all()

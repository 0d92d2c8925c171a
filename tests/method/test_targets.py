"""The target matrix: which teacher fills which columns, for the image and its mirror image."""
import pytest
import torch

from m2kd_lite.method import targets
from m2kd_lite.method.nets import IncrementalNet

COLUMNS = [range(0, 2), range(2, 4), range(4, 6)]


@pytest.fixture(scope="module")
def teachers():
    """Models of steps 1 and 2: unlike weights, 2 and 4 outputs, in eval mode."""
    made = {}
    for step, classes in ((1, 2), (2, 4)):
        net = IncrementalNet("resnet8", 3, True, seed=step)
        net.grow_heads(classes, step)
        made[step] = net.eval()
    return made


def test_plans():
    assert targets.no_teachers(COLUMNS) == []
    assert targets.penultimate(COLUMNS) == [(2, range(0, 4))]
    assert targets.own_step(COLUMNS) == [(1, range(0, 2)), (2, range(2, 4))]
    assert targets.penultimate(COLUMNS[:1]) == targets.own_step(COLUMNS[:1]) == []
    assert targets.penultimate(COLUMNS[:2]) == targets.own_step(COLUMNS[:2])      # with one teacher Eq. 1 is Eq. 2


@pytest.mark.parametrize("plan", [targets.penultimate(COLUMNS), targets.own_step(COLUMNS)], ids=["eq1", "eq2"])
def test_matrix_against_loops(plan, teachers, images):
    pixels, _ = images
    labels = torch.arange(len(pixels)) % 2 + 4                                   # the current classes
    main, auxiliary = targets.target_matrix(plan, teachers.get, pixels, labels, 6)
    with torch.no_grad():
        said = {(step, flip): net(pixels.flip(3) if flip else pixels) for step, net in teachers.items() for flip in (0, 1)}
    teacher_of_column = {j: step for step, columns in plan for j in columns}
    for flip in (0, 1):
        for i in range(len(pixels)):
            for j in range(6):
                if j in teacher_of_column:
                    logits, aux_logits = said[teacher_of_column[j], flip]
                    assert main[flip, i, j].item() == pytest.approx(torch.sigmoid(logits[i, j]).item(), abs=1e-6)
                    assert auxiliary[flip, i, j].item() == pytest.approx(torch.sigmoid(aux_logits[i, j]).item(), abs=1e-6)
                else:
                    assert main[flip, i, j].item() == float(labels[i] == j)
    assert not torch.equal(main[0], main[1])


def test_one_teacher_at_a_time_and_nothing_to_learn_from_it(teachers, images):
    asked = []
    main, auxiliary = targets.target_matrix(targets.own_step(COLUMNS), lambda k: asked.append(k) or teachers[k], *images, 6)
    assert asked == [1, 2]
    assert not main.requires_grad and not auxiliary.requires_grad


def test_teachers_are_not_changed_by_being_asked(teachers, images):
    before = {name: tensor.clone() for name, tensor in teachers[1].state_dict().items()}
    targets.target_matrix(targets.own_step(COLUMNS), teachers.get, *images, 6)
    assert all(torch.equal(before[name], tensor) for name, tensor in teachers[1].state_dict().items())


def test_without_teachers_the_matrix_is_the_labels(images):
    pixels, labels = images
    main, _ = targets.target_matrix([], None, pixels, labels, 6)
    assert torch.equal(main[0], torch.nn.functional.one_hot(labels, 6).float()) and torch.equal(main[0], main[1])


def test_a_batch_boundary_changes_nothing(teachers, images, monkeypatch):
    whole, _ = targets.target_matrix(targets.own_step(COLUMNS), teachers.get, *images, 6)
    monkeypatch.setattr(targets, "BATCH", 7)
    parts, _ = targets.target_matrix(targets.own_step(COLUMNS), teachers.get, *images, 6)
    torch.testing.assert_close(whole, parts)

"""Herding and the nearest class mean against loops over single numbers; and iCaRL's runs as a whole."""
import io

import numpy as np
import pytest
import torch
from conftest import small_config
from PIL import Image

from m2kd_lite.config import EXEMPLAR_METHODS
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.files import storage
from m2kd_lite.method import exemplars, metrics
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.method.table import METHODS
from m2kd_lite.training import train


def unit_rows(count, width=8, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def literal_herding(features, count, pick_again=False):
    """iCaRL's selection, one number at a time. `pick_again` is the mutant that forgets what it has."""
    number, width = features.shape
    mean = [sum(features[i][d] for i in range(number)) / number for d in range(width)]
    target, picked = list(mean), []
    while len(picked) < min(count, number):
        best, best_dot = None, -np.inf
        for i in range(number):
            dot = sum(target[d] * features[i][d] for d in range(width))
            if dot > best_dot and (pick_again or i not in picked):
                best, best_dot = i, dot
        picked.append(best)
        target = [target[d] + mean[d] - features[best][d] for d in range(width)]
    return picked


@pytest.mark.parametrize("seed", range(8))
def test_herding_is_the_greedy_choice_in_loops(seed):
    features = unit_rows(20, seed=seed)
    assert exemplars.herding(torch.from_numpy(features), 20).tolist() == literal_herding(features, 20)


def test_a_herding_that_picks_twice_is_another_one():
    features = unit_rows(20)
    assert exemplars.herding(torch.from_numpy(features), 20).tolist() != literal_herding(features, 20, pick_again=True)


def test_herding_follows_the_mean_closer_than_chance_at_every_length():
    features = torch.from_numpy(unit_rows(60, seed=1))
    order, chance = exemplars.herding(features, 60), torch.randperm(60, generator=torch.Generator().manual_seed(0))

    def off(rows):
        return (features[rows].mean(0) - features.mean(0)).norm().item()

    assert sorted(order.tolist()) == list(range(60))
    assert all(off(order[:m]) < off(chance[:m]) for m in range(1, 55))


def test_a_shorter_herding_is_the_first_part_of_a_longer_one():
    features = torch.from_numpy(unit_rows(30, seed=2))
    assert exemplars.herding(features, 30)[:7].tolist() == exemplars.herding(features, 7).tolist()


@pytest.fixture
def net():
    net = IncrementalNet("resnet8", 1, False, seed=3)
    net.grow_heads(3, 1)
    return net.eval()


@pytest.fixture
def handwriting():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (18, 1, 32, 32), dtype=torch.uint8, generator=generator), torch.arange(18) % 3


def literal_nearest_mean(net, images, labels, asked):
    """Nearest mean by distance, one image at a time."""
    def feature(image):
        with torch.no_grad():
            vector = net.features(image[None])[0].double().numpy()
        return vector / np.linalg.norm(vector)

    means = []
    for label in range(3):
        of_class = [image for image, of in zip(images, labels, strict=True) if of == label]
        own = [feature(image) for image in of_class] + [feature(image.flip(2)) for image in of_class]
        mean = sum(own) / len(own)
        means.append(mean / np.linalg.norm(mean))
    return [int(np.argmin([np.linalg.norm(feature(image) - mean) for mean in means])) for image in asked]


def test_nearest_mean_is_the_smallest_distance_in_loops(net, handwriting):
    images, labels = handwriting
    means = exemplars.class_means(net, images[:9], labels[:9], 3)
    assert torch.allclose(means.norm(dim=1), torch.ones(3))
    ours = exemplars.nearest(exemplars.normalised_features(net, images), means)
    assert ours.shape == (18, 3)
    assert ours[:, 0].tolist() == literal_nearest_mean(net, images[:9], labels[:9], images)


def test_without_mirror_images_the_means_are_others(net, handwriting):
    images, labels = handwriting
    ours = exemplars.class_means(net, images, labels, 3)
    one_sided = torch.stack([exemplars.normalised_features(net, images[labels == label]).mean(0) for label in range(3)])
    assert not torch.allclose(ours, torch.nn.functional.normalize(one_sided), atol=1e-5)


def test_a_class_at_the_origin_would_win_what_no_mean_is_near_to():
    means = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    image = torch.nn.functional.normalize(torch.tensor([[0.4, 0.3, 1.0]]))      # cosines 0.36 and 0.27, both below 0.5
    with_unseen = torch.cdist(image, torch.cat([means, torch.zeros(1, 3)])).argmin().item()
    assert with_unseen == 2                                                     # the trap
    assert exemplars.nearest(image, means)[0, 0].item() == 0                    # only classes that were seen


def test_the_budget_is_shared_and_never_exceeded():
    assert [exemplars.per_class(2000, seen) for seen in (10, 20, 30, 70, 100)] == [200, 100, 66, 28, 20]
    with pytest.raises(BadInput, match="--exemplars 9: not allowed; give 10 or more"):
        exemplars.check_budget(9, 10)


def test_jpeg_bytes_are_those_of_files(handwriting):
    images = handwriting[0][:2]
    expected = 0
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=95)
        expected += len(file.getvalue())
    assert exemplars.jpeg_bytes(images) == expected
    assert exemplars.jpeg_bytes(images.expand(2, 3, 32, 32)) > 0


# ---- whole runs -----------------------------------------------------------------------------------------------------

BUDGET = 20         # 5, 2 and 2 a class after the three steps of the digits


@pytest.fixture(scope="module")
def icarl(tmp_path_factory):
    """A finished run, its folder, and its stream."""
    config = small_config("icarl", exemplars=BUDGET)
    folder = tmp_path_factory.mktemp("icarl") / "run"
    return config, folder, train.run(config, folder), ClassStream.of_run(config)


def test_exemplars_are_of_their_class_and_as_many_as_the_budget_gives(icarl):
    config, folder, written, stream = icarl
    kept = written["exemplars"]
    assert list(kept["rows"]) == written["class_names"]
    assert kept["count"] == 20 and kept["raw_bytes"] == 20 * 32 * 32 == written["bytes"]["per_step"][-1]["exemplars"]
    for label, rows in enumerate(kept["rows"].values()):
        assert len(set(rows)) == 2 and set(stream.train_labels[rows].tolist()) == {label}
    assert storage.load_json(folder / "metrics.json")["exemplars"] == kept


def test_the_run_decides_by_nearest_mean_and_tells_the_networks_own_choice(icarl):
    _, folder, written, stream = icarl
    last = Snapshots.load(folder / "snapshots.safetensors").reconstruct(3)
    images, labels = stream.test(3)
    kept = torch.tensor([row for rows in written["exemplars"]["rows"].values() for row in rows])
    means = exemplars.class_means(last, stream.train_images[kept], stream.train_labels[kept], 10)
    best = exemplars.nearest(exemplars.normalised_features(last, images), means)
    assert written["steps"][-1]["top1"] == metrics.step_results(best, labels, stream.columns)["top1"]
    own = metrics.step_results(metrics.predict(last, images), labels, stream.columns)
    assert written["steps"][-1]["network"] == {name: own[name] for name in ("top1", "top5", "accuracy_by_step")}
    assert written["steps"][-1]["top1"] != own["top1"]


def test_exemplars_are_trained_on_and_their_old_columns_come_from_the_teacher(monkeypatch, tmp_path):
    seen = []
    real = train._Run.soft_targets

    def spy(self, images, labels, columns):
        filled = real(self, images, labels, columns)
        seen.append((images, labels, filled[0], [rows.clone() for rows in self.state.exemplars], self.stream,
                     len(self.state.past) and self.state.past.reconstruct(len(self.state.past))))
        return filled

    monkeypatch.setattr(train._Run, "soft_targets", spy)
    train.run(small_config("icarl", exemplars=BUDGET), tmp_path / "run")
    assert [len(images) for images, *_ in seen] == [80, 80 + 20, 40 + 16]       # 4, 4 and 2 new classes of 20 images
    for images, labels, targets, kept, stream, teacher in seen[1:]:
        rows = torch.cat(kept)
        assert torch.equal(images[-len(rows):], stream.train_images[rows])
        assert torch.equal(labels[-len(rows):], stream.train_labels[rows])
        with torch.no_grad():
            said = torch.sigmoid(teacher(images)[0])
        assert torch.allclose(targets[0, :, :said.shape[1]], said, atol=1e-5)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(method="icarl", exemplars=0), "--exemplars 0: not allowed; give at least one per class"),
    (dict(method="lwf-mc", exemplars=20), "--exemplars 20: not allowed; give 0: --method lwf-mc keeps no exemplars"),
])
def test_a_budget_that_does_not_fit_the_method_is_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        small_config(**changes)


def test_a_budget_below_one_a_class_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(BadInput, match="--exemplars 9: not allowed; give 10 or more"):
        train.run(small_config("icarl", exemplars=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_methods_have_the_papers_budget_where_they_keep_exemplars():
    assert small_config("icarl-m2kd", profile="paper").exemplars == 2000
    assert small_config("icarl", profile="quick").exemplars == 200
    assert small_config("m2kd", profile="paper").exemplars == 0



@pytest.mark.parametrize("kept", [
    [[0, 1]],                       # a class is missing
    [[0, 1], [4]],                  # too few
    [[0, 0], [4, 5]],               # one twice
    [[0, 4], [1, 5]],               # of the other class
    [[0, 99], [4, 5]],              # no such image
])
def test_exemplars_that_no_run_chose_are_refused(kept):
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    exemplars.check_kept([torch.tensor([2, 0]), torch.tensor([7, 4])], labels, 2, 4)
    with pytest.raises(ValueError):
        exemplars.check_kept([torch.tensor(rows) for rows in kept], labels, 2, 4)


def test_the_settings_name_the_methods_that_keep_exemplars():
    assert set(EXEMPLAR_METHODS) == {name for name, row in METHODS.items() if row.keeps_exemplars}


def test_cosines_that_bf16_would_call_equal_are_told_apart():
    """Run in bf16, 64 directions a little apart: herding, means and the nearest mean are those of fp32."""
    angles = 0.5 + torch.arange(64) / 2000
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    asked = [lambda: exemplars.nearest(features, features, top=1), lambda: exemplars.herding(features, 10),
             lambda: exemplars.means_of(features, torch.arange(64) % 4, 4)]
    exact = [ask() for ask in asked]
    assert torch.equal(exact[0][:, 0], torch.arange(64)) and len((features @ features.T).bfloat16()[0].unique()) < 10
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(ask(), was) for ask, was in zip(asked, exact, strict=True))

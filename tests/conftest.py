"""Shared fixtures: one cache for the whole session, small real runs, and figures without a screen."""
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
# Threads that wait for each other by spinning come to a halt where other processes want the same cores: three runs at
# once took 13 times as long. Sleeping costs 0.4 of the speed of a process that is alone. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch
from filelock import FileLock
from PIL import Image

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput, Interrupted
from m2kd_lite.method import metrics
from m2kd_lite.training import train
from m2kd_lite.training.device import prepare_device

hypothesis.settings.register_profile("same every time", derandomize=True)
hypothesis.settings.load_profile("same every time")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Nothing that a test draws or decodes reaches the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["M2KD_LITE_CACHE"] = str(folder)
    return folder


def small_config(method: str, **changes) -> RunConfig:
    """Three steps of real handwriting (4, 4 and 2 classes), seconds long."""
    values = dict(method=method, dataset="digits", class_batch=4, profile="smoke", epochs=2, finetune_epochs=1,
                  train_per_class=20, test_per_class=10, batch_size=8)
    return RunConfig.make(values | changes)


def stop_after(batch, config, folder, before=-1, **more) -> Interrupted:
    """Train until a batch of the whole run, counted from 0, is done; `before`: the one after which an earlier call was stopped."""
    batches = itertools.count(before + 1)
    with pytest.raises(Interrupted) as stop:
        train.run(config, folder, resume=before >= 0, should_stop=lambda: 130 if next(batches) == batch else None, **more)
    return stop.value


def write_pictures(folder, train, test):
    """Noise of 32x32 pixels in an ImageFolder's layout: so many pictures of each of 4 classes."""
    chance = torch.Generator().manual_seed(3)
    for part, count in (("train", train), ("test", test)):
        for name in "abcd":
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=chance)
                Image.fromarray(pixels.numpy()).save(folder / part / name / f"{i}.png")


def file_digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(content):
    """metrics.json without what a clock says."""
    content = json.loads(json.dumps(content))
    content.pop("wall_seconds")
    content["environment"].pop("revision"), content.pop("environments")     # a commit meanwhile is no difference between runs
    for step in content["steps"]:
        step.pop("train_seconds"), step.pop("teacher_seconds")
    return content


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of each method asked for: `finished("m2kd")` gives (folder, metrics). Trained once a session."""
    made = {}

    def get(method: str):
        if method not in made:
            folder = tmp_path_factory.mktemp("runs") / method
            made[method] = folder, train.run(small_config(method), folder)
        return made[method]

    return get


@pytest.fixture
def live(monkeypatch):
    """What the live network was when each step ended: its logits on test images, and its convolutions."""
    seen = []
    real = metrics.predict

    def spy(net, images, top=5):
        with torch.no_grad():
            seen.append({"images": images[:40], "logits": net(images[:40]),
                         "weights": {name: w.detach().clone() for name, w in net.convolutions().items()},
                         "training": net.training})
        return real(net, images, top)

    monkeypatch.setattr(metrics, "predict", spy)
    return seen


@pytest.fixture
def compiler():
    """Skips the test where torch.compile does not work."""
    try:
        prepare_device(small_config("m2kd", device="cpu", precision="bf16-compiled"))
    except BadInput as error:
        pytest.skip(str(error))


@pytest.fixture
def images():
    """(24, 3, 32, 32) uint8 noise and labels of 6 classes."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator), torch.arange(24) % 6)


def built_by(script, tmp_path_factory):
    """The folder that a script of docs/ has filled, once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"built-{script}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            building = folder.with_suffix(".building")
            done = subprocess.run([sys.executable, Path(__file__).parents[1] / "docs" / script, building], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            building.rename(folder)
    return folder


@pytest.fixture(scope="session")
def slides(tmp_path_factory):
    """The talks that `make slides` makes."""
    return built_by("slides", tmp_path_factory)


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The site that `make book` makes; a warning of Sphinx's is an error there."""
    return built_by("book", tmp_path_factory)

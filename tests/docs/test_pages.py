"""Pages that show code show code that runs: their blocks are executed one after the other, as a reader would."""
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def blocks(name, language="python"):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (ROOT / "docs" / name).read_text())


def installed(folder, module, entry_points):
    """A package that brings methods, as pip leaves one; and the environment in which it is found."""
    (folder / "my_methods.py").write_text(module)
    info = folder / "my_methods-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[m2kd_lite.methods]\n" + "".join(f"{name} = {value}\n" for name, value in entry_points.items()))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


SMALL = ["--dataset", "digits", "--class-batch", "4", "--profile", "smoke"]


@pytest.mark.system
def test_the_method_of_the_page_runs_by_name_from_the_command_line_a_sweep_and_the_notebook(tmp_path):
    (module,), (project,) = blocks("your_own_method.md"), blocks("your_own_method.md", "toml")
    assert len([line for line in module.splitlines() if line.strip()]) <= 10
    names = tomllib.loads(project)["project"]["entry-points"]["m2kd_lite.methods"]
    environment = installed(tmp_path, module, names)

    def m2kd(*arguments, status=0):
        done = subprocess.run([sys.executable, "-m", "m2kd_lite.cli", *map(str, arguments)], env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    m2kd("run", "--method", "anchored", *SMALL, "--out", tmp_path / "run")
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert content["config"]["method"] == "anchored" and len(content["steps"]) == 3
    (tmp_path / "spec.yaml").write_text("base: {dataset: digits, class_batch: 4, profile: smoke}\ngrid: {method: [anchored]}\n")
    m2kd("sweep", tmp_path / "spec.yaml", "--out", tmp_path / "sweep", "--workers", "0")        # by papermill, from the notebook
    (swept,) = (tmp_path / "sweep").glob("*/run/metrics.json")
    assert json.loads(swept.read_text())["steps"][-1]["confusion"] == content["steps"][-1]["confusion"]
    m2kd("report", tmp_path / "run", "--out", tmp_path / "report.html")
    assert "Anchored" in (tmp_path / "report.html").read_text()
    assert "finished already" in m2kd("sweep", tmp_path / "spec.yaml", "--out", tmp_path / "sweep", "--workers", "0")
    (tmp_path / "my_methods.py").write_text(module + "# changed\n")
    assert "finished already" not in m2kd("sweep", tmp_path / "spec.yaml", "--out", tmp_path / "sweep", "--workers", "0")


@pytest.mark.system
def test_a_method_that_cannot_be_loaded_or_is_none_is_told_to_who_asks_for_it_and_to_nobody_else(tmp_path):
    environment = installed(tmp_path, "import nothing_of_this_name\n", {"broken": "my_methods:ROW", "lwf-mc": "my_methods:ROW"})
    (tmp_path / "other.py").write_text("ROW = 7\n")
    info = tmp_path / "my_methods-0.1.dist-info" / "entry_points.txt"
    info.write_text(info.read_text() + "seven = other:ROW\n")
    for name, status, says in (("broken", 2, "--method broken: my_methods:ROW cannot be loaded (ModuleNotFoundError"),
                               ("seven", 2, "--method seven: other:ROW is a int, not a Method"), ("lwf-mc", 0, "average incremental accuracy")):
        done = subprocess.run([sys.executable, "-m", "m2kd_lite.cli", "run", "--method", name, *SMALL, "--out", str(tmp_path / name)],
                              env=environment, capture_output=True, text=True)
        assert done.returncode == status and says in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.system
def test_the_own_network_of_the_page_learns_and_is_rebuilt_in_forty_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop, promises = blocks("your_own_network.md")
    assert sum(bool(line.strip()) for line in loop.splitlines()) <= 40
    torch.manual_seed(0)
    names = {}
    exec(compile(loop, "loop", "exec"), names)
    past, images, net = names["past"], names["images"], names["net"]
    assert len(past) == 3 and {int(mask.max()) for mask in past.masks.values()} == {3}
    exec(compile(promises, "promises", "exec"), names)
    first, last = past.reconstruct(1), past.reconstruct(3)
    with torch.no_grad():
        assert not torch.equal(first(images.test_images)[0], last(images.test_images)[0])
        own = images.test_labels < 4
        chosen = first(images.test_images[own])[0][:, :4].argmax(1)
    assert (chosen == images.test_labels[own]).float().mean() > 0.5         # four classes: chance is a quarter
    assert (tmp_path / "snapshots.safetensors").stat().st_size < 4 * 1.6 * sum(p.numel() for p in net.parameters()) * 3 / 2

"""A sweep on a real dask.distributed cluster of processes on this machine: a worker and the scheduler are killed."""
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import yaml
from sweeps.test_sweep import LONG, epochs_of, kernel_of, spec, undisturbed, until

from m2kd_lite.errors import BadInput
from m2kd_lite.sweeps import sweep
from m2kd_lite.sweeps.cell import NOTEBOOK, RUN
from m2kd_lite.sweeps.spec import plan

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}


@pytest.fixture
def cluster(tmp_path):
    """Functions that start a scheduler, always at one address, and workers of one card each; all is killed at the end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    address, started = f"tcp://127.0.0.1:{port}", []

    def start(*arguments):
        process = psutil.Popen([sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:], "--no-dashboard"],
                               env=os.environ | QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        return process

    def scheduler():
        return start("dask_scheduler", "--host", "127.0.0.1", "--port", port)

    def worker():
        return start("dask_worker", address, "--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--resources", "GPU=1",
                     "--local-directory", str(tmp_path / "dask"))

    yield address, scheduler, worker
    for process in started:
        process.kill()
        process.wait(30)


def test_a_worker_and_the_scheduler_are_killed_and_the_sweep_ends_with_the_same_bytes(tmp_path, cluster):
    address, start_scheduler, start_worker = cluster
    wanted = plan(spec(tmp_path, LONG + "grid: {method: [m2kd, finetune]}"))
    out, said = tmp_path / "out", []
    runs = [out / cell.key / RUN for cell in wanted.cells]
    scheduler, workers = start_scheduler(), [start_worker(), start_worker()]
    place = sweep.Place(sweep.cluster(address, needs_gpu=True))
    at_work = threading.Thread(target=sweep.run, args=(wanted, out, place, said.append), daemon=True)
    at_work.start()

    # Each worker has a cell. One is killed in the second step of its own: the other takes that over when it is free.
    until(lambda: epochs_of(runs[0], step=2) and kernel_of(runs[1]))
    kernel = kernel_of(runs[0])
    victim, other = sorted(workers, key=lambda worker: worker.pid != kernel.ppid())
    victim.kill()
    until(lambda: kernel_of(runs[0]) not in (None, kernel))
    assert kernel_of(runs[0]).ppid() == other.pid
    published = (out / wanted.cells[1].key / NOTEBOOK).stat().st_mtime_ns

    # Now the scheduler. Its worker closes; another cluster comes up at the same address, and the sweep goes on there.
    scheduler.kill()
    until(lambda: any("the workers were lost; starting again" in event.get("text", "") for event in said))
    other.kill()
    start_scheduler(), start_worker()
    at_work.join(120)
    assert not at_work.is_alive()
    assert [(e["label"], e["state"]) for e in said if e["event"] == "cell"] == [("method finetune", "finished"), ("method m2kd", "finished")]

    # Nothing that was finished was computed again, and the models are those of an undisturbed sweep.
    assert (out / wanted.cells[1].key / NOTEBOOK).stat().st_mtime_ns == published
    assert [len(epochs_of(runs[1], step)) for step in (1, 2)] == [20, 20] and len(epochs_of(runs[0], step=1)) == 21
    for cell, run in zip(wanted.cells, runs, strict=True):
        assert (run / "snapshots.safetensors").read_bytes() == undisturbed(cell, tmp_path)


def test_the_examples_of_the_page_can_be_read_by_what_they_are_for():
    text = (ROOT / "docs" / "clusters.md").read_text()
    script, resource = re.search(r"```python\n(.*?)```", text, re.S)[1], re.search(r"```yaml\n(.*?)```", text, re.S)[1]
    assert compile(script, "cluster.py", "exec") and "SLURMCluster" in script
    worker = yaml.safe_load(resource)["spec"]["worker"]["spec"]["containers"][0]
    assert {"--nthreads", "--memory-limit", "--resources", "GPU=1"} <= set(worker["args"])


def test_no_scheduler_at_the_address_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "CONNECT_SECONDS", 0.5)
    wanted = plan(spec(tmp_path, LONG + "grid: {seed: [0]}"))
    with pytest.raises(BadInput, match="--scheduler tcp://127.0.0.1:9: no scheduler answers there"):
        sweep.run(wanted, tmp_path / "out", sweep.Place(sweep.cluster("tcp://127.0.0.1:9")))

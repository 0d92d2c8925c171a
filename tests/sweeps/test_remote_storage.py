"""Executed notebooks in remote storage: papermill's own s3:// against a service on this machine that speaks the protocol (moto)."""
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import nbformat
import pytest

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.files import storage
from m2kd_lite.results import report
from m2kd_lite.sweeps import sweep
from m2kd_lite.training import rundir

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """(a bucket, the environment of a process that may use it)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as said:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=said, stderr=said)
    try:
        for _ in range(300):
            assert server.poll() is None, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port}"
        who = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
        service = boto3.resource("s3", endpoint_url=address, aws_access_key_id="nobody", aws_secret_access_key="nothing", region_name="us-east-1")
        yield service.create_bucket(Bucket="lab"), os.environ | who | {"AWS_ENDPOINT_URL": address, "OMP_NUM_THREADS": "1"}
    finally:
        server.kill()
        server.wait()


def papermill(environment, target, **parameters):
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    return subprocess.run([sys.executable, "-m", "papermill", "notebooks/06_full_run.ipynb", target, *given], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


def test_an_executed_notebook_goes_to_a_bucket(bucket, tmp_path):
    lab, environment = bucket
    done = papermill(environment, "s3://lab/runs/first.ipynb", method="finetune", dataset="digits", class_batch=5, profile="smoke",
                     out=tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.reads(lab.Object("runs/first.ipynb").get()["Body"].read().decode(), 4)
    assert notebook.metadata.papermill.exception is None and all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert rundir.read_run(tmp_path / "run").config.method == "finetune"


def test_a_failed_one_is_there_with_its_error(bucket, tmp_path):
    lab, environment = bucket
    done = papermill(environment, "s3://lab/runs/failed.ipynb", pruning_ratio=1.5, out=tmp_path / "run")
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    assert b"--pruning-ratio 1.5: not allowed" in lab.Object("runs/failed.ipynb").get()["Body"].read()


def test_a_runs_own_folder_is_refused_there():
    here = RunConfig.make({})
    for begin in (lambda: rundir.check_usable(Path("s3://lab/run"), here, False), lambda: sweep.run(None, "gs://lab/sweep", None),
                  lambda: report.write_report([], "abs://lab/report.html")):
        with pytest.raises(BadInput, match="not allowed; give a folder or file on this machine"):
            begin()
    for fine in ("runs/x", "/tmp/x", "C:/runs/x", "C:\\runs", "./a:b/c"):
        storage.check_local(fine)

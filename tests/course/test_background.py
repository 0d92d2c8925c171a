"""A run in a process of its own: its events, its end, and what a stop or a kill leaves."""
import os
import signal
import subprocess
import sys
from threading import Event

import pytest
from conftest import small_config
from filelock import FileLock, Timeout

from m2kd_lite.course.background import BackgroundRun
from m2kd_lite.training import rundir

pytestmark = pytest.mark.system


class Listener:
    """Collects what a run says, and can wait for it."""

    def __init__(self):
        self.events, self.ends, self.trains = [], [], Event()

    def on_event(self, event):
        self.events.append(event)
        if event["event"] == "epoch":
            self.trains.set()


def begin(folder, method="m2kd", **changes):
    listener = Listener()
    return listener, BackgroundRun(small_config(method, **changes), folder, listener.on_event, listener.ends.append)


def test_a_run_in_the_background_is_the_run_in_the_foreground(finished, tmp_path):
    listener, run = begin(tmp_path / "run")
    run.wait()
    assert listener.ends == [None]
    assert [event["step"] for event in listener.events if event["event"] == "step"] == [1, 2, 3]
    assert (tmp_path / "run" / "snapshots.safetensors").read_bytes() == (finished("m2kd")[0] / "snapshots.safetensors").read_bytes()


def test_a_stopped_run_says_so_and_goes_on_where_it_was(finished, tmp_path):
    long = {"epochs": 400}
    listener, run = begin(tmp_path / "run", **long)
    assert listener.trains.wait(60)
    run.stop()
    run.wait()
    assert listener.ends == ["stopped; it goes on from here when it is started again"] and run.stopping
    assert not rundir.is_finished(tmp_path / "run")
    listener, run = begin(tmp_path / "run", **long)
    assert listener.trains.wait(60)
    run.stop()
    run.wait()
    first = next(event for event in listener.events if event["event"] == "epoch")
    assert {"event": "run", "state": "resumed", "folder": str(tmp_path / "run")} in listener.events and first["epoch"] > 1


def test_what_is_wrong_is_handed_on_in_one_line(tmp_path):
    listener, run = begin(tmp_path / "run", class_batch=1, pruning_ratio=0.3)
    run.wait()
    assert len(listener.ends) == 1 and "a larger pruning ratio or class batch is needed" in listener.ends[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")     # as it should: on the thread, for all to see
def test_a_listener_that_fails_ends_the_run_and_says_so(tmp_path):
    def fails(event):
        raise ValueError("no such colour")

    ends = []
    BackgroundRun(small_config("m2kd", epochs=400), tmp_path / "run", fails, ends.append).wait()
    assert ends == ["what it said could not be shown (ValueError: no such colour)"] and not rundir.is_finished(tmp_path / "run")


def test_a_killed_process_is_said_to_have_ended(tmp_path):
    listener, run = begin(tmp_path / "run", epochs=400)
    assert listener.trains.wait(60)
    run._child.kill()
    run.wait()
    assert listener.ends == ["the training process ended with status -9"]


def test_a_run_does_not_outlive_the_process_that_began_it(tmp_path):
    """As when a kernel is killed."""
    program = ("import sys; from pathlib import Path; from m2kd_lite.course.background import BackgroundRun; from m2kd_lite.config import RunConfig;"
               "run = BackgroundRun(RunConfig.make(dict(method='finetune', dataset='digits', class_batch=5, epochs=4000)),"
               "Path(sys.argv[1]), lambda event: print(run._child.pid if event['event'] == 'epoch' else 0, flush=True), print); run.wait()")
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert any(int(line) for line in parent.stdout)
    with pytest.raises(Timeout):
        FileLock(tmp_path / "run" / ".lock").acquire(timeout=0)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    FileLock(tmp_path / "run" / ".lock").acquire(timeout=60)        # which the child held while it ran

"""The live panel without a browser: a real run's events in, figure and sentences out; plain lines where nobody looks."""
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import nbformat
import pytest
from conftest import small_config
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from m2kd_lite import pictures, widgets
from m2kd_lite.pictures.plots import new_figure
from m2kd_lite.training import train
from m2kd_lite.widgets import training
from m2kd_lite.widgets.training import TrainingView, describe, render

pytestmark = pytest.mark.system


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def epoch(number, step=1, loss=0.5, phase="train"):
    return {"event": "epoch", "step": step, "steps": 2, "phase": phase, "epoch": number, "epochs": 10, "lr": 2.0, "loss": loss,
            "seconds": 1.0, "images_per_second": 1900.0}


def step(number, *by_step):
    return {"event": "step", "step": number, "steps": 2, "top1": sum(by_step) / len(by_step), "top5": 100.0,
            "accuracy_by_step": list(by_step), "seconds": 4.0}


def run_event(state):
    return {"event": "run", "state": state, "folder": "runs/one"}


def sentence(view):
    return re.fullmatch(r'<p role="status" aria-live="polite"[^>]*>(.*)</p>', view.text.value)[1]


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """All that a run of M²KD says, pruning and all."""
    said = []
    train.run(small_config("m2kd"), tmp_path_factory.mktemp("runs") / "m2kd", on_event=said.append)
    return said


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, in their order; drawing costs nothing until a test says so."""
    figures = []

    def curves(epochs, steps):
        figures.append((epochs, steps))
        return new_figure(f"A chart of {len(epochs)} epochs")[0]

    monkeypatch.setattr(training, "training_curves", curves)
    return figures


# ---- what is shown --------------------------------------------------------------------------------------------------

def test_a_run_that_has_ended_is_shown_whole(events):
    view = TrainingView()
    for event in events:
        view(event)
    last = [event for event in events if event["event"] == "step"][-1]
    assert f"Step 3 of 3 is done: top-1 accuracy {last['top1']:.1f} % on all classes seen" in sentence(view)
    assert sentence(view).endswith("The run has finished.")
    assert (view.bar.value, view.bar.max, view.bar.description) == (1, 1, "Finished")
    assert "step 3/3 finetune 1/1: loss" in view.latest.value
    assert view.figure.value.count("<img") == 1 and f"{last['top1']:.1f} %" in view.figure.value
    losses, accuracies = render(view.history).axes
    assert [len(line.get_xdata()) for line in losses.lines if line.get_linestyle() != ":"] == [2, 2, 2, 1, 1, 1]
    ends = next(line for line in accuracies.lines if line.get_label() == "all classes seen")
    assert list(ends.get_xdata()) == [3, 6, 9]
    assert list(ends.get_ydata()) == [event["top1"] for event in events if event["event"] == "step"]


def test_a_thread_of_the_kernel_may_call_it(events):
    view = TrainingView()
    thread = threading.Thread(target=lambda: [view(event) for event in events])
    thread.start()
    thread.join()
    assert sentence(view).endswith("The run has finished.")


def test_the_bar_says_what_advances():
    view = TrainingView()
    view({"event": "progress", "what": "drawing glyphs", "done": 30, "total": 100})
    assert (view.bar.description, view.bar.value, view.bar.max) == ("Drawing glyphs: 30/100", 30, 100)
    view({"event": "progress", "what": "step 1: soft targets, teacher", "done": 1, "total": 4})
    assert (view.bar.description, view.bar.value, view.bar.max) == ("Step 1: soft targets, teacher: 1/4", 1, 4)


def test_the_sentence_changes_once_a_step_and_the_figures_with_every_epoch(events):
    view, sentences, latest = TrainingView(), [], []
    view.text.observe(lambda change: sentences.append(change["new"]), "value")
    view.latest.observe(lambda change: latest.append(change["new"]), "value")
    for event in events:
        view(event)
    assert len(sentences) == 1 + 3 + 1              # the first step has begun, three are done, the run is finished
    assert len(latest) == len([event for event in events if event["event"] == "epoch"])


def test_notices_are_read_out():
    view = TrainingView()
    view({"event": "notice", "text": "begun with 2 threads"})
    view(run_event("started"))
    assert sentence(view) == "Note: begun with 2 threads. The run begins."


def test_a_repeated_epoch_counts_once_and_the_later_one_counts():
    history = [epoch(1, loss=0.9), epoch(2, loss=0.7), run_event("resumed"), epoch(2, loss=0.6), epoch(3, loss=0.5)]
    (line,) = (line for line in render(history).axes[0].lines if len(line.get_xdata()) > 2)
    assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == [0.9, 0.6, 0.5]
    told = "The run goes on where it stopped. Step 1 of 2 trains."
    assert describe(history) == told
    assert describe([*history, run_event("stopped")]) == f"{told} The run has stopped."


def test_a_resumed_run_is_drawn_where_it_goes_on():
    history = [run_event("resumed"), epoch(4, step=2), step(2, 10.0, 90.0)]
    losses, accuracies = render(history).axes
    assert list(losses.lines[0].get_xdata()) == [14] and losses.get_xlim() == (0, 20)
    assert [list(line.get_xdata()) for line in accuracies.lines[:3]] == [[20], [20], [20]]


def test_a_run_that_was_finished_before_says_so_and_has_no_chart(finished):
    folder, _ = finished("m2kd")
    view = TrainingView()
    train.run(small_config("m2kd"), folder, resume=True, on_event=view)
    assert sentence(view) == f"This run was finished before, in {folder}: nothing is trained again."
    assert view.figure.value == "" and view.bar.description == "Finished before"


def test_a_second_run_does_not_continue_the_first_ones_chart(drawn):
    view = TrainingView(Clock())
    for event in (run_event("started"), epoch(1), step(1, 90.0), run_event("finished"), run_event("started"), epoch(1)):
        view(event)
    epochs, steps = drawn[-1]
    assert len(epochs) == 1 and not steps and sentence(view) == "Step 1 of 2 trains."


def test_the_steps_own_classes_are_drawn_while_they_can_be_read():
    long = [step(number, *[50.0] * number) | {"steps": 20} for number in range(1, 12)]
    accuracies = pictures.training.training_curves([epoch(1) | {"steps": 20}], long).axes[1]
    assert [line.get_label() for line in accuracies.lines if line.get_linestyle() != ":"] == ["all classes seen"]


# ---- how often it draws ---------------------------------------------------------------------------------------------

def test_it_draws_at_most_once_a_second(drawn):
    clock = Clock()
    view = TrainingView(clock)
    for number in range(1, 11):
        view(epoch(number))
        clock.now += 0.25
    assert [len(epochs) for epochs, _ in drawn] == [1, 5, 9]


def test_it_draws_for_a_twentieth_of_the_time_at_most(monkeypatch, drawn):
    clock = Clock()
    quick = training.training_curves

    def slow(*events):
        clock.now += 0.5
        return quick(*events)

    monkeypatch.setattr(training, "training_curves", slow)
    view = TrainingView(clock)
    view(epoch(1))                      # drawn from 0.0 to 0.5: the next not before 10.5
    for clock.now, count in ((1.6, 1), (10.4, 1), (10.6, 2)):
        view(epoch(2))
        assert len(drawn) == count


def test_an_epoch_that_had_to_wait_is_drawn_without_another(drawn):
    clock = Clock()
    view = TrainingView(clock)
    view(epoch(1))
    view(epoch(2))
    clock.now = 2.0
    view({"event": "progress", "what": "step 1, train", "done": 3, "total": 10})
    view({"event": "progress", "what": "step 1, train", "done": 4, "total": 10})
    assert [len(epochs) for epochs, _ in drawn] == [1, 2]


def test_the_end_of_a_step_and_of_a_run_are_drawn_at_once(drawn):
    view = TrainingView(Clock())
    for event in (epoch(1), epoch(2), step(1, 90.0), epoch(1, step=2), run_event("finished")):
        view(event)
    assert [(len(epochs), len(steps)) for epochs, steps in drawn] == [(1, 0), (2, 1), (3, 1)]


def test_what_goes_wrong_in_drawing_is_raised(monkeypatch):
    def broken(epochs, steps):
        raise ZeroDivisionError("a broken chart")

    monkeypatch.setattr(training, "training_curves", broken)
    with pytest.raises(ZeroDivisionError, match="a broken chart"):
        TrainingView()(epoch(1))


# ---- where it is shown ----------------------------------------------------------------------------------------------

FAKE_RUN = """
for event in ({"event": "run", "state": "started", "folder": "/tmp/x"},
              {"event": "notice", "text": "drawn"},
              {"event": "step", "step": 1, "steps": 1, "top1": 90.0, "top5": 99.0, "accuracy_by_step": [90.0], "seconds": 4.0},
              {"event": "run", "state": "finished", "folder": "/tmp/x"},
              {"event": "run", "state": "already finished", "folder": "runs/y"}):
    listen(event)
"""
LINES = "drawn\nstep 1/1 done in 4 s: top-1 90.0 %, top-5 99.0 %; by step: 90.0\nrun already finished: runs/y\n"


@pytest.fixture
def two_cells():
    cells = ["from m2kd_lite import widgets\nlisten = widgets.training_panel()", FAKE_RUN]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def printed(notebook):
    """All that its cells put out, which has to be text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {(output.output_type, output.get("name")) for output in outputs} == {("stream", "stdout")}, outputs
    assert "widgets" not in notebook.metadata
    return "".join(output.text for output in outputs)


def test_nbclient_gets_plain_lines_even_below_a_persons_kernel(two_cells, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")          # as a batch inherits it that a cell starts
    assert printed(NotebookClient(two_cells, timeout=120).execute()) == LINES


def test_papermill_gets_plain_lines(two_cells, tmp_path):
    nbformat.write(two_cells, tmp_path / "two.ipynb")
    subprocess.run([sys.executable, "-m", "papermill", "two.ipynb", "out.ipynb"], cwd=tmp_path, check=True, capture_output=True)
    assert printed(nbformat.read(tmp_path / "out.ipynb", 4)) == LINES


@pytest.mark.parametrize("request_metadata, server, looks", [
    ({"cellId": "a1"}, None, True),             # JupyterLab, Notebook 7
    ({}, "voila/0.5.13", True),
    ({}, None, False),                          # nbclient, papermill, nbval
    ({}, "gunicorn/20.1", False),
])
def test_who_sent_the_cell_decides(monkeypatch, request_metadata, server, looks):
    shell = SimpleNamespace(get_parent=lambda: {"metadata": request_metadata})
    monkeypatch.setattr(training, "get_ipython", lambda: shell)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    if server:
        monkeypatch.setenv("SERVER_SOFTWARE", server)
    assert training._someone_looks() is looks


@pytest.fixture(scope="module")
def send_cell():
    """Sends a cell to a kernel as JupyterLab does, with its name; gives all messages that come back."""
    manager, client = start_new_kernel()

    def execute(source):
        message = client.session.msg("execute_request", {"code": source, "silent": False, "store_history": True,
                                                         "user_expressions": {}, "allow_stdin": False, "stop_on_error": True},
                                     metadata={"cellId": "a1"})
        client.shell_channel.send(message)
        said = []
        while not said or said[-1]["content"].get("execution_state") != "idle":
            said.append(client.get_iopub_msg(timeout=60))
        return said

    yield execute
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def widget_values(said):
    """What widgets were told to show, in its order."""
    states = [message["content"]["data"].get("state", {}) for message in said if message["msg_type"] in ("comm_open", "comm_msg")]
    return [state["value"] for state in states if isinstance(state.get("value"), str)]


def test_a_person_gets_one_panel_and_no_lines(send_cell):
    said = send_cell("from m2kd_lite import widgets\nlisten = widgets.training_panel()" + FAKE_RUN)
    shown = [message for message in said if message["msg_type"] in ("display_data", "stream", "error")]
    assert [message["msg_type"] for message in shown] == ["display_data"]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["content"]["data"]
    assert "This run was finished before, in runs/y" in widget_values(said)[-1]


def test_a_run_that_is_interrupted_says_so_and_keeps_its_chart(send_cell):
    said = send_cell("from m2kd_lite import widgets\nlisten = widgets.training_panel()\n"
                f"listen({epoch(1)})\nraise KeyboardInterrupt")
    values = widget_values(said)
    assert "The run has stopped." in values[-1] and "<img" in values[-2]
    assert [message["content"]["ename"] for message in said if message["msg_type"] == "error"] == ["KeyboardInterrupt"]
    later = send_cell("1 / 0")                       # another cell's failure is none of its business
    assert not widget_values(later)


def test_plain_python_gets_plain_lines(capsys):
    exec(FAKE_RUN, {"listen": widgets.training_panel()})
    assert capsys.readouterr().out == LINES

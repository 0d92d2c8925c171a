"""What serves the playground; what it shows is tested in tests/browser."""
import importlib.util
import sys

import pytest

from m2kd_lite import notebook, playground
from m2kd_lite.errors import BadInput, M2KDError

pytestmark = pytest.mark.system


def test_it_is_served_to_this_machine_only_and_a_callers_options_come_last():
    command = playground.command(["--port=8900"])
    assert command[:3] == [sys.executable, "-m", "voila"] and command[3].endswith("playground.ipynb")
    assert {"--Voila.ip=localhost", "--token"} <= set(command)
    assert command[-1] == "--port=8900"


def test_without_voila_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["playground"])
    with pytest.raises(SystemExit) as end:
        playground.main()
    said = capsys.readouterr().err
    assert end.value.code == M2KDError.exit_status and said.count("\n") == 1
    assert "Voilà is not installed; get it with: python -m pip install -c constraints.txt -e '.[playground]'" in said


def test_outside_a_clone_it_is_told_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "project_root", lambda: tmp_path)
    with pytest.raises(BadInput, match="playground.ipynb: not there; run this from a clone of the project"):
        playground.command([])

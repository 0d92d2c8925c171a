"""What serves the playground; what it shows is tested in tests/browser."""
import importlib.util
import sys

import pytest

from m2kd_lite import cli
from m2kd_lite.course import playground
from m2kd_lite.errors import M2KDError

pytestmark = pytest.mark.system


def test_it_is_served_to_this_machine_only_and_a_callers_options_come_last():
    command = playground.command(["--port=8900"])
    assert command[:3] == [sys.executable, "-m", "voila"] and command[3].endswith("playground.ipynb")
    assert {"--Voila.ip=localhost", "--token"} <= set(command)
    assert command[-1] == "--port=8900"


def test_without_voila_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        cli.main(["playground", "--no-browser"])
    said = capsys.readouterr().err
    assert end.value.code == M2KDError.exit_status and said.count("\n") == 1
    assert "Voilà is not installed; get it with: python -m pip install voila" in said


def test_options_of_voila_reach_it(monkeypatch):
    given = []
    monkeypatch.setattr(playground, "serve", lambda options, on_event: given.extend(options))
    with pytest.raises(SystemExit) as end:
        cli.main(["playground", "--no-browser", "--port=8900"])
    assert end.value.code == 0 and given == ["--no-browser", "--port=8900"]

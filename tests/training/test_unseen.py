"""What models say of classes to come, and what the last one still tells apart: against the run's own results, and by hand."""
import math

import pandas as pd
import pytest
import torch

from benchmarks import unseen
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import BadInput
from m2kd_lite.method.snapshots import Snapshots
from tests.conftest import small_config, stop_after


def test_rows_agree_with_the_run_and_with_a_count_by_hand(finished):
    folder, result = finished("lwf-mc")
    rows = unseen.rows_of(folder)
    assert [row["step"] for row in rows] == [1, 2, 3] and {row["of"] for row in rows} == {3}
    assert rows[0]["learnt"] == pytest.approx(result["steps"][0]["top1"])             # of step 1, its classes are all there are
    assert rows[2]["learnt"] == rows[2]["kept"] and math.isnan(rows[2]["next"])
    stream, models = ClassStream.of_run(small_config("lwf-mc")), Snapshots.load(folder / "snapshots.safetensors")
    images, labels = stream.test(3)
    second, third = (images[(labels >= first) & (labels < stop)] for first, stop in ((4, 8), (8, 10)))
    with torch.no_grad():
        said, coming, last = models.reconstruct(2)(second)[0], models.reconstruct(2)(third)[0], models.reconstruct(3)(second)[0]
    assert rows[1]["own"] == pytest.approx(said[:, 4:8].sigmoid().max(1).values.mean().item())
    assert rows[1]["next"] == pytest.approx(coming[:, 4:8].sigmoid().max(1).values.mean().item())
    right = last[:, 4:8].argmax(1) + 4 == labels[(labels >= 4) & (labels < 8)]
    assert rows[1]["kept"] == pytest.approx(100 * right.double().mean().item())


def test_an_unfinished_run_is_asked_by_the_steps_that_have_ended(tmp_path):
    config = small_config("lwf-mc")
    stop_after(1, config, tmp_path / "early")
    with pytest.raises(BadInput, match="no step of this run has ended yet"):
        unseen.rows_of(tmp_path / "early")
    stop_after(21, config, tmp_path / "later")         # ten updates an epoch: the second step
    row, = unseen.rows_of(tmp_path / "later")
    assert (row["step"], row["of"]) == (1, 1) and not math.isnan(row["next"])


def test_the_table_takes_a_run_once(finished, tmp_path, monkeypatch, capsys):
    folder, _ = finished("lwf-mc")
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["unseen", str(folder), "--bank", str(tmp_path / "table.csv")])
        unseen.main()
    assert len(pd.read_csv(tmp_path / "table.csv")) == 3 and "lwf-mc" in capsys.readouterr().out

"""The results bank: rows of a run, written and read back; the committed tables."""
from pathlib import Path

import pytest

from m2kd_lite import bank
from m2kd_lite.errors import BadInput

TABLES = sorted((Path(__file__).parents[1] / "data" / "results").glob("*.csv"))


def test_rows_of_a_run_come_back_as_they_were(finished, tmp_path):
    _, metrics = finished("m2kd")
    bank.save(bank.rows(metrics, "no head"), tmp_path / "bank.csv")
    table = bank.load(tmp_path / "bank.csv")
    assert table.step.tolist() == [1, 2, 3] and set(table.variant) == {"no head"}
    last = table.iloc[-1]
    assert last.accuracy_by_step == pytest.approx(metrics["steps"][-1]["accuracy_by_step"], abs=6e-4)
    assert last.top1 == pytest.approx(metrics["final_accuracy"], abs=6e-4)
    assert last.bytes_total == metrics["bytes"]["total"]
    assert metrics["data_sha256"].startswith(last.data_sha256)
    assert bank.confusion_matrix(last.confusion).tolist() == metrics["steps"][-1]["confusion"]
    assert table.confusion.tolist()[:-1] == ["", ""]


def test_of_a_run_in_two_banks_the_later_rows_count(finished, tmp_path):
    _, metrics = finished("m2kd")
    first, again, other = (bank.rows(metrics) for _ in range(3))
    for row in again:
        row["top1"] += 1
    for row in other:
        row["seed"] = 1
    bank.save(first + other, tmp_path / "a.csv")
    bank.save(again, tmp_path / "b.csv")
    both = bank.load_all(tmp_path / "a.csv", tmp_path / "b.csv")
    assert len(both) == 6 and both[both.seed == 0].top1.tolist() == pytest.approx([row["top1"] for row in again])
    assert len(bank.load_all()) == 0


def test_a_run_is_added_once(finished, tmp_path):
    _, metrics = finished("m2kd")
    path = tmp_path / "new" / "bank.csv"
    for _ in range(2):
        bank.add(bank.rows(metrics), path)
    assert len(bank.load(path)) == 3
    bank.add(bank.rows(metrics, "another"), path)
    assert len(bank.load(path)) == 6


def test_only_of_a_method_that_prunes_the_ratio_makes_another_run():
    row = dict.fromkeys(("variant", *bank.SETTINGS), 0) | {"pruning_ratio": 0.8}
    assert bank.key(row | {"method": "lwf-mc"}) == bank.key(row | {"method": "lwf-mc", "pruning_ratio": 0.6})
    assert bank.key(row | {"method": "m2kd"}) != bank.key(row | {"method": "m2kd", "pruning_ratio": 0.6})


@pytest.mark.parametrize("content, complaint", [(None, "there is no such results bank"), ("step,top1\n1,50\n", "no column variant")])
def test_what_is_no_bank_is_said_to_be_none(tmp_path, content, complaint):
    path = tmp_path / "bank.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=complaint):
        bank.load(path)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_a_committed_bank_agrees_with_itself(path):
    """The summary of each run follows from its rows."""
    table = bank.load(path)
    assert len(table)
    for _, run in table.groupby([*("variant", *bank.SETTINGS)]):
        run = run.sort_values("step")
        assert run.step.tolist() == list(range(1, len(run) + 1)) and run.revision.nunique() == 1
        assert run.average_incremental_accuracy.iloc[-1] == pytest.approx(run.top1.mean(), abs=2e-3)
        by_step = run.accuracy_by_step.tolist()
        falls = [max(row[j] for row in by_step[j:-1]) - by_step[-1][j] for j in range(len(by_step) - 1)]
        assert run.forgetting.iloc[-1] == pytest.approx(sum(falls) / len(falls) if falls else 0, abs=2e-3)

"""The results bank: rows of a run, written and read back; the committed tables."""
from pathlib import Path

import pytest

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.results import bank

TABLES = sorted((Path(__file__).parents[2] / "data" / "results").glob("*.csv"))


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


def test_a_run_is_known_by_what_its_method_looks_at():
    row = dict.fromkeys(("variant", *bank.SETTINGS), 0) | {"dataset": "glyphs"}
    for method, setting, another in (("lwf-mc", "pruning_ratio", False), ("m2kd", "pruning_ratio", True), ("lwf-mc", "alpha", False),
                                     ("m2kd-no-pruning", "alpha", True), ("lwf-mc", "lr", True), ("lwf-mc", "train_per_class", True)):
        assert (bank.key(row | {"method": method}) != bank.key(row | {"method": method, setting: 1})) is another
    folder = row | {"method": "lwf-mc", "dataset": "imagefolder"}
    assert bank.key(folder | {"data_sha256": "a"}) != bank.key(folder | {"data_sha256": "b"})


def test_a_configuration_and_its_row_in_a_file_are_the_same_run(finished, tmp_path):
    _, metrics = finished("m2kd")
    bank.save(bank.rows(metrics), tmp_path / "bank.csv")
    config = RunConfig.make({name: value for name, value in metrics["config"].items()} | {"precision": metrics["environment"]["precision"]})
    assert {bank.key(row) for row in bank.load(tmp_path / "bank.csv").to_dict("records")} == {bank.key({"variant": "", **config.model_dump()})}


def test_a_bank_without_the_later_columns_has_what_the_profile_says(tmp_path):
    config = RunConfig.make(dict(method="lwf-mc", class_batch=10))
    row = {"variant": "", **{name: getattr(config, name) for name in bank.ALWAYS}, **dict.fromkeys((*bank.MEASURED, *bank.PROVENANCE), 1)}
    (tmp_path / "old.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    read = bank.load(tmp_path / "old.csv").to_dict("records")[0]
    before = config.model_copy(update={"prior": 0.5})           # how outputs began before that was a setting
    assert bank.key(read) == bank.key({"variant": "", **before.model_dump()}) and read["lr"] == 2.0 and read["milestones"] == "7"


def test_profiles_are_not_mixed_unless_that_is_said(finished, tmp_path):
    rows, path = bank.rows(finished("m2kd")[1]), tmp_path / "bank.csv"
    bank.add(rows, path)
    other = [row | {"profile": "quick"} for row in rows]
    before = path.read_bytes()
    with pytest.raises(BadInput, match="would hold runs of profiles quick and smoke, which do not compare"):
        bank.add(other, path)
    assert path.read_bytes() == before
    bank.add(other, path, mix_profiles=True)
    assert len(bank.load(path)) == 6


@pytest.mark.parametrize("content, complaint", [(None, "no such results bank"), ("step,top1\n1,50\n", "no column variant")])
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

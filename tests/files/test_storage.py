"""Files are whole or absent, and say so when they are not what was written."""
import errno
import os

import pytest
import torch

from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile
from m2kd_lite.files import storage


def test_a_written_file_has_the_mode_that_other_files_get_and_nothing_temporary_is_left(tmp_path):
    storage.write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert os.stat(tmp_path / "a").st_mode == os.stat(tmp_path / "b").st_mode
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, step):
    storage.save_json(tmp_path / "a.json", {"x": 1})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, step, full)
    with pytest.raises(CannotWrite, match="a.json: cannot write: No space left on device"):
        storage.save_json(tmp_path / "a.json", {"x": 2})
    monkeypatch.undo()
    assert storage.load_json(tmp_path / "a.json") == {"x": 1} and len(list(tmp_path.iterdir())) == 1


def test_tensors_of_any_type_come_back_with_their_notes(tmp_path):
    tensors = {"f": torch.randn(2, 3), "u": torch.arange(5, dtype=torch.uint8), "i": torch.tensor(7),
               "none": torch.zeros(0, 4), "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    storage.save_tensors(tmp_path / "t.safetensors", tensors, {"k": [1, "é"]})
    back, notes = storage.load_tensors(tmp_path / "t.safetensors")
    assert notes == {"k": [1, "é"]} and back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)


def test_every_flipped_bit_of_a_json_file_is_noticed(tmp_path):
    path = tmp_path / "m.json"
    storage.save_json(path, {"top1": 41.5, "steps": [1, 2], "name": "x"})
    good = path.read_bytes()
    noticed = 0
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            path.write_bytes(bad)
            try:
                content = storage.load_json(path)
            except DamagedFile:
                noticed += 1
            else:       # white space between values may change without changing what is said
                assert content == {"top1": 41.5, "steps": [1, 2], "name": "x"}
    assert noticed > 0.9 * 8 * (len(good) - good.count(b"\n") - good.count(b" "))


def test_no_such_file_and_foreign_files(tmp_path):
    with pytest.raises(BadInput, match="none.json: cannot read"):
        storage.load_json(tmp_path / "none.json")
    for raw in (b"", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff\xfe"):
        (tmp_path / "x.json").write_bytes(raw)
        with pytest.raises(DamagedFile, match="x.json"):
            storage.load_json(tmp_path / "x.json")

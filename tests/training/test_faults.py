"""Nothing lost: damaged files, full disks, kills in the middle of a write, hostile content.

Whatever happens to a run folder, the run goes on to the same bytes as an undisturbed one, or says in one typed error what
is wrong. All runs here compute with one thread, so that a process that is killed and the one that goes on agree.
"""
import contextlib
import errno
import json
import multiprocessing
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import small_config

from m2kd_lite.data import cache as data_cache
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile, Interrupted
from m2kd_lite.files import forms, storage
from m2kd_lite.method.snapshots import Snapshots
from m2kd_lite.results.report import render
from m2kd_lite.training import rundir, train
from m2kd_lite.training.witness import Witness

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
CONFIG = small_config("m2kd", precision="fp32")
CHECKPOINT_FILES = ("state-a", "models-a", "state-b", "models-b")
KINDS = ("config.json", "models-a", "state-a", "snapshots", "metrics.json")     # every kind of file, in order of writing


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outcome(folder):
    """What a finished run came to: the snapshots' bytes, and the metrics without what clock and machine say."""
    content = storage.load_json(folder / "metrics.json")
    del content["wall_seconds"], content["environment"]
    for step in content["steps"]:
        del step["train_seconds"], step["teacher_seconds"]
    return content, (folder / "snapshots.safetensors").read_bytes()


def stop_after(batches):
    """A `should_stop` that says 130 after so many batches."""
    asked = iter(range(10_000))
    return lambda: 130 if next(asked) == batches else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(folder, outcome) of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train.run(CONFIG, folder)
    return folder, outcome(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run stopped in step 2, in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        train.run(CONFIG, folder, should_stop=stop_after(38))
    assert storage.load_tensors(folder / "checkpoint" / "state-a.safetensors")[1]["models"] == 1
    return folder


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of the stopped run, to do harm to."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def finish(folder, undisturbed):
    """Resume, and compare every byte; returns the notices. Nothing but the run's own files may be left."""
    said = []
    train.run(CONFIG, folder, resume=True, on_event=said.append)
    assert outcome(folder) == undisturbed[1]
    assert {path.name for path in folder.rglob("*")} == {path.name for path in undisturbed[0].rglob("*")}
    return [event["text"] for event in said if event["event"] == "notice"]


def load_checkpoint(folder, said=None):
    with rundir.RunFolder(folder, CONFIG, resume=True) as held:
        return held.load_checkpoint((said if said is not None else []).append, torch.device("cpu"))


# ---- damage -------------------------------------------------------------------------------------------------------


def flips(raw, count=200):
    """`count` copies of `raw` with one bit flipped each: half of them within the first 2 kB, where headers are."""
    head = min(len(raw), 2048)
    places = [i * head // (count // 2) for i in range(count // 2)] + [i * (len(raw) - 1) // (count // 2) for i in range(1, count // 2 + 1)]
    for turn, place in enumerate(places):
        bad = bytearray(raw)
        bad[place] ^= 1 << (turn % 8)
        yield bytes(bad)


def cuts(raw):
    return [raw[:length] for length in (0, 1, 7, 8, 9, len(raw) // 2, len(raw) - 1)]


@pytest.mark.parametrize("name, load", [
    ("config.json", rundir.read_config), ("metrics.json", lambda folder: rundir.read_run(folder).metrics),
    ("snapshots.safetensors", lambda folder: Snapshots.load(folder / "snapshots.safetensors").to_tensors()[1]),
    ("live.safetensors", lambda folder: [logits.tolist() for logits in Witness.load(folder / "live.safetensors").logits])])
def test_a_flipped_bit_or_a_cut_in_a_finished_run_is_an_error_never_another_content(name, load, undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run"))
    good, raw, noticed = load(folder), (folder / name).read_bytes(), 0
    for bad in [*flips(raw), *cuts(raw)]:
        (folder / name).write_bytes(bad)
        try:
            assert load(folder) == good         # as when 1e-05 becomes 1E-05
        except DamagedFile as error:
            assert name in str(error)
            noticed += 1
    assert noticed > 200


@pytest.mark.parametrize("what", CHECKPOINT_FILES)
def test_any_flipped_bit_of_one_checkpoint_file_is_noticed_and_a_whole_state_is_found(what, run):
    file = run / "checkpoint" / f"{what}.safetensors"
    serial = {generation: storage.load_tensors(run / "checkpoint" / f"state-{generation}.safetensors")[1]["serial"] for generation in "ab"}
    newest = max(serial, key=serial.get)
    expected = min(serial.values()) if what == f"state-{newest}" else serial[newest]
    raw, load = file.read_bytes(), storage.load_tensors if what.startswith("state") else Snapshots.load
    with rundir.RunFolder(run, CONFIG, resume=True) as held:
        for turn, bad in enumerate([*flips(raw), *cuts(raw)]):
            file.write_bytes(bad)
            with pytest.raises(DamagedFile, match=file.name):
                load(file)
            if turn % 20 == 0:
                said = []
                tensors, notes, past = held.load_checkpoint(said.append, torch.device("cpu"))
                assert len(said) == 1 and file.name in said[0]["text"]
                assert notes["serial"] == expected and len(past) == notes["models"]


@pytest.mark.parametrize("what", CHECKPOINT_FILES)
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_with_one_checkpoint_file_lost_the_run_ends_with_the_same_bytes(what, harm, run, undisturbed):
    file = run / "checkpoint" / f"{what}.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
        assert [text for text in finish(run, undisturbed) if file.name in text]
    else:
        file.unlink()
        finish(run, undisturbed)


@pytest.mark.parametrize("what", CHECKPOINT_FILES)
def test_the_very_first_checkpoint_survives_the_loss_of_one_file_too(what, tmp_path):
    with pytest.raises(Interrupted):
        train.run(CONFIG, tmp_path / "run", should_stop=stop_after(3))
    (tmp_path / "run" / "checkpoint" / f"{what}.safetensors").write_bytes(b"torn")
    assert load_checkpoint(tmp_path / "run")[1]["position"]["batch"] == 4


@pytest.mark.parametrize("what", CHECKPOINT_FILES)
def test_killed_between_models_and_state_then_one_file_lost_a_whole_state_is_still_found(what, run, undisturbed, monkeypatch):
    newest = load_checkpoint(run)[1]["serial"]
    real = storage.save_tensors

    def killed(path, tensors, notes):
        if path.name.startswith("state-") and notes["models"] == 2:
            raise KeyboardInterrupt
        return real(path, tensors, notes)

    monkeypatch.setattr(storage, "save_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(CONFIG, run, resume=True)
    monkeypatch.undo()
    (run / "checkpoint" / f"{what}.safetensors").write_bytes(b"torn")
    tensors, notes, past = load_checkpoint(run)
    assert notes["models"] == len(past) == 1 and notes["serial"] > newest
    if what == "models-a":
        finish(run, undisturbed)


def test_the_first_models_of_a_longer_history_are_those_that_were_there(undisturbed, run):
    whole = Snapshots.load(undisturbed[0] / "snapshots.safetensors").first(1)
    then = load_checkpoint(run)[2]
    (ours, notes), (theirs, other_notes) = whole.to_tensors(), then.to_tensors()
    assert notes == other_notes and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def tiny_cache(tmp_path, monkeypatch, images):
    """(file, read): a decoded data set in a cache of its own, and how to ask for it: gives the set and what was said."""
    monkeypatch.setenv("M2KD_LITE_CACHE", str(tmp_path / "cache"))
    made = ImageSet("tiny", tuple("abcdef"), *images, *(tensor.clone() for tensor in images))

    def read():
        said = []
        return data_cache.cached("tiny", "key", lambda: made, said.append), said

    read()
    (file,) = (tmp_path / "cache").iterdir()
    return file, read


def test_a_flipped_bit_or_a_cut_in_the_cache_is_said_and_the_images_are_made_again(tiny_cache):
    file, read = tiny_cache
    good, raw = read()[0], file.read_bytes()
    for bad in [*flips(raw), *cuts(raw)]:
        file.write_bytes(bad)
        images, said = read()
        assert "making it again" in said[0]["text"]
        assert torch.equal(images.train_images, good.train_images) and images.sha256 == good.sha256
        assert file.read_bytes() == raw


# ---- kills --------------------------------------------------------------------------------------------------------


def doomed(folder, kind, moment, threads=1):
    """Run in a process of its own, which kills itself at the first write of a file of this kind."""
    torch.set_num_threads(threads)
    real = {"fsync": os.fsync, "replace": os.replace}

    def fsync(handle):
        real["fsync"](handle)
        if moment == "written" and f".{kind}" in os.readlink(f"/proc/self/fd/{handle}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(source, target):
        real["replace"](source, target)
        if moment == "renamed" and Path(target).name.startswith(kind):
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync, os.replace = fsync, replace
    train.run(CONFIG, folder, resume=True)


@pytest.fixture(scope="module")
def processes():
    """Processes forked from one that has everything loaded and has computed nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods() or not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs forked processes and /proc")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["m2kd_lite.training.train", "sklearn.datasets", "torch._dynamo"])
    return context


@pytest.mark.parametrize("moment", ["written", "renamed"])
def test_killed_around_the_rename_of_every_kind_of_file_the_run_ends_with_the_same_bytes(moment, processes, tmp_path, undisturbed):
    """One run, killed at each kind of file in turn: a process resumes what the one before it left."""
    left = []
    for kind in KINDS:
        process = processes.Process(target=doomed, args=(tmp_path / "run", kind, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, kind
        left.append([path.name for path in tmp_path.rglob(".*.tmp")])
    if moment == "renamed":
        assert left == [[]] * 5 and rundir.is_finished(tmp_path / "run")
    else:       # each time one file, which the next process removed
        assert all(len(names) == 1 and names[0].startswith(f".{kind}") for names, kind in zip(left, KINDS, strict=True))
    finish(tmp_path / "run", undisturbed)


def test_a_run_killed_before_its_settings_were_written_is_begun_by_the_same_command(tmp_path, undisturbed):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".config.json.abcd1234.tmp").write_text("{")
    finish(folder, undisturbed)


def test_only_leftovers_of_our_own_files_are_removed_and_only_from_a_run_folder(run, tmp_path):
    ours = [run / ".metrics.json.ab_d1234.tmp", run / ".snapshots.safetensors.abcdefgh.tmp",
            run / "checkpoint" / ".state-a.safetensors.abcdefgh.tmp", run / "checkpoint" / ".models-b.safetensors.abcdefgh.tmp"]
    theirs = [run / ".notes.txt.abcdefgh.tmp", run / ".metrics.json.tmp", run / ".metrics.json.ABCDEFGH.tmp",
              run / "metrics.json.abcdefgh.tmp", run / ".state-a.safetensors.abcdefgh.tmp", run / "sub.tmp"]
    foreign = tmp_path / "elsewhere" / ".metrics.json.abcdefgh.tmp"
    foreign.parent.mkdir()
    for path in [*ours, *theirs, foreign]:
        path.write_text("x")
    (run / ".config.json.abcdefgh.tmp").symlink_to(foreign)
    load_checkpoint(run)
    assert not [path for path in ours if path.exists()]
    assert all(path.exists() for path in [*theirs, foreign, run / ".config.json.abcdefgh.tmp"])
    with pytest.raises(BadInput, match="not a run folder"):
        rundir.RunFolder(foreign.parent, CONFIG, resume=True)
    assert foreign.exists() and len(list(foreign.parent.iterdir())) == 1


def test_half_a_line_of_the_log_does_not_spoil_the_next_one(run):
    lines = (run / "events.jsonl").read_text()
    (run / "events.jsonl").write_text(lines + '{"event": "epo')
    with rundir.RunFolder(run, CONFIG, resume=True) as held:
        held.log({"event": "epoch"})
    assert (run / "events.jsonl").read_text() == lines + '{"event": "epoch"}\n'


def test_benchmark_of_kills_kills_mid_write_and_mid_prune_and_finds_no_difference():
    done = subprocess.run([sys.executable, "-m", "benchmarks.kills", "--kills", "6", "--small"], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {line.split(maxsplit=1)[1]: int(line.split()[0]) for line in done.stdout.splitlines() if re.match(r" +\d+ ", line)}
    assert sum(counts.values()) >= 6 and "6 kills over" in done.stdout
    assert any(place.startswith("with half a file written") for place in counts) and counts["in the middle of a prune"] >= 1


def test_benchmark_of_kills_ends_with_status_1_at_a_difference(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import kills
    monkeypatch.setattr(kills, "run", lambda *arguments, counts_to=None, **options: counts_to.write_text('{"after a rename": 1}') * 0 if counts_to else 0)
    monkeypatch.setattr(kills, "outcome", lambda out: out.name)         # no two folders the same
    with pytest.raises(SystemExit, match="differs from the undisturbed run"):
        kills.main(["--kills", "2"])


# ---- disks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own in memory: (folder, how to mount it again with other options)."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)

    try:
        made = mount("-t", "tmpfs", "-o", "size=12m", "tmpfs")
    except OSError as error:
        pytest.skip(f"no mount command: {error}")
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    yield folder, mount
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Use up all space with one file; removing it frees the space again."""
    with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return folder / "filler"


def test_a_disk_full_from_the_start_is_said_and_the_same_call_goes_on_once_there_is_space(disk, undisturbed):
    folder, _ = disk
    filler = fill(folder)
    with pytest.raises(CannotWrite, match="config.json: cannot write: No space left") as kept:
        train.run(CONFIG, folder / "run")
    filler.unlink()
    assert not list(folder.glob("run/.*.tmp"))
    train.run(CONFIG, folder / "run")               # with the error and its traceback still in hand, as in a notebook
    assert outcome(folder / "run") == undisturbed[1] and kept.value.exit_status == 1


@pytest.mark.parametrize("at", ["epoch 1", "step 2", "finished"])
def test_a_disk_that_fills_up_later_costs_nothing_that_was_saved(at, disk, undisturbed):
    folder, _ = disk

    def on_event(event):
        if at == f"{event['event']} {event.get('step')}" and not (folder / "filler").exists():
            fill(folder)

    real = Snapshots.save
    if at == "finished":
        on_event = [].append

        def save(self, path):
            if path.name == "snapshots.safetensors" and not (folder / "filler").exists():
                fill(folder)
            return real(self, path)
        Snapshots.save = save
    try:
        with pytest.raises(CannotWrite, match="No space left on device"):
            train.run(CONFIG, folder / "run", on_event=on_event)
    finally:
        Snapshots.save = real
    assert not (folder / "run" / "metrics.json").exists()
    (folder / "filler").unlink()
    finish(folder / "run", undisturbed)


def test_a_read_only_folder_is_one_clear_error_and_the_run_goes_on_later(disk, run, undisturbed):
    folder, mount = disk
    shutil.move(run, folder / "run")
    assert mount("-o", "remount,ro").returncode == 0
    for out in (folder / "run", folder / "new"):
        with pytest.raises(BadInput, match="cannot write there .Read-only file system"):
            train.run(CONFIG, out, resume=True)
    assert mount("-o", "remount,rw").returncode == 0
    finish(folder / "run", undisturbed)
    assert mount("-o", "remount,ro").returncode == 0
    assert train.run(CONFIG, folder / "run", resume=True) == rundir.read_run(folder / "run").metrics      # reading needs no more


def test_a_folder_that_turns_read_only_under_a_run_is_one_clear_error_and_costs_nothing(disk, undisturbed):
    folder, mount = disk
    checkpoint = str(folder / "run" / "checkpoint")     # of the whole folder the system would not let us: the lock is open

    def on_event(event):
        if event["event"] == "step" and event["step"] == 2:
            subprocess.run(["mount", "--bind", checkpoint, checkpoint], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", checkpoint], check=True)

    with pytest.raises(CannotWrite, match="checkpoint/.*Read-only file system"):
        train.run(CONFIG, folder / "run", on_event=on_event)
    subprocess.run(["umount", checkpoint], check=True)
    finish(folder / "run", undisturbed)


def test_where_even_the_temporary_file_cannot_be_removed_the_error_is_still_ours(tmp_path, monkeypatch):
    def gone(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(storage.os, "fsync", gone)
    monkeypatch.setattr(storage.Path, "unlink", gone)
    with pytest.raises(CannotWrite, match="a.json: cannot write: Read-only file system"):
        storage.save_json(tmp_path / "a.json", {})


def test_a_finished_run_whose_checkpoint_cannot_be_removed_is_finished(tmp_path, undisturbed, monkeypatch):
    def gone(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(rundir.Path, "rmdir", gone)
    train.run(CONFIG, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed[1]


def test_an_impossible_name_is_one_clear_error(tmp_path):
    with pytest.raises(BadInput, match="cannot be used .File name too long"):
        train.run(CONFIG, tmp_path / ("x" * 300))


# ---- two writers, other settings ----------------------------------------------------------------------------------


def cli(*arguments, **options):
    settings = [f"--{name.replace('_', '-')}={','.join(map(str, value)) if isinstance(value, list) else value}"
                for name, value in CONFIG.model_dump(mode="json").items() if value is not None]
    command = [sys.executable, "-m", "m2kd_lite.cli", *arguments, *([] if "--resume" in arguments else settings)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def test_a_second_process_in_the_folder_is_refused_and_sigterm_names_the_command_that_goes_on(tmp_path, undisturbed):
    first = cli("run", "--out", str(tmp_path / "run"))
    wait_for(tmp_path / "run" / "config.json", first)
    first.send_signal(signal.SIGSTOP)               # it holds the folder for as long as the second one looks
    second = cli("run", "--out", str(tmp_path / "run"), "--resume")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2 and "another run is writing there" in said and "Traceback" not in said
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 143
    words = shlex.split(said.split("go on with: m2kd-lite ")[1].splitlines()[0])
    assert words == ["run", "--out", str(tmp_path / "run"), "--resume"] and load_checkpoint(tmp_path / "run")
    finish(tmp_path / "run", undisturbed)


def test_a_folder_that_another_run_took_meanwhile_is_looked_at_again(tmp_path, monkeypatch):
    """Between the first look and the lock, another process begins, or finishes, a run there."""
    other = small_config("m2kd", precision="fp32", seed=7)
    real = rundir.FileLock.acquire

    def late(self, *arguments, **options):
        storage.save_json(tmp_path / "run" / "config.json", {"schema": 1, "config": other.model_dump(mode="json")})
        return real(self, *arguments, **options)

    monkeypatch.setattr(rundir.FileLock, "acquire", late)
    with pytest.raises(BadInput, match="--seed 0: not allowed with --resume"):
        rundir.RunFolder(tmp_path / "run", CONFIG, resume=True)
    monkeypatch.undo()
    assert rundir.read_config(tmp_path / "run") == other
    storage.save_json(tmp_path / "run" / "metrics.json", {})
    with pytest.raises(BadInput, match="finished this run in the meantime"):
        rundir.RunFolder(tmp_path / "run", other, resume=True)


def test_a_folder_is_let_go_when_it_cannot_be_begun(tmp_path, monkeypatch):
    def full(*arguments):
        raise CannotWrite("full")

    monkeypatch.setattr(rundir.storage, "save_json", full)
    with pytest.raises(CannotWrite) as kept:
        rundir.RunFolder(tmp_path / "run", CONFIG, resume=False)
    monkeypatch.undo()
    with rundir.RunFolder(tmp_path / "run", CONFIG, resume=False):
        assert kept.value


# ---- hostile files ------------------------------------------------------------------------------------------------

FOREIGN = [b"", b"{}", b"[]", b"null", b"\xff" * 64, pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(50),
           (2**63 - 1).to_bytes(8, "little") + b"{}", (2**40).to_bytes(8, "little") + b"{}", b"[" * 200_000,
           b'{"sha256": ' + b'{"a": ' * 5_000 + b"1" + b"}" * 5_001, b'{"a": NaN, "sha256": "x"}', b'{"a": 1e999, "sha256": null}',
           b'{"sha256": ["x"]}', b'{"a": ' + b"9" * 5_000 + b', "sha256": "x"}']


@pytest.mark.parametrize("raw", FOREIGN, ids=range(len(FOREIGN)))
def test_foreign_content_in_any_file_is_called_damaged(raw, run, undisturbed, tmp_path):
    finished = Path(shutil.copytree(undisturbed[0], tmp_path / "finished"))
    for file, load in [(finished / "metrics.json", lambda: rundir.read_run(finished)),
                       (finished / "snapshots.safetensors", lambda: Snapshots.load(finished / "snapshots.safetensors")),
                       (finished / "live.safetensors", lambda: Witness.load(finished / "live.safetensors")),
                       (finished / "config.json", lambda: rundir.read_config(finished))]:
        file.write_bytes(raw)
        with pytest.raises(DamagedFile, match=file.name):
            load()
    for name in CHECKPOINT_FILES:
        (run / "checkpoint" / f"{name}.safetensors").write_bytes(raw)
    with pytest.raises(DamagedFile, match="state-a.*state-b"):
        load_checkpoint(run)


@pytest.mark.parametrize("config", [
    None, [], "x", 7, [["epochs", 1]], {"epochs": "9" * 5000}, {"epochs": [1]}, {"profile": []}, {"profile": {"a": 1}}, {"profile": "../.."},
    {"method": "../../x"}, {"class_batch": {}}, {"milestones": [[]]}, {"milestones": "x" * 100_000}, {"nothing": 1}, {"seed": 2**80},
    {"dataset": "imagefolder"}, {"lr": "nan"}, {"": 1}])
def test_settings_of_the_wrong_form_are_refused_by_name(config, tmp_path):
    storage.save_json(tmp_path / "config.json", {"schema": 1, "config": config})
    with pytest.raises((DamagedFile, BadInput), match="config.json: "):
        rundir.read_config(tmp_path)


@pytest.mark.parametrize("change", [
    {"steps": []}, {"steps": None}, {"steps": "abc"}, {"steps": [{}]}, {"bytes": {}}, {"bytes": []}, {"environment": []}, {"schema": 2},
    {"average_incremental_accuracy": "<script>"}, {"wall_seconds": None}, {"class_names": 3}, {"data_sha256": 5}, {"config": {}},
    {"forgetting": [1]}, ("steps", 0, "confusion", [[1, 2]]), ("steps", 0, "accuracy_by_step", []), ("steps", 1, "step", 1),
    ("steps", 2, "top1", "41"), ("steps", 0, "classes_seen", -1), ("bytes", "per_step", []), ("bytes", "per_step", 0, "mask", "many"),
    {"environments": [1]}, ("environments", 0, "since", {}), ("environments", 0, "since", "step", "two")])
def test_results_of_the_wrong_form_are_refused_before_a_report_shows_them(change, undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run"))
    content = storage.load_json(folder / "metrics.json")
    assert forms.misfit(forms.Metrics, content) == ""
    storage.save_json(folder / "metrics.json", changed(content, change))
    with pytest.raises(DamagedFile, match="metrics.json: ") as error:
        render([rundir.read_run(folder)])
    assert "\n" not in str(error.value)


def changed(content, change):
    """A copy with some keys replaced, or with one value deep inside."""
    content = json.loads(json.dumps(content))
    if isinstance(change, dict):
        return content | change
    *path, last, value = change
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    return content


NOTES = [{"serial": "9"}, {"serial": True}, {"serial": -1}, {"models": None}, {"models": -1}, {"models": 99}, {"results": {}}, {"results": "ab"}, {"results": []},
         {"results": [{}]}, {"seconds": 3}, {"seconds": {"train": 1.0}}, {"step_loss": "x"}, {"data_sha256": 7}, {"arithmetic": 2}, {"position": None},
         {"position": {"step": 2}}, ("position", "phase", "../../x"), ("position", "phase", 1), ("position", "step", 0), ("position", "step", 3),
         ("position", "step", 10**30), ("position", "batch", -1), ("position", "epoch", 0.5), ("position", "batch", "1"), ("results", 0, "bytes", None)]


def tamper(run, change_notes=lambda notes: notes, change_tensors=lambda tensors: tensors, what="state"):
    """Write both generations anew, with fitting digests."""
    for generation in "ab":
        file = run / "checkpoint" / f"{what}-{generation}.safetensors"
        tensors, notes = storage.load_tensors(file)
        storage.save_tensors(file, change_tensors(tensors), change_notes(notes))


@pytest.mark.parametrize("change", NOTES, ids=str)
def test_notes_of_a_checkpoint_that_no_run_wrote_are_refused(change, run, tmp_path):
    tamper(run, lambda notes: changed(notes, change))
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(DamagedFile, match="state-a.*state-b") as error:
        train.run(CONFIG, run, resume=True)
    assert "\n" not in str(error.value) and {path for path in tmp_path.rglob("*")} == before


TENSORS = {
    "none": lambda t: {},
    "no network": lambda t: {n: v for n, v in t.items() if not n.startswith("net/")},
    "no head": lambda t: {n: v for n, v in t.items() if n != "net/main.weight"},
    "no masks": lambda t: {n: v for n, v in t.items() if not n.startswith("masks/")},
    "no loss": lambda t: {n: v for n, v in t.items() if n != "loss/sum"},
    "half the momenta": lambda t: {n: v for n, v in t.items() if n != "momenta/main.bias"},
    "a foreign group": lambda t: t | {"../../x/y": torch.zeros(1)},
    "a foreign parameter": lambda t: t | {"net/extra": torch.zeros(1)},
    "momenta that broadcast": lambda t: t | {"momenta/main.weight": torch.zeros(1)},
    "masks of another shape": lambda t: t | {n: v[:1] for n, v in t.items() if n.startswith("masks/")},
    "masks of another type": lambda t: t | {n: v.float() for n, v in t.items() if n.startswith("masks/")},
    "a loss that is no number": lambda t: t | {"loss/sum": torch.zeros(3, dtype=torch.float64)},
    "wider heads": lambda t: t | {n: torch.cat([v, v]) for n, v in t.items() if ".bias" in n or "main.weight" in n or "auxiliary.weight" in n},
    "a head without rows": lambda t: t | {"net/main.weight": torch.tensor(1.0)},
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_a_checkpoint_that_this_run_did_not_write_are_refused(name, run):
    tamper(run, change_tensors=TENSORS[name])
    with pytest.raises(DamagedFile, match="checkpoint") as error:
        train.run(CONFIG, run, resume=True)
    assert "\n" not in str(error.value)


def test_models_of_another_run_are_refused(run):
    tamper(run, lambda notes: notes | {"notes": notes["notes"] | {"class_names": list("jihgfedcba")}}, what="models")
    with pytest.raises(DamagedFile, match="its models are of another run"):
        train.run(CONFIG, run, resume=True)


@pytest.mark.parametrize("change", [
    {"notes": None}, {"notes": [1]}, {"classes": None}, {"classes": [4, 8, 2**70]}, {"classes": [10**12] * 3}, {"classes": [4.0, 8, 10]}, {"classes": [4, 8, 10] * 1000},
    {"channels": 10**9}, {"channels": 2**70}, {"channels": 0}, {"channels": -1}, {"channels": 1.0}, {"backbone": ["resnet8"]}, {"backbone": None},
    {"auxiliary": "no"}, {"masked": []}, {"format": None}], ids=str)
def test_notes_of_snapshots_that_no_run_wrote_are_refused(change, undisturbed, tmp_path):
    tensors, notes = storage.load_tensors(undisturbed[0] / "snapshots.safetensors")
    storage.save_tensors(tmp_path / "s.safetensors", tensors, notes | change)
    with pytest.raises(DamagedFile, match="s.safetensors: not a snapshots file") as error:
        Snapshots.load(tmp_path / "s.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prefix", ["weights/", "shared/", "step001/", "step002/mask", "step003/heads"])
@pytest.mark.parametrize("harm", ["missing", "scalar", "another shape", "another type"])
def test_tensors_of_snapshots_that_no_run_wrote_are_refused(prefix, harm, undisturbed, tmp_path):
    tensors, notes = storage.load_tensors(undisturbed[0] / "snapshots.safetensors")
    for name in [name for name in tensors if name.startswith(prefix)]:
        tensor = tensors.pop(name)
        if harm != "missing":
            tensors[name] = {"scalar": torch.tensor(1.0), "another shape": tensor[None, :1], "another type": tensor.double()}[harm]
    storage.save_tensors(tmp_path / "s.safetensors", tensors, notes)
    with pytest.raises(DamagedFile):
        past = Snapshots.load(tmp_path / "s.safetensors")
        for step in (1, 2, 3):
            past.reconstruct(step)


@pytest.mark.parametrize("change", [{"class_names": None}, {"class_names": 3}, {"class_names": list(range(6))}, {"data_sha256": 7}, {"left_out": None}, {"remarks": None}, {"key": ["key"]}, {"key": "other"}])
def test_notes_of_a_cache_that_we_did_not_write_are_said_and_made_again(change, tiny_cache):
    file, read = tiny_cache
    tensors, notes = storage.load_tensors(file)
    storage.save_tensors(file, tensors, notes | change)
    images, said = read()
    assert "making it again" in said[0]["text"] and images.class_names == tuple("abcdef")


@pytest.mark.parametrize("name, bad", [
    ("train_images", torch.zeros(24, dtype=torch.uint8)), ("test_images", torch.zeros(24, 3, 32, 32)),
    ("train_labels", torch.full((24,), 6)), ("train_labels", torch.full((24,), -1)), ("test_labels", torch.zeros(23, dtype=torch.int64)),
    ("train_labels", torch.zeros(24)), ("test_images", torch.zeros(24, 3, 16, 16, dtype=torch.uint8))])
def test_images_of_a_cache_that_we_did_not_write_are_said_and_made_again(name, bad, tiny_cache):
    file, read = tiny_cache
    tensors, notes = storage.load_tensors(file)
    storage.save_tensors(file, tensors | {name: bad}, notes)
    images, said = read()
    assert "making it again" in said[0]["text"] and getattr(images, name).shape[0] == 24


def test_notes_must_be_an_object(tmp_path):
    storage.save_tensors(tmp_path / "t.safetensors", {}, [1])
    with pytest.raises(DamagedFile):
        storage.load_tensors(tmp_path / "t.safetensors")


def test_no_source_file_unpickles_evaluates_or_unpacks_without_a_filter():
    forbidden = (r"\bpickle\.(load|loads|Unpickler)\b|\bimport (c?[pP]ickle|dill|shelve|marshal)\b|(?<![\w.])(torch|joblib|numpy|np)\.load\(|allow_pickle=True|"
                 r"(?<![\w.])(eval|exec)\(|yaml\.(load|unsafe_load|full_load)\(|\.extractall\((?!.*filter=)|weights_only=False|os\.system\(|shell=True")
    assert re.search(forbidden, "torch.load(path)") and re.search(forbidden, "tar.extractall(path)")
    for path in ROOT.glob("m2kd_lite/**/*.py"):
        found = re.search(forbidden, path.read_text())
        assert not found, f"{path.name}: {found[0]}"

"""Files that mean harm: each under 1 MB, read with 2 GB of memory; names that would reach a terminal as commands; readers under fuzz."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import memory
from PIL import Image
from rich.console import Console

from m2kd_lite import cli, data
from m2kd_lite.errors import BadInput, printable
from m2kd_lite.results import bank
from m2kd_lite.training import progress
from tests.files.hostile import CASES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of each file, all read by one process that may have 2 GB."""
    done = subprocess.run([sys.executable, "-m", "tests.files.hostile", str(tmp_path_factory.mktemp("hostile"))], cwd=ROOT, text=True,
                          capture_output=True, timeout=300, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout)


@pytest.mark.system
@pytest.mark.parametrize("name", CASES)
def test_a_small_file_cannot_fill_the_machine(name, outcomes):
    outcome = outcomes[name]
    assert outcome["bytes"] < 1_000_000
    assert outcome["kind"] in ("BadInput", "DamagedFile", "M2KDError", "ValueError", "read"), outcome["text"]
    assert "\n" not in outcome["text"] and outcome["text"] and outcome["seconds"] < 20 and outcome["peak_mb"] < 1500


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counted otherwise where there is no /proc")
def test_memory_is_counted_from_the_beginning_of_the_program_not_of_its_parent():
    assert memory.peak_mb() > 200           # this process has loaded torch
    done = subprocess.run([sys.executable, "-c", "from benchmarks import memory; print(memory.peak_mb())"], cwd=ROOT, text=True, capture_output=True, check=True)
    assert 1 < float(done.stdout) < 100


@pytest.mark.system
@pytest.mark.parametrize("name, says", [
    ("snapshots_of_sixteen_million_classes", "packed bytes are said to hold 4362080000"),
    ("snapshots_of_many_steps_each_of_a_size_that_one_might_have", "are said to hold"),
    ("a_sweep_of_aliases_of_aliases", "with its aliases written out it is too long"), ("a_sweep_that_contains_itself", "too long"),
    ("a_sweep_whose_grid_is_aliases", "asks for 1000000000000000000 cells"), ("a_bank_of_a_hundred_thousand_columns", "it has 50000 columns"),
    ("a_picture_that_is_as_large_as_pillow_allows_png", "13000x13000 pixels"), ("a_picture_of_one_pixel_by_sixty_thousand_png", "1x60000 pixels")])
def test_what_was_claimed_is_said(name, says, outcomes):
    assert says in outcomes[name]["text"]


def test_honest_snapshots_of_a_network_that_was_never_trained_are_read(tmp_path):
    from m2kd_lite.method.nets import IncrementalNet
    from m2kd_lite.method.snapshots import Snapshots
    net, past = IncrementalNet("resnet8", 3, True, seed=0), Snapshots("resnet8", 3, True)
    for step in range(1, 4):
        net.grow_heads(1000 * step, step)
        net.main.weight.data.zero_()            # packs to nothing
        past.add(net, {})
    past.save(tmp_path / "s.safetensors")
    assert len(Snapshots.load(tmp_path / "s.safetensors")) == 3


# ---- names ----------------------------------------------------------------------------------------------------------------

CLEARS = "\x1b[2J\x1b[H"           # clears the screen
NAMES = [f"{CLEARS}gone.png", "bell\x07.png", "two\nlines.png", "turned\u202egnp.exe", "c1\x9b2J.png", "back\r.png"]


def controls(text):
    """The characters that a terminal would obey, or a reader be fooled by."""
    return [char for char in text if char != "\n" and not char.isprintable()]


def test_printable_keeps_what_can_be_read():
    for text in ("ant", "Ä é 猫 🐈", "क\u094d\u200dष", "👩\u200d🔬", "a b"):
        assert printable(text) == text
    assert printable("a\nb") == "a\nb" and printable("a\nb", lines=False) == "a\\nb"
    assert printable("\x1b[2J") == "\\x1b[2J" and printable("\u202e") == "\\u202e" and printable("\udcff") == "\\udcff"


@pytest.fixture
def trap(tmp_path):
    """A tree whose files, and one of whose classes, are named to be obeyed."""
    root = tmp_path / "tree"
    for part in ("train", "test"):
        for name in ("ant", f"bee{CLEARS}"):
            (root / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), "red").save(root / part / name / "1.png")
    for name in NAMES:
        (root / "train" / "ant" / name).write_bytes(b"no image")
    (root / "train" / os.fsdecode(b"not utf-8 \xff.png")).write_bytes(b"no image")
    return root


def test_names_reach_neither_terminal_nor_log_as_commands(trap, capfd):
    with pytest.raises(SystemExit) as status:
        cli.main(["data", "check", "imagefolder", "--data-root", str(trap)])
    out, err = capfd.readouterr()
    assert status.value.code == 1 and not controls(out + err)
    assert "\\x1b[2J\\x1b[Hgone.png" in out and "two\\nlines.png" in out and "\\udcff" in out
    images = data.load("imagefolder", str(trap))
    assert not controls("".join(images.class_names)) and images.class_names[1] == "bee\\x1b[2J\\x1b[H"


def test_a_runs_notices_on_a_terminal_and_in_a_notebook_are_escaped(trap, tmp_path):
    said, screen = [], tmp_path / "screen"
    with open(screen, "w", encoding="utf-8") as file, progress.terminal(Console(file=file, force_terminal=False)) as listen:
        data.load("imagefolder", str(trap), listen)
    data.load("imagefolder", str(trap), progress.plain_lines(said.append))
    assert "left out" in screen.read_text() and not controls(screen.read_text()) and said and not controls("".join(said))


def test_an_error_that_repeats_a_name_is_escaped_where_it_is_shown(tmp_path, capfd):
    with pytest.raises(SystemExit):
        cli.main(["data", "check", "imagefolder", "--data-root", str(tmp_path / f"{CLEARS}none")])
    assert not controls(capfd.readouterr().err)
    assert not controls("".join(BadInput(f"{CLEARS}: no")._render_traceback_()))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0", f"{CLEARS}x"])
def test_cells_of_a_bank_are_no_formulas_and_come_back(text, finished, tmp_path):
    rows = [row | {"variant": text, "device": text} for row in bank.rows(finished("m2kd")[1])]
    bank.save(rows, tmp_path / "bank.csv")
    raw = (tmp_path / "bank.csv").read_text()
    cells = [cell.strip('"') for line in raw.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t")) or cell.startswith("-") and not cell[1:2].isdigit()]
    assert "-1," not in raw or text != "-1" or "'-1," in raw
    assert not controls(raw) and set(bank.load(tmp_path / "bank.csv")["variant"]) == {printable(text, lines=False)}


# ---- fuzz -----------------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_readers_under_fuzz_raise_nothing_but_what_they_name():
    done = subprocess.run([sys.executable, "-m", "benchmarks.fuzz", "--seconds", "20"], cwd=ROOT, text=True, capture_output=True, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "files read under fuzz" in done.stdout

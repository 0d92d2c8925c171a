"""The command line as a person meets it: separate processes, exit statuses, one clear line."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import small_config

from m2kd_lite import cli
from m2kd_lite.config import RunConfig
from m2kd_lite.files import storage

pytestmark = pytest.mark.system

SMALL = ["--dataset", "digits", "--class-batch", "5", "--profile", "smoke"]


def call(capsys, *arguments):
    """Run the command line in this process: (status, standard output, standard error)."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
    finally:
        signal.signal(signal.SIGINT, handlers[0]), signal.signal(signal.SIGTERM, handlers[1])
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


BAD_INPUT = [
    # arguments, and what the one line must say: the option, the value, what is allowed
    (["run"], "--out: missing"),
    (["run", "--out"], "'--out' requires an argument"),
    (["run", "--out", "{new}", "--method", "lwf"], "--method lwf: not allowed; give one of finetune, lwf-mc"),
    (["run", "--out", "{new}", "--dataset", "mnist"], "--dataset mnist: not allowed; give one of glyphs"),
    (["run", "--out", "{new}", "--class-batch", "0"], "--class-batch 0: not allowed; give a whole number, 1 or more"),
    (["run", "--out", "{new}", "--class-batch", "2.5"], "--class-batch 2.5: not allowed"),
    (["run", "--out", "{new}", "--class-batch", "11", "--dataset", "digits"], "--class-batch 11: not allowed; give a whole number from 1 to 10"),
    (["run", "--out", "{new}", "--class-order", "alphabetical"], "--class-order alphabetical: not allowed; give one of natural"),
    (["run", "--out", "{new}", "--backbone", "vgg"], "--backbone vgg: not allowed; give one of resnet8"),
    (["run", "--out", "{new}", "--epochs", "0"], "--epochs 0: not allowed; give a whole number, 1 or more"),
    (["run", "--out", "{new}", "--epochs", "many"], "--epochs many: not allowed"),
    (["run", "--out", "{new}", "--finetune-epochs", "-1"], "--finetune-epochs -1: not allowed"),
    (["run", "--out", "{new}", "--lr", "0"], "--lr 0: not allowed; give a number above 0"),
    (["run", "--out", "{new}", "--lr", "nan"], "--lr nan: not allowed"),
    (["run", "--out", "{new}", "--lr", "inf"], "--lr inf: not allowed"),
    (["run", "--out", "{new}", "--milestones", "8,4"], "--milestones 8,4: not allowed; give increasing whole numbers"),
    (["run", "--out", "{new}", "--milestones", "4", "--epochs", "4"], "--milestones 4: not allowed"),
    (["run", "--out", "{new}", "--milestones", "a,b"], "--milestones a,b: not allowed"),
    (["run", "--out", "{new}", "--gamma", "1.5"], "--gamma 1.5: not allowed; give a number above 0, at most 1"),
    (["run", "--out", "{new}", "--batch-size", "1"], "--batch-size 1: not allowed; give a whole number, 2 or more"),
    (["run", "--out", "{new}", "--weight-decay", "-1"], "--weight-decay -1: not allowed"),
    (["run", "--out", "{new}", "--momentum", "1"], "--momentum 1: not allowed; give a number from 0, below 1"),
    (["run", "--out", "{new}", "--pruning-ratio", "1"], "--pruning-ratio 1: not allowed; give a number above 0 and below 1"),
    (["run", "--out", "{new}", "--alpha", "-0.5"], "--alpha -0.5: not allowed"),
    (["run", "--out", "{new}", "--lambda-aux", "x"], "--lambda-aux x: not allowed"),
    (["run", "--out", "{new}", "--exemplars", "2000"], "--exemplars 2000: not allowed; give 0: --method m2kd keeps no exemplars"),
    (["run", "--out", "{new}", "--train-per-class", "0"], "--train-per-class 0: not allowed"),
    (["run", "--out", "{new}", "--test-per-class", "none"], "--test-per-class none: not allowed"),
    (["run", "--out", "{new}", "--seed", "-1"], "--seed -1: not allowed; give a whole number from 0"),
    (["run", "--out", "{new}", "--device", "tpu"], "--device tpu: not allowed; give auto, cpu, cuda or cuda:N"),
    (["run", "--out", "{new}", "--precision", "fp16"], "--precision fp16: not allowed; give one of auto, fp32, tf32, bf16, bf16-compiled"),
    (["run", "--out", "{new}", "--precision", "tf32", "--device", "cpu"], "--precision tf32: not allowed with --device cpu"),
    (["run", "--out", "{new}", "--profile", "huge"], "--profile huge: not allowed; give one of smoke, quick, paper, icarl-recipe"),
    (["run", "--out", "{new}", "--dataset", "imagefolder"], "--data-root (none): not allowed"),
    (["run", "--out", "{new}", "--dataset", "imagefolder", "--data-root", "{new}"], "not allowed; give a folder that exists"),
    (["run", "--out", "{new}", "--dataset", "imagefolder", "--data-root", "{empty}"], "it must hold a folder train"),
    (["run", "--out", "{new}", "--dataset", "glyphs", "--data-root", "{empty}"], "not allowed; give nothing: --dataset glyphs is embedded"),
    (["run", "--out", "{new}", "--colour", "red"], "No such option: --colour"),
    (["run", "--out", "{full}"], "exists already and is never overwritten"),
    (["run", "--out", "{full}", "--resume"], "not a run folder"),
    (["run", "--out", "{file}", "--resume"], "not a run folder"),
    (["train"], "No such command 'train'"),
    (["report", "--out", "{new}.html"], "DIR: missing"),
    (["report", "{empty}"], "--out: missing"),
    (["report", "{empty}", "--out", "{new}.html"], "not a run folder"),
    (["report", "{empty}", "--out", "{new}.pdf"], "give a file that ends in .html"),
    (["report", "{empty}", "{empty}", "--out", "{new}.html"], "named twice"),
    (["reconstruct"], "RUN_DIR: missing"),
    (["reconstruct", "{empty}", "--step", "1", "--out", "{new}.safetensors"], "not a run folder"),
    (["reconstruct", "{empty}", "--step", "one", "--out", "{new}.safetensors"], "--step one: not allowed"),
    (["reconstruct", "{empty}", "--step", "1", "--out", "{new}.pt"], "give a file that ends in .safetensors"),
    (["data", "fetch", "mnist"], "mnist: no such data set; give one of glyphs"),
    (["data", "fetch", "imagefolder"], "imagefolder: nothing to fetch"),
    (["data", "check", "imagefolder"], "--data-root (none): not allowed"),
    (["data", "check"], "NAME: missing"),
    (["demo", "--profile", "paper"], "--profile paper: not allowed; give quick or smoke"),
]


@pytest.mark.parametrize("arguments, says", BAD_INPUT, ids=[" ".join(a[:1] + a[2:] if "{new}" in a[2:3] else a) for a, _ in BAD_INPUT])
def test_bad_input_is_status_2_one_clear_line_and_nothing_lost(arguments, says, capsys, tmp_path):
    places = {"new": tmp_path / "new", "empty": tmp_path / "empty", "full": tmp_path / "full", "file": tmp_path / "file"}
    places["empty"].mkdir(), places["full"].mkdir()
    (places["full"] / "mine.txt").write_text("precious")
    places["file"].write_text("precious")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    status, out, err = call(capsys, *(a.format(**places) for a in arguments))
    assert status == 2
    lines = [line for line in err.splitlines() if line.startswith("m2kd-lite: ")]
    assert len(lines) == 1 and says in lines[0], err
    assert "Traceback" not in err
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_run_report_reconstruct(capsys, tmp_path):
    for method in ("lwf-mc", "m2kd"):
        status, out, err = call(capsys, "run", "--method", method, *SMALL, "--out", tmp_path / method)
        assert status == 0 and "average incremental accuracy" in out
        assert "step 2/2 done" in err                           # progress, as plain lines where there is no terminal
    assert {p.name for p in (tmp_path / "m2kd").iterdir()} - {".lock"} == {
        "config.json", "metrics.json", "events.jsonl", "snapshots.safetensors", "live.safetensors"}

    status, out, _ = call(capsys, "report", tmp_path / "lwf-mc", tmp_path / "m2kd", "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert status == 0 and "LwF-MC" in page and "M²KD" in page

    status, out, _ = call(capsys, "reconstruct", tmp_path / "m2kd", "--step", "1", "--out", tmp_path / "one.safetensors")
    assert status == 0 and "model 1 of 2, resnet8, 5 classes" in out
    tensors, notes = storage.load_tensors(tmp_path / "one.safetensors")
    assert tensors["main.weight"].shape == (5, 64) and notes["step"] == 1
    status, _, err = call(capsys, "reconstruct", tmp_path / "m2kd", "--step", "1", "--out", tmp_path / "one.safetensors")
    assert status == 2 and "never overwritten" in err
    status, _, err = call(capsys, "reconstruct", tmp_path / "m2kd", "--step", "3", "--out", tmp_path / "x.safetensors")
    assert status == 2 and "--step 3: not allowed; give a whole number from 1 to 2" in err

    status, out, err = call(capsys, "run", "--out", tmp_path / "m2kd", "--resume")         # finished: a no-op that says so
    assert status == 0 and "already finished" in err
    status, _, err = call(capsys, "run", "--out", tmp_path / "m2kd", "--resume", "--alpha", "0.7")
    assert status == 2 and "--alpha 0.7: not allowed with --resume" in err


def test_a_damaged_result_is_status_1_and_named(capsys, tmp_path):
    call(capsys, "run", *SMALL, "--out", tmp_path / "run")
    path = tmp_path / "run" / "metrics.json"
    path.write_text(path.read_text().replace('"top1": ', '"top1": 1'))
    status, _, err = call(capsys, "report", tmp_path / "run", "--out", tmp_path / "r.html")
    assert status == 1 and "metrics.json: its content does not match its SHA-256" in err


def test_a_layer_that_runs_out_ends_the_run_with_status_1(capsys, tmp_path):
    status, _, err = call(capsys, "run", "--dataset", "digits", "--class-batch", "1", "--profile", "smoke",
                          "--pruning-ratio", "0.05", "--out", tmp_path / "run")
    assert status == 1 and "conv1.weight has no free weight left for step" in err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_data_list_fetch_check(capsys):
    assert "glyphs" in call(capsys, "data", "list")[1]
    status, out, _ = call(capsys, "data", "check", "glyphs")
    assert status == 0 and out.endswith("fine\n")
    assert "1347 training" in call(capsys, "data", "fetch", "digits")[1]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_leave_a_checkpoint_and_say_how_to_go_on(number, status, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "m2kd_lite.cli", "run", *SMALL, "--epochs", "500", "--train-per-class", "50", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 120
    while not (out / "events.jsonl").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"go on with: m2kd-lite run --out {out} --resume" in err and "Traceback" not in err
    assert list(out.glob("checkpoint/*.safetensors")) and not (out / "metrics.json").exists()


@pytest.mark.parametrize("longest, struck", [(("--epochs", "300"), "train"), (("--finetune-epochs", "300"), "finetune")])
def test_a_time_limit_strikes_anywhere_leaves_a_checkpoint_and_the_same_command_goes_on(longest, struck, tmp_path):
    command = [sys.executable, "-m", "m2kd_lite.cli", "run", *SMALL, *longest, "--train-per-class", "20", "--out", str(tmp_path / "run"),
               "--time-limit", "0.12"]
    phase, resume = None, []
    while phase != struck and len(resume) < 10:         # a busy machine may need several calls until the long phase has begun
        limited = subprocess.run([*command, *resume[:1]], capture_output=True, text=True,
                                 env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
        assert limited.returncode == 75 and "the time limit is reached; go on with: m2kd-lite run --out" in limited.stderr
        stored = [storage.load_tensors(path)[1] for path in (tmp_path / "run" / "checkpoint").glob("state-*")]
        phase = max(stored, key=lambda notes: notes["serial"])["position"]["phase"]
        resume.append("--resume")
    assert phase == struck


@pytest.mark.parametrize("wrong", ["0", "-3", "soon", "nan", "inf"])
def test_a_time_limit_is_a_number_of_minutes(wrong, capsys, tmp_path):
    status, _, err = call(capsys, "run", *SMALL, "--out", tmp_path / "run", f"--time-limit={wrong}")
    assert status == 2 and f"--time-limit {wrong}: not allowed; give a number of minutes above 0" in err


def test_help_is_worth_reading_and_needs_no_torch():
    code = ("import sys\nfrom m2kd_lite import cli\ntry:\n cli.main(['run', '--help'])\nexcept SystemExit: pass\n"
            "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    for name in RunConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in shown.stdout


def test_every_setting_reaches_the_run(capsys, tmp_path):
    config = small_config("m2kd", milestones=[1], pruning_ratio=0.6)
    options = [text for name, value in config.model_dump(mode="json").items() if value is not None
               for text in (f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, list) else value)]
    assert call(capsys, "run", "--out", tmp_path / "run", *options)[0] == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert RunConfig.make(stored) == config and stored["pruning_ratio"] == 0.6


def test_profiles_fill_in_what_is_not_said():
    paper = RunConfig.make({"profile": "paper"})
    assert (paper.backbone, paper.epochs, paper.finetune_epochs, paper.batch_size, paper.lr) == ("resnet32", 80, 15, 128, 2.0)
    assert paper.milestones == (40,) and paper.gamma == 0.2 and paper.momentum == 0.9 and paper.weight_decay == 1e-5
    assert paper.alpha == 0.5 and paper.lambda_aux == 1.0 and paper.class_order == "icarl"
    assert [paper.learning_rate(e) for e in (0, 39, 40, 79)] == pytest.approx([2.0, 2.0, 0.4, 0.4])
    assert {paper.finetune_rate(epoch) for epoch in range(15)} == {paper.learning_rate(79)} and paper.learning_rate(79) == pytest.approx(0.4)
    whole = RunConfig.make({"profile": "icarl-recipe", "finetune_schedule": "whole"})
    assert [whole.finetune_rate(epoch) for epoch in range(15)] == pytest.approx(10 * [2.0] + 3 * [0.4] + 2 * [0.08])
    assert RunConfig.make({"finetune_schedule": "whole"}).finetune_rate(0) == RunConfig.make({}).finetune_rate(0) == pytest.approx(0.4)      # of a single epoch
    assert RunConfig.make({"class_batch": 10}).pruning_ratio == 0.75 and RunConfig.make({"class_batch": "20"}).pruning_ratio == 0.8
    assert RunConfig.make({"epochs": 1}).milestones == ()
    subset = RunConfig.make({"profile": "paper", "epochs": 60, "milestones": "20,40", "backbone": "resnet18"})
    assert [subset.learning_rate(e) for e in (19, 20, 40)] == pytest.approx([2.0, 0.4, 0.08])
    recipe = {"profile": "icarl-recipe", "epochs": 70, "milestones": (49, 63), "weight_decay": 2e-5, "prior": 0.05}
    assert RunConfig.make({"profile": "icarl-recipe"}) == RunConfig.make({"profile": "paper"} | recipe).model_copy(update={"profile": "icarl-recipe"})


def test_cuda_where_there_is_none(capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, _, err = call(capsys, "run", "--device", "cuda", *SMALL, "--out", tmp_path / "run")
    assert status == 2 and "--device cuda: not allowed; this machine has 0 CUDA devices; give auto or cpu" in err

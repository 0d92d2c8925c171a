"""Kill runs with SIGKILL at random moments, resume them, and compare every byte with an undisturbed run's.

    python benchmarks/kills.py --kills 60

Each trial starts a real process, kills it somewhere between its first second and its end, resumes it (killing it again
now and then), lets it finish, and compares `snapshots.safetensors` byte for byte and `metrics.json` without its times.
Prints one line a kill with the place the run had reached, and ends with status 1 at the first difference.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SETTINGS = ["--dataset", "digits", "--class-batch", "4", "--profile", "smoke", "--epochs", "6", "--finetune-epochs", "3",
            "--train-per-class", "100", "--batch-size", "16"]


def command(method: str, out: Path) -> list[str]:
    """The run, begun or gone on with."""
    return [sys.executable, "-m", "m2kd_lite.cli", "run", "--method", method, *SETTINGS, "--out", str(out), "--resume"]


def outcome(out: Path) -> tuple[str, str]:
    """Digests of the snapshots, and of the metrics without what a clock says."""
    metrics = json.loads((out / "metrics.json").read_text())
    for key in ("wall_seconds", "sha256"):
        metrics.pop(key)
    for step in metrics["steps"]:
        step.pop("train_seconds"), step.pop("teacher_seconds")
    return (hashlib.sha256((out / "snapshots.safetensors").read_bytes()).hexdigest(),
            hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest())


def place(out: Path) -> str:
    """What a killed run left behind, in words."""
    if list(out.glob("**/.*.tmp")):
        return "in the middle of writing a file"
    lines = (out / "events.jsonl").read_text().splitlines() if (out / "events.jsonl").exists() else []
    if not lines:
        return "before its first epoch ended"
    last = json.loads(lines[-1])
    return f"after step {last['step']}, {last['phase']} epoch {last['epoch']}/{last['epochs']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments, places, done = random.Random(arguments.seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        expected, seconds = {}, {}
        for method in ("lwf-mc", "m2kd"):
            began = time.monotonic()
            subprocess.run(command(method, Path(folder) / f"whole-{method}"), check=True, capture_output=True)
            seconds[method] = time.monotonic() - began
            expected[method] = outcome(Path(folder) / f"whole-{method}")
        trial = 0
        while done < arguments.kills:
            method = ("lwf-mc", "m2kd")[trial % 2]
            out = Path(folder) / f"trial-{trial}"
            trial += 1
            while True:
                process = subprocess.Popen(command(method, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    process.wait(timeout=moments.uniform(0.3, seconds[method]))
                    break                                       # it was faster than the axe
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    done += 1
                    where = place(out) if out.exists() else "before anything was written"
                    places[where.split(" epoch")[0]] += 1
                    print(f"kill {done}: {method}, {where}", flush=True)
            if process.returncode or outcome(out) != expected[method]:
                sys.exit(f"{method}, trial {trial}: differs from the undisturbed run (status {process.returncode})")
    print(f"{done} kills over {trial} runs; every run ended with the bytes of the undisturbed one")
    for where, count in sorted(places.items()):
        print(f"  {count:3} {where}")


if __name__ == "__main__":
    main()

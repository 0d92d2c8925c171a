"""What `make demo` runs: three methods on the embedded glyphs, from the notebook, and one report."""
from __future__ import annotations

from pathlib import Path

from m2kd_lite import notebook, report
from m2kd_lite.config import RunConfig
from m2kd_lite.events import OnEvent
from m2kd_lite.rundir import check_same, is_finished, read_run

METHODS = ("finetune", "lwf-mc", "m2kd")


def demo(out: Path, profile: str, on_event: OnEvent) -> Path:
    """Run the demonstration; returns the report's path. What is finished already is not run again: delete `out` for that.

    Parameters
    ----------
    out : folder for the runs, the executed notebooks and report.html.
    profile : "quick", or "smoke" to see only that everything works.
    """
    out = Path(out).resolve()
    for number, method in enumerate(METHODS, 1):
        config = RunConfig.make({"method": method, "class_batch": 20, "profile": profile})
        on_event({"event": "notice", "text": f"[{number}/{len(METHODS)}] {method}: papermill over {notebook.FULL_RUN}"})
        target = out / f"{method}.ipynb"
        if target.is_file() and is_finished(out / method):
            check_same(read_run(out / method).config, config)
            on_event({"event": "run", "state": "already finished", "folder": str(out / method)})
        else:
            notebook.execute(config, out / method, target, on_event)
    report.write_report([out / method for method in METHODS], out / "report.html")
    return out / "report.html"

"""The command line. Bad input ends with status 2 and one line on standard error, a failed run with 1.

Every field of `RunConfig` is an option of `run`, read as text and validated in one place, so that the same wrong value
gets the same answer here, in a notebook and in a sweep. torch is imported only by the commands that compute.
"""
from __future__ import annotations

import inspect
import math
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from m2kd_lite import cli_class
from m2kd_lite import config as configuration
from m2kd_lite.cli_class import DataRoot, positive, required
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import TIME_LIMIT, BadInput, M2KDError, printable

# typer raises click's errors, or those of its own copy of click, depending on its version: this is the base of either.
_UsageProblem: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Incremental learning by multi-model and multi-level distillation (M²KD), small enough to read.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and check the data sets.")
app.add_typer(data_app, name="data")

OutFolder = Annotated[str | None, typer.Option("--out", metavar="DIR", help="the run folder; it must not exist yet (required)")]
TimeLimit = Annotated[str | None, typer.Option("--time-limit", metavar="MINUTES", help="after this many minutes, write a checkpoint and exit "
                                               "with status 75; the same command continues (run: with --resume)")]


def run(out: OutFolder = None,
        resume: Annotated[bool, typer.Option("--resume", help="resume the run in DIR with its original settings")] = False,
        time_limit: TimeLimit = None,
        **given: str | None) -> None:
    """Train one method over all incremental steps.

    DIR receives config.json, metrics.json, events.jsonl, live.safetensors and snapshots.safetensors, from which every model of the run
    can be rebuilt. Unset options come from --profile: smoke (seconds), quick (a minute or two), paper (section 4.1), icarl-recipe
    (section 4.1 with the schedule of iCaRL's code).

    Example: m2kd-lite run --method m2kd --dataset glyphs --class-batch 20 --profile quick --out runs/first
    """
    out = required("--out", out)
    asked = {name: value for name, value in given.items() if value is not None}
    if resume and (Path(out) / "config.json").exists():
        from m2kd_lite.training.rundir import read_config
        config = RunConfig.make(read_config(Path(out)).model_dump(mode="json") | asked)
    else:
        config = RunConfig.make(asked)
    from m2kd_lite.training import progress, train
    stop = _StopRequest(time_limit)
    with progress.terminal() as on_event:
        metrics = train.run(config, Path(out), resume=resume, on_event=on_event, should_stop=stop.status)
    print(f"{out}: average incremental accuracy {metrics['average_incremental_accuracy']:.1f} %, final "
          f"{metrics['final_accuracy']:.1f} %, forgetting {metrics['forgetting']:.1f} points, "
          f"{metrics['bytes']['added']:,} bytes added after step 1, {metrics['wall_seconds']:.0f} s")


def _with_settings(command):
    """Give `command` one text option a field of `RunConfig`, in place of its **given."""
    parameters = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, field in RunConfig.model_fields.items():
        about = f"{field.description} [{configuration.allowed(name)}; default: {configuration.default_text(name)}]"
        annotation = Annotated[str | None, typer.Option(configuration.option(name), metavar="VALUE", help=about)]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    resolved = inspect.get_annotations(command, eval_str=True)
    parameters = [p.replace(annotation=resolved.get(p.name, p.annotation)) for p in parameters]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


app.command()(_with_settings(run))
app.command()(cli_class.leaderboard)
app.command()(cli_class.grade)


@app.command()
def sweep(spec: Annotated[str | None, typer.Argument(metavar="SPEC.yaml", help="a specification: a file, or one shipped with m2kd-lite, such as "
                                                  "experiments/example.yaml")] = None,
          out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="folder for the runs (required)")] = None,
          workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="runs at once on this machine [default: one per GPU, "
                                                      "or one per core; 0: one, in this process]")] = None,
          scheduler: Annotated[str | None, typer.Option("--scheduler", metavar="ADDRESS", help="hand the runs to a dask.distributed "
                                                        "cluster instead, such as tcp://host:8786 (docs/clusters.md)")] = None,
          time_limit: TimeLimit = None) -> None:
    """Run many settings, each by papermill from the full-run notebook, in a folder named by settings, images and code.

    Everything is checked before anything starts. Finished runs are skipped, so the same command continues after Ctrl-C or a
    failure. A run that loses its worker or kernel is retried from its checkpoint, twice.

    Keys of SPEC.yaml: base, settings shared by all runs; grid, lists whose every combination is run; exclude, combinations to
    leave out; include, further runs. Settings are the options of m2kd-lite run, with _ for -.

    Example: m2kd-lite sweep experiments/example.yaml --out runs/example
    """
    spec, out = required("SPEC.yaml", spec), required("--out", out)
    if workers is not None and scheduler:
        raise BadInput(f"--workers {workers}: not allowed with --scheduler; the cluster's workers are started there")
    if workers is not None and not workers.isdecimal():
        raise BadInput(f"--workers {workers}: not allowed; give a whole number, 0 or more")
    stop = _StopRequest(time_limit)
    from m2kd_lite.sweeps import sweep as engine
    from m2kd_lite.sweeps.spec import plan
    from m2kd_lite.training import progress
    with progress.terminal() as on_event:
        asked = plan(_spec(spec), on_event)
        place = engine.place(asked, Path(out), None if workers is None else int(workers), scheduler, on_event)
        engine.run(asked, Path(out), place, on_event, stop.status)
    print(f"{out}: all {len(asked.cells)} finished; side by side: m2kd-lite report {out}/*/run --out REPORT.html")


@app.command()
def report(folders: Annotated[list[str] | None, typer.Argument(metavar="DIR...", help="finished run folders")] = None,
           out: Annotated[str | None, typer.Option("--out", metavar="REPORT.html", help="output page (required)")] = None,
           mix_profiles: Annotated[bool, typer.Option("--mix-profiles", help="allow runs of several profiles in one table")] = False,
           frontier: Annotated[bool, typer.Option("--frontier", help="also draw accuracy against the bytes carried")] = False) -> None:
    """Compare finished runs on one self-contained page: curves, confusion matrices, forgetting, bytes.

    The runs also go into results.csv beside the page: one row a run and step, with device and revision; rows of the same run are replaced.
    """
    if not folders:
        raise BadInput("DIR: missing; give one or more finished run folders")
    from m2kd_lite.results.report import write_report
    out = required("--out", out)
    write_report([Path(folder) for folder in folders], Path(out), mix_profiles, frontier=frontier)
    print(out)


@app.command()
def reconstruct(folder: Annotated[str | None, typer.Argument(metavar="RUN_DIR", help="a finished run folder")] = None,
                step: Annotated[str | None, typer.Option("--step", metavar="K", help="step of the model, from 1 (required)")] = None,
                out: Annotated[str | None, typer.Option("--out", metavar="FILE.safetensors", help="output file (required)")] = None) -> None:
    """Rebuild the model of step K from a run's snapshots and save its weights.

    The rebuilt model gives, bit for bit, the logits that the live one gave when its step ended.
    """
    folder, step, out = required("RUN_DIR", folder), required("--step", step), required("--out", out)
    if not step.isdecimal():
        raise BadInput(f"--step {step}: not allowed; give a whole number from 1")
    if not out.endswith(".safetensors"):
        raise BadInput(f"--out {out}: not allowed; give a file that ends in .safetensors")
    if Path(out).exists():
        raise BadInput(f"--out {out}: exists already and is never overwritten; give another file")
    from m2kd_lite.files import storage
    from m2kd_lite.method.snapshots import Snapshots
    from m2kd_lite.training.rundir import read_run
    past = Snapshots.load(read_run(Path(folder)).path / "snapshots.safetensors")
    state = past.reconstruct(int(step)).state_dict()
    digest = storage.save_tensors(Path(out), state, {"step": int(step), "backbone": past.backbone, **past.notes})
    print(f"{out}: model {step} of {len(past)}, {past.backbone}, {len(state['main.weight'])} classes, sha256 {digest[:16]}")


@data_app.command("list")
def data_list() -> None:
    """List the data sets, their contents and their sources."""
    from m2kd_lite import data
    for name, source in data.SOURCES.items():
        print(f"{name:14} {source.where:9} {source.about}")


DataName = Annotated[str | None, typer.Argument(metavar="NAME", help="a data set; see: m2kd-lite data list")]


@data_app.command("fetch")
def data_fetch(name: DataName = None, data_root: DataRoot = None) -> None:
    """Download a data set, or draw the embedded one, so that later runs need no network."""
    if name == "imagefolder":
        raise BadInput("imagefolder: nothing to fetch; it reads your own folder (--data-root)")
    print(repr(_load(name, data_root)))


@data_app.command("check")
def data_check(name: DataName = None, data_root: DataRoot = None) -> None:
    """Read a whole data set; print its sizes and SHA-256; list unusable files (then status 1)."""
    from m2kd_lite.data.layout import counted
    from m2kd_lite.data.shards import Rows
    images = _load(name, data_root)
    for part in (images.train_images, images.test_images):
        if isinstance(part, Rows):              # what lies in shards has not been read yet
            part.check()
    print(printable(repr(images)))
    for line in images.remarks:
        print(printable(f"remark: {line}"))
    for line in images.left_out:
        print(printable(f"left out: {line}"))
    if images.left_out:
        raise M2KDError(f"{name}: {counted(len(images.left_out), 'file')} left out")
    if name == "glyphs":
        from m2kd_lite.data.glyphs import EXPECTED_SHA256
        if images.sha256 != EXPECTED_SHA256:
            raise M2KDError(f"glyphs: SHA-256 {images.sha256} differs from the expected {EXPECTED_SHA256}")
    print("fine")


@app.command()
def demo(out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="folder for runs, notebooks and report.html [default: runs/demo, "
                                                 "or where your runs land if nothing can be written here]")] = None,
         profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="quick, or smoke for a fast check")] = "quick") -> None:
    """Train four methods on the embedded glyphs, each by papermill from the notebook, and write one page on what they show."""
    from m2kd_lite.course import demo as demonstration
    from m2kd_lite.files import places
    from m2kd_lite.training import progress
    if profile not in ("smoke", "quick"):
        raise BadInput(f"--profile {profile}: not allowed; give quick or smoke")
    folder = Path(out) if out else Path("runs/demo") if places.can_write(Path("runs")) else places.runs() / "demo"
    with progress.terminal() as on_event:
        page = demonstration.demo(folder, profile, on_event)
    print(f"report: {page}")


@app.command()
def lessons(folder: Annotated[str | None, typer.Argument(metavar="DIR", help="a new folder, or an earlier copy that "
                                                        "nobody has worked in")] = None,
            student: Annotated[bool, typer.Option("--student", help="leave out solutions and outputs, for handing out (needs nbgrader)")] = False) -> None:
    """Copy the lessons, with the tables that they read, to a folder of your own. Runs land inside it."""
    folder = required("DIR", folder)
    from m2kd_lite.course.student import build
    files = build(Path(folder), student)
    print(f"{folder}: {sum(path.suffix == '.ipynb' for path in files)} notebooks; open them with: jupyter lab {shlex.quote(folder)}/notebooks")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def playground(context: typer.Context) -> None:
    """Open all panels on one page in your browser, served locally by Voilà. Accepts Voilà's options, such as --no-browser."""
    from m2kd_lite.course.playground import serve
    from m2kd_lite.training import progress
    with progress.terminal() as on_event:
        serve(context.args, on_event)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and exits with its status."""
    try:
        status = app(args=arguments, standalone_mode=False) or 0
    except M2KDError as error:
        status = _complain(str(error), error.exit_status)
    except _UsageProblem as error:
        text = error.format_message()
        if text.startswith("Usage:"):               # a command that was given nothing shows its help
            print(text)
            status = 2
        else:
            status = _complain(" ".join(text.split()) + " See --help.", 2)
    except (typer.Abort, KeyboardInterrupt):
        status = _complain("stopped", 130)
    sys.exit(status)


class _StopRequest:
    """Remembers Ctrl-C, SIGTERM and the time limit, so that the run can write a checkpoint before it ends."""

    def __init__(self, time_limit: str | None):
        self._status: int | None = None
        self._ends = math.inf
        if time_limit is not None:
            self._ends = time.monotonic() + 60 * positive("--time-limit", time_limit, "number of minutes")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame) -> None:
        self._status = 128 + number
        signal.signal(number, signal.SIG_DFL)       # a second one ends it at once

    def status(self) -> int | None:
        """What a run is to end with, if it is to end."""
        if self._status is None and time.monotonic() > self._ends:
            return TIME_LIMIT
        return self._status


def _load(name: str | None, data_root: str | None):
    from m2kd_lite import data
    from m2kd_lite.training import progress
    name = required("NAME", name)
    if name in configuration.EMBEDDED and data_root:
        raise BadInput(f"--data-root {data_root}: not allowed; {name} is embedded")
    if name == "imagefolder" and not data_root:
        raise BadInput("--data-root (none): not allowed; imagefolder needs the folder with train/ and test/")
    with progress.terminal() as on_event:
        return data.load(name, data_root, on_event)


def _spec(name: str) -> Path:
    """A specification: the file itself, or the one that comes with the package."""
    from m2kd_lite.files import places
    if Path(name).exists():
        return Path(name)
    try:
        return places.find(name if Path(name).parent.name else f"experiments/{name}")
    except BadInput:
        there = ", ".join(sorted(path.stem for path in (places.shipped() / "experiments").glob("*.yaml")))
        raise BadInput(f"{name}: no such file; m2kd-lite ships experiments/*.yaml: {there}") from None


def _complain(text: str, status: int) -> int:
    print(f"m2kd-lite: {printable(text)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

"""The command line. Bad input ends with status 2 and one line on standard error, a failed run with 1.

Every field of `RunConfig` is an option of `run`, read as text and validated in one place, so that the same wrong value
gets the same answer here, in a notebook and in a sweep. torch is imported only by the commands that compute.
"""
from __future__ import annotations

import inspect
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from m2kd_lite import config as configuration
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput, M2KDError

# typer raises click's errors, or those of its own copy of click, depending on its version: this is the base of either.
_UsageProblem = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Incremental learning by multi-model and multi-level distillation (M²KD), small enough to read.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and check the data sets.")
app.add_typer(data_app, name="data")

OutFolder = Annotated[str | None, typer.Option("--out", metavar="DIR", help="the run folder; it must not exist yet (required)")]


def run(out: OutFolder = None,
        resume: Annotated[bool, typer.Option("--resume", help="go on with the run in DIR, with the settings it began with")] = False,
        **given: str | None) -> None:
    """Train one method over all incremental steps.

    DIR receives config.json, metrics.json, events.jsonl, live.safetensors and snapshots.safetensors, from which every model of the run
    can be rebuilt. What is not said comes from --profile: smoke (seconds), quick (a minute or two), paper (section 4.1).

    Example: m2kd-lite run --method m2kd --dataset glyphs --class-batch 20 --profile quick --out runs/first
    """
    out = _required("--out", out)
    asked = {name: value for name, value in given.items() if value is not None}
    if resume and (Path(out) / "config.json").exists():
        from m2kd_lite.rundir import read_config
        config = RunConfig.make(read_config(Path(out)).model_dump(mode="json") | asked)
    else:
        config = RunConfig.make(asked)
    from m2kd_lite import progress, train
    stop = _StopRequest()
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


@app.command()
def sweep(spec: Annotated[str | None, typer.Argument(metavar="SPEC.yaml", help="which runs (experiments/README.md)")] = None,
          out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="where their folders go (required)")] = None,
          workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="runs at once on this machine [default: one a GPU, "
                                                      "or one a core; 0: one, in this process]")] = None,
          scheduler: Annotated[str | None, typer.Option("--scheduler", metavar="ADDRESS", help="hand the runs to a dask.distributed "
                                                        "cluster instead, as tcp://host:8786 (docs/clusters.md)")] = None) -> None:
    """Many runs, each from the full-run notebook by papermill, in a folder of its own named by settings, images and code.

    Everything is checked first. What is finished is skipped, so the same command goes on after Ctrl-C or a failure. A run whose
    worker or kernel is lost is tried again from its checkpoint, twice.

    SPEC.yaml has base: settings of all; grid: lists of which every combination is run; exclude: combinations to leave out;
    include: further runs. Every option of m2kd-lite run is a key, with _ for -.

    Example: m2kd-lite sweep experiments/example.yaml --out runs/example
    """
    spec, out = _required("SPEC.yaml", spec), _required("--out", out)
    if workers is not None and scheduler:
        raise BadInput(f"--workers {workers}: not allowed with --scheduler; the cluster's workers are started there")
    if workers is not None and not workers.isdecimal():
        raise BadInput(f"--workers {workers}: not allowed; give a whole number, 0 or more")
    from m2kd_lite import progress
    from m2kd_lite import sweep as engine
    from m2kd_lite.sweep_spec import plan
    with progress.terminal() as on_event:
        asked = plan(Path(spec), on_event)
        place = engine.place(asked, Path(out), None if workers is None else int(workers), scheduler, on_event)
        engine.run(asked, Path(out), place, on_event, _StopRequest().status)
    print(f"{out}: all {len(asked.cells)} finished; side by side: m2kd-lite report {out}/*/run --out REPORT.html")


@app.command()
def report(folders: Annotated[list[str] | None, typer.Argument(metavar="DIR...", help="finished run folders")] = None,
           out: Annotated[str | None, typer.Option("--out", metavar="REPORT.html", help="the page to write (required)")] = None,
           mix_profiles: Annotated[bool, typer.Option("--mix-profiles", help="allow runs of several profiles in one table")] = False) -> None:
    """Finished runs side by side as one self-contained page: curves, confusion matrices, forgetting, bytes.

    The runs also go into results.csv beside the page: one row a run and step, with device and revision; rows of the same run are replaced.
    """
    if not folders:
        raise BadInput("DIR: missing; give one or more finished run folders")
    from m2kd_lite.report import write_report
    out = _required("--out", out)
    write_report([Path(folder) for folder in folders], Path(out), mix_profiles)
    print(out)


@app.command()
def reconstruct(folder: Annotated[str | None, typer.Argument(metavar="RUN_DIR", help="a finished run folder")] = None,
                step: Annotated[str | None, typer.Option("--step", metavar="K", help="which model, from 1 (required)")] = None,
                out: Annotated[str | None, typer.Option("--out", metavar="FILE.safetensors", help="the file to write (required)")] = None) -> None:
    """Rebuild the model of step K from a run's snapshots, and write its weights.

    The rebuilt model gives, bit for bit, the logits that the live one gave when its step ended.
    """
    folder, step, out = _required("RUN_DIR", folder), _required("--step", step), _required("--out", out)
    if not step.isdecimal():
        raise BadInput(f"--step {step}: not allowed; give a whole number from 1")
    if not out.endswith(".safetensors"):
        raise BadInput(f"--out {out}: not allowed; give a file that ends in .safetensors")
    if Path(out).exists():
        raise BadInput(f"--out {out}: exists already and is never overwritten; give another file")
    from m2kd_lite import storage
    from m2kd_lite.rundir import read_run
    from m2kd_lite.snapshots import Snapshots
    past = Snapshots.load(read_run(Path(folder)).path / "snapshots.safetensors")
    state = past.reconstruct(int(step)).state_dict()
    digest = storage.save_tensors(Path(out), state, {"step": int(step), "backbone": past.backbone, **past.notes})
    print(f"{out}: model {step} of {len(past)}, {past.backbone}, {len(state['main.weight'])} classes, sha256 {digest[:16]}")


@data_app.command("list")
def data_list() -> None:
    """The data sets, what they hold, and where they come from."""
    from m2kd_lite import data
    for name, source in data.SOURCES.items():
        print(f"{name:14} {source.where:9} {source.about}")


DataRoot = Annotated[str | None, typer.Option("--data-root", metavar="DIR", help="where the data set lies, or goes")]
DataName = Annotated[str | None, typer.Argument(metavar="NAME", help="one of: m2kd-lite data list")]


@data_app.command("fetch")
def data_fetch(name: DataName = None, data_root: DataRoot = None) -> None:
    """Download a data set, or draw the embedded one, so that later runs need no network."""
    if name == "imagefolder":
        raise BadInput("imagefolder: nothing to fetch; it reads your own folder (--data-root)")
    print(repr(_load(name, data_root)))


@data_app.command("check")
def data_check(name: DataName = None, data_root: DataRoot = None) -> None:
    """Read a data set completely; print its sizes and SHA-256; list files that cannot be used (then status 1)."""
    images = _load(name, data_root)
    print(repr(images))
    for line in images.left_out:
        print(f"left out: {line}")
    if images.left_out:
        raise M2KDError(f"{name}: {len(images.left_out)} files left out")
    if name == "glyphs":
        from m2kd_lite.data.glyphs import EXPECTED_SHA256
        if images.sha256 != EXPECTED_SHA256:
            raise M2KDError(f"glyphs: SHA-256 {images.sha256} differs from the expected {EXPECTED_SHA256}")
    print("fine")


@app.command()
def demo(out: Annotated[str, typer.Option("--out", metavar="DIR", help="where runs, notebooks and report.html go")] = "runs/demo",
         profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="quick, or smoke to see that it works")] = "quick") -> None:
    """Three methods on the embedded glyphs, each run by papermill from the notebook, and a report side by side."""
    from m2kd_lite import demo as demonstration
    from m2kd_lite import progress
    if profile not in ("smoke", "quick"):
        raise BadInput(f"--profile {profile}: not allowed; give quick or smoke")
    with progress.terminal() as on_event:
        page = demonstration.demo(Path(out), profile, on_event)
    print(f"report: {page}")


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
    """Remembers Ctrl-C and SIGTERM, so that the run can write a checkpoint before it ends."""

    def __init__(self):
        self._status: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame) -> None:
        self._status = 128 + number
        signal.signal(number, signal.SIG_DFL)       # a second one ends it at once

    def status(self) -> int | None:
        return self._status


def _load(name: str | None, data_root: str | None):
    from m2kd_lite import data, progress
    name = _required("NAME", name)
    if name in configuration.EMBEDDED and data_root:
        raise BadInput(f"--data-root {data_root}: not allowed; {name} is embedded")
    if name == "imagefolder" and not data_root:
        raise BadInput("--data-root (none): not allowed; imagefolder needs the folder with train/ and test/")
    with progress.terminal() as on_event:
        return data.load(name, data_root, on_event)


def _required(option: str, value: str | None) -> str:
    if not value:
        raise BadInput(f"{option}: missing; see --help")
    return value


def _complain(text: str, status: int) -> int:
    print(f"m2kd-lite: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

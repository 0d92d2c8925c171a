"""One source, two builds: the lessons as they lie in `notebooks/`, and the copy that students get.

`python -m m2kd_lite.course build/student` (or `make student`) writes that copy with nbgrader's own steps: a stub in place
of each solution, check cells locked, outputs cleared. Lessons, tables of results and `docs/choices.md` lie in the folder
as in the project, so it can be copied anywhere: runs land inside it. The same sources give the same bytes.
`docs/nbgrader_config.py` takes the stub and the tag from here; `docs/instructors.md` tells the whole way.
"""
from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from m2kd_lite import notebook
from m2kd_lite.errors import BadInput, CannotWrite, M2KDError

STUB = 'raise NotImplementedError("your turn: write this function, then run the check in the next cell")'
NOT_GRADED = "trains"           # the tag of cells that train for longer than a moment: grading skips them
SOURCES = ("notebooks/*.ipynb", "data/results/*.csv", "data/paper/*.csv", "docs/choices.md", "constraints.txt")
SUMS = "SHA256SUMS"
README = """# m2kd-lite: the lessons

The lessons are in `notebooks/`; begin with the lowest number. Open them with `jupyter lab notebooks`, from an
environment that has m2kd-lite installed. `constraints.txt` names the versions that the lessons were written with.

A function that you are to write raises `NotImplementedError`. Write it, run its cell, then run the check in the next
cell: it says what is right, and which mistake it sees. "Run All" stops at the first check that does not pass.

You may copy this folder anywhere. Runs land in `runs/`, inside it.
"""


def build(target: Path) -> list[Path]:
    """Write the students' copy; it replaces an earlier one as a whole.

    Parameters
    ----------
    target : the folder, say `build/student`. If it is there, it must be an earlier build that nobody has worked in.

    Returns
    -------
    the files, relative to `target`, sorted.

    Raises
    ------
    BadInput : nothing to build from; or the folder holds work of somebody's.
    CannotWrite : the disk is full, or may not be written to.
    M2KDError : nbgrader is not installed, or a lesson's markers do not fit.
    """
    target = Path(target)
    contents = _contents(notebook.project_root())
    _refuse_to_lose_work(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
            new = Path(beside) / "new"
            for path, content in contents.items():
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                (new / path).write_bytes(content)
            if target.exists():
                target.rename(Path(beside) / "old")
            new.rename(target)
    except OSError as error:
        raise CannotWrite(f"{target}: cannot write: {error.strerror or error}") from error
    return sorted(map(Path, contents))


def student_version(path: Path) -> str:
    """A notebook as students get it: nbgrader's steps of `generate_assignment`, without its data base."""
    try:
        from nbconvert.preprocessors import ClearMetadataPreprocessor
        from nbgrader import preprocessors as steps
    except ImportError:
        raise M2KDError("nbgrader is not installed; get it with: "
                        "python -m pip install -c constraints.txt -e '.[course]'") from None
    import nbformat
    lesson, resources = nbformat.read(path, as_version=4), {}
    panels = ClearMetadataPreprocessor(enabled=True, clear_cell_metadata=False,         # their saved state is an output
                                       preserve_nb_metadata_mask={"kernelspec", "language_info"})
    for step in (steps.LockCells(), steps.ClearSolutions(code_stub={"python": STUB}), steps.ClearOutput(), panels,
                 steps.CheckCellMetadata(), steps.ComputeChecksums()):
        try:
            lesson, resources = step.preprocess(lesson, resources)
        except Exception as error:          # nbgrader raises RuntimeError and ValidationError of several libraries
            raise M2KDError(f"{path}: {type(step).__name__}: {error}") from None
    return nbformat.writes(lesson) + "\n"


def _contents(root: Path) -> dict[str, bytes]:
    """What the build holds: path to bytes."""
    found = sorted(path.relative_to(root).as_posix() for pattern in SOURCES for path in root.glob(pattern))
    lessons = [path for path in found if path.endswith(".ipynb")]
    if not any("BEGIN SOLUTION" in (root / path).read_text(encoding="utf-8") for path in lessons):
        raise BadInput(f"{root}: no lesson with a solution is here; run this from a clone of the project")
    contents = {path: (root / path).read_bytes() for path in found}
    contents |= {path: student_version(root / path).encode() for path in lessons}
    contents["README.md"] = README.encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(contents.items()))
    return contents | {SUMS: sums.encode()}


def _refuse_to_lose_work(target: Path) -> None:
    """An earlier build may go; a file that was changed or added since, or a folder of other origin, may not."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise BadInput(f"{target}: not a folder; name another")
    try:
        lines = (target / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    sums = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_dir() or name == SUMS and sums or ".ipynb_checkpoints" in path.parts:
            continue
        if name not in sums or sums[name] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise BadInput(f"{path}: somebody has worked here since the folder was built; move it away first")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: `python -m m2kd_lite.course FOLDER`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise BadInput("give one folder for the students' copy: python -m m2kd_lite.course build/student")
        files = build(Path(arguments[0]))
        print(f"{arguments[0]}: {sum(path.suffix == '.ipynb' for path in files)} notebooks, {len(files)} files")
    except M2KDError as error:
        print(f"m2kd_lite.course: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

"""One source, two builds: the lessons as they lie in `notebooks/`, and the copy that students get.

`m2kd-lite lessons DIR` writes a folder that can be worked in and copied anywhere: lessons, tables of results and `docs/choices.md` lie in
it as in the project, and runs land inside it. With `--student` (or `make student`) nbgrader's own steps make it the students' copy: a
stub in place of each solution, check cells locked, outputs cleared. The same sources give the same bytes.
`docs/nbgrader_config.py` takes the stub and the tag from here; `docs/instructors.md` tells the whole way.
"""
from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from m2kd_lite.errors import BadInput, CannotWrite, M2KDError
from m2kd_lite.files import places

STUB = 'raise NotImplementedError("your turn: write this function, then run the check in the next cell")'
NOT_GRADED = "trains"           # the tag of cells that train for longer than a moment: grading skips them
SOURCES = ("notebooks/*.ipynb", "data/results/*.csv", "data/paper/*.csv", "docs/choices.md", "constraints.txt")
SUMS = "SHA256SUMS"
README = """# m2kd-lite: the lessons

The lessons are in `notebooks/`; begin with the lowest number. Open them with `jupyter lab notebooks`, from an
environment that has m2kd-lite installed. `constraints.txt` names the versions that the lessons were written with.
{about}
You may copy this folder anywhere. Runs land in `runs/`, inside it.
"""
ABOUT_SOLUTIONS = """
The exercises are solved. `m2kd-lite lessons DIR --student` writes a copy in which they are not.
"""
ABOUT_STUBS = """
A function that you are to write raises `NotImplementedError`. Write it, run its cell, then run the check in the next
cell: it says what is right, and which mistake it sees. "Run All" stops at the first check that does not pass.
"""


def build(target: Path, student: bool = True) -> list[Path]:
    """Write a copy of the lessons; it replaces an earlier one as a whole.

    Parameters
    ----------
    target : the folder, say `build/student`. If it is there, it must be an earlier build that nobody has worked in.
    student : without solutions and outputs.

    Returns
    -------
    the files, relative to `target`, sorted.

    Raises
    ------
    BadInput : the folder holds work of somebody's.
    CannotWrite : the disk is full, or may not be written to.
    M2KDError : nbgrader is not installed, or a lesson's markers do not fit.
    """
    target = Path(target)
    contents = _contents(places.shipped(), student)
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
        raise M2KDError("nbgrader is not installed; get it with: python -m pip install nbgrader") from None
    import nbformat
    try:
        lesson = nbformat.read(path, as_version=4)
    except Exception as error:          # nbformat, json and jsonschema raise several types
        raise M2KDError(f"{path}: not a notebook ({type(error).__name__})") from None
    resources: dict = {}
    panels = ClearMetadataPreprocessor(enabled=True, clear_cell_metadata=False,         # their saved state is an output
                                       preserve_nb_metadata_mask={"kernelspec", "language_info"})
    for step in (steps.LockCells(), steps.ClearSolutions(code_stub={"python": STUB}), steps.ClearOutput(), panels,
                 steps.CheckCellMetadata(), steps.ComputeChecksums()):
        try:
            lesson, resources = step.preprocess(lesson, resources)
        except Exception as error:          # nbgrader raises RuntimeError and ValidationError of several libraries
            raise M2KDError(f"{path}: {type(step).__name__}: {error}") from None
    return nbformat.writes(lesson) + "\n"


def _contents(root: Path, student: bool) -> dict[str, bytes]:
    """What the build holds: path to bytes."""
    found = sorted(path.relative_to(root).as_posix() for pattern in SOURCES for path in root.glob(pattern))
    contents = {path: (root / path).read_bytes() for path in found}
    if student:
        contents |= {path: student_version(root / path).encode() for path in found if path.endswith(".ipynb")}
    contents["README.md"] = README.format(about=ABOUT_STUBS if student else ABOUT_SOLUTIONS).encode()
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
            raise BadInput(f"{path}: it was changed since the folder was built; move the folder away first")


"""How long the notebooks take, and how their committed outputs are made.

`python -m benchmarks.notebooks [NN ...]` executes the notebooks (all, or those whose names begin so), each in a fresh copy
of the project folder without runs, one after the other, and prints the seconds of the whole and of the slowest cell.
With `--write`, the executed notebooks take the place of the committed ones, free of what differs from run to run.
With `--tidy`, nothing is executed: the files that are named are freed of it, and the status is 1 if one had to be.
"""
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
WHOLE, CELL = 240, 60           # seconds on two idle cores: what a lesson may take, and what one cell of it may


def main() -> int:
    """Execute and report; 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of notebooks' names, as 02; default: all")
    parser.add_argument("--write", action="store_true", help="replace the committed notebooks by the executed ones")
    parser.add_argument("--tidy", nargs="+", type=Path, metavar="FILE", help="execute nothing; tidy these files")
    asked = parser.parse_args()
    if asked.tidy:
        return int(any([tidied(path) for path in asked.tidy]))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if not asked.names or path.name.startswith(tuple(asked.names)):
            notebook, whole, slowest, source = execute(path)
            over = " OVER" if whole > WHOLE or slowest > CELL else ""
            print(f"{path.stem:<32} {whole:4.0f} s of {WHOLE}; slowest cell {slowest:3.0f} s of {CELL}{over}: {source}", flush=True)
            if asked.write:
                nbformat.write(tidy(notebook), path)
    return 0


def execute(path: Path) -> tuple[nbformat.NotebookNode, float, float, str]:
    """The executed notebook, its seconds, those of its slowest cell, and the last line of that cell.

    Raises
    ------
    nbclient.exceptions.CellExecutionError : a cell failed that was not meant to.
    """
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    begun: list[float] = []
    seconds: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "notebooks", Path(folder) / "notebooks")
        for tables in ("results", "paper"):
            shutil.copytree(ROOT / "data" / tables, Path(folder) / "data" / tables)
        client = NotebookClient(
            notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(Path(folder) / "notebooks")}},
            record_timing=False, store_widget_state=False, on_cell_execute=lambda **_: begun.append(time.monotonic()),
            on_cell_executed=lambda cell, **_: seconds.append((time.monotonic() - begun[-1], cell.source.splitlines()[-1])))
        client.execute()
    return notebook, sum(second for second, _ in seconds), *max(seconds)


def tidied(path: Path) -> bool:
    """Tidy a file where it lies; whether that changed it."""
    before = path.read_text(encoding="utf-8")
    after = nbformat.writes(tidy(nbformat.reads(before, 4))) + "\n"
    if changed := after != before:
        path.write_text(after, encoding="utf-8")
        print(f"{path}: tidied")
    return changed


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Lines that a cell printed one by one as one output; no versions of this machine's tools, no state of panels."""
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        merged = []
        for output in cell.get("outputs", []):
            if merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name:
                merged[-1].text += output.text
            else:
                merged.append(output)
        if "outputs" in cell:
            cell.outputs = merged
    return notebook


if __name__ == "__main__":
    sys.exit(main())

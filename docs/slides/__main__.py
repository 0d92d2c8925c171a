"""The slides: each docs/slides/NN_name.md is a notebook that says what to show and what to say; this runs and exports it (make slides).

    python docs/slides [build/slides [NN ...]]

Sources are MyST Markdown notebooks. nbconvert exports them with its reveal template; scripts lie beside the pages, so nothing is asked of a
network. Press S in the browser for the speaker's view.
"""
from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from nbconvert import SlidesExporter
from nbconvert.preprocessors import ExecutePreprocessor

HERE = Path(__file__).resolve().parent
SOURCES = sorted(HERE.glob("[0-9]*.md"))
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"


def main(target: Path, names: list[str]) -> int:
    """Write the slides, or those whose names begin with one of `names`, into `target`."""
    shutil.copytree(HERE / "reveal.js", target / "reveal.js", dirs_exist_ok=True)
    (target / "reveal.js" / "dist" / "theme").mkdir(exist_ok=True)
    shutil.copy(HERE / "theme.css", target / "reveal.js" / "dist" / "theme" / "m2kd.css")
    shutil.copy(MATHJAX, target)
    for source in SOURCES:
        if not names or source.name.startswith(tuple(names)):
            (target / f"{source.stem}.html").write_text(page(executed(source), source.stem), encoding="utf-8")
            print(target / f"{source.stem}.html", flush=True)
    return 0


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source with its figures; a cell that fails is an error."""
    notebook = read_myst_markdown_notebook(source.read_text(encoding="utf-8"))
    quiet = ["--IPKernelApp.log_level=CRITICAL"]
    ExecutePreprocessor(timeout=600, kernel_name="python3", extra_arguments=quiet).preprocess(notebook, {"metadata": {"path": str(HERE)}})
    return notebook


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    """The slides as HTML: no code, figures inside, scripts beside it."""
    exporter = SlidesExporter(
        template_name="m2kd", extra_template_basedirs=[str(HERE / "templates")], exclude_input=True, exclude_input_prompt=True,
        exclude_output_prompt=True, reveal_url_prefix="reveal.js", reveal_theme="m2kd", reveal_width="1280", reveal_height="720",
        mathjax_url=MATHJAX.name)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    return html


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    folder, *chosen = sys.argv[1:] or [HERE.parents[1] / "build" / "slides"]
    sys.exit(main(Path(folder).resolve(), chosen))

"""The book: lays out its sources in one folder, and has Sphinx make a static site of them (make book).

    python docs/book [build/book]

Pages come from docs/, lessons from notebooks/ as they are committed, the reference from the docstrings. Lessons are changed only in what a
static page cannot show: a panel becomes a note, and alternative texts move to where MyST-NB reads them.
"""
from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("method", "training", "data", "results", "checks", "pictures", "widgets", "sweeps", "course", "files")
SHARED = ("config", "events", "errors", "seeds")
PAGES = {"experiments/README.md": "experiments.md"}                 # pages that lie elsewhere
EXECUTED = {"paper_m2kd": "at the paper's size", "standin_m2kd": "with a tenth of the paper's training"}         # of notebook 06
CONTENTS = {
    "Start": ["install", "panels", "method"],
    "Lessons": [*sorted(f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("[01]*.ipynb")), "notebooks/playground"],
    "Use it": ["commands", "images", "experiments", "clusters", "your_own_network", "your_own_method", "syllabus", "instructors"],
    "What stands behind it": ["choices", "start", "measured", *EXECUTED],
    "The library": ["api/index", *(f"api/{room}" for room in ROOMS), "api/shared"],
}
PICTURES = {        # what a panel looks like, by the beginning of what its notebook keeps of it
    "Explorer(": (
        "explorer.png", "The explorer: controls for data set, class batch, pruning ratio, seed and methods; below them accuracy curves and "
        "confusion matrices of four methods"),
    "Panel(children=(Play(": (
        "stepper.gif", "The reconstruction stepper: controls for model, layer and image; the weights that each of five models uses, and "
        "its answer to an image, equal to what the live network said"),
}
NOTE = "> **A panel with controls.** To use it, open the lesson in JupyterLab (`make lab`), or all panels on one page (`make playground`)."
PUBLIC = """# Public names

What most programs need has a name in the package itself: `import m2kd_lite as m2kd`, then `m2kd.run`. Each name is loaded when it is first
used. The pages below this one have everything else, room by room.

| name | what it is |
|---|---|
"""
TABLE = "The table of methods: name to `Method`."              # the one public name that is neither callable nor a module


def main(target: Path) -> int:
    """Write the site into `target`; the status is Sphinx's, for which every warning is an error."""
    from sphinx.cmd.build import build_main
    with tempfile.TemporaryDirectory(prefix="m2kd-lite-book-") as folder:
        source, site = Path(folder) / "pages", Path(folder) / "site" / "book"       # MyST-NB writes beside the site as well
        stage(source)
        status = build_main(["-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "docs" / "book"),
                             "-d", str(Path(folder) / "doctrees"), str(source), str(site)])
        if status == 0:
            shutil.copytree(site, target, dirs_exist_ok=True)
    return status


def stage(source: Path) -> None:
    """Fill the new folder `source` with everything that Sphinx reads."""
    shutil.copytree(ROOT / "docs" / "figures", source / "figures")
    pages = {path: path.name for path in (ROOT / "docs").glob("*.md")} | {ROOT / path: name for path, name in PAGES.items()}
    for path, name in pages.items():
        (source / name).write_text(linked(path.read_text("utf-8"), ""), "utf-8")
    with (source / "index.md").open("a", encoding="utf-8") as index:
        listed = {name for names in CONTENTS.values() for name in names} | {"index"}
        others = sorted({name.removesuffix(".md") for name in pages.values()} - listed)
        for caption, names in CONTENTS.items():
            names = names + others if caption == "Use it" else names
            index.write(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n")
    (source / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (source / "notebooks" / path.name).write_text(json.dumps(lesson(json.loads(path.read_text("utf-8")), "../")))
    for name, which in EXECUTED.items():
        executed = json.loads((ROOT / "docs" / f"{name}.ipynb").read_text("utf-8"))
        first = executed["cells"][0]
        first["source"] = "".join(first["source"]).replace("# A full run", f"# A full run {which}, as papermill left it", 1)
        (source / f"{name}.ipynb").write_text(json.dumps(lesson(executed, "")))
    (source / "api").mkdir()
    for name, text in reference().items():
        (source / "api" / name).write_text(text, "utf-8")


# ---- pages and lessons ----------------------------------------------------------------------------------------------

def linked(text: str, up: str) -> str:
    """Markdown in which the names of pages, lessons and functions, and links that leave docs/, lead to their place in the book."""
    text = re.sub(r"\]\(\.\./(notebooks/[^)]+)\)", rf"]({up}\1)", text)
    for path, name in PAGES.items():
        text = text.replace(f"](../{path})", f"]({up}{name})")
    names = {f"docs/{path.name}": path.name for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(pattern)}
    names |= {f"notebooks/{path.name}": f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} | PAGES
    # Of modules with the same name, the one of the first room is meant: the method's.
    modules = {path.stem: path for room in reversed(ROOMS) for path in (ROOT / "m2kd_lite" / room).glob("[a-z]*.py")}

    def link(match: re.Match) -> str:
        said = match[1]
        if said in names:
            return f"[`{said}`]({up}{names[said]})"
        module, name, *_ = f"{said}.".split(".")
        if name and module in modules and re.search(rf"(?m)^(def|class) {name}\b", modules[module].read_text("utf-8")):
            return f"{{py:obj}}`{said} <m2kd_lite.{modules[module].parent.name}.{said}>`"
        return match[0]

    parts = re.split(r"(?ms)(^```.*?^```|^ {4,}\S.*?$)", text)          # code stays
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"(?<![\[`}])`([\w./]+)`(?![\]`])", link, parts[place])
    return "".join(parts)


def lesson(notebook: dict, up: str) -> dict:
    """A notebook for a static page; `up` leads from it to the book's top."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), up)
        if "outputs" in cell:
            cell["outputs"] = joined(cell["outputs"])
        for output in cell.get("outputs", []):
            show(cell, output, up)
    return notebook


def joined(outputs: list[dict]) -> list[dict]:
    """Printed lines that follow each other, as one output. MyST-NB's own way moves all lines in front of a cell's figures and tables."""
    kept: list[dict] = []
    for output in outputs:
        if kept and output["output_type"] == kept[-1]["output_type"] == "stream" and output["name"] == kept[-1]["name"]:
            kept[-1]["text"] = "".join(kept[-1]["text"]) + "".join(output["text"])
        else:
            kept.append(output)
    return kept


def show(cell: dict, output: dict, up: str) -> None:
    """Change an output of a cell into what a static page can show."""
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        output["data"] = {"text/markdown": panel("".join(data["text/plain"]), up)}
    elif "image/png" in data:
        assert "image" not in cell["metadata"].get("mystnb", {}), "a cell with two pictures: their alternative texts need two places"
        cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(output["metadata"]["image/png"]["alt"].split())}}
    elif "text/html" in data:
        html = re.sub(r"(?s)<style scoped>.*?</style>", "", "".join(data["text/html"]))
        data["text/html"] = html.replace('border="1" ', "").replace("text-align: right;", "")


def panel(kept: str, up: str) -> str:
    """What stands in a panel's place: a note, and a picture where there is one."""
    picture = next((f"![{alt}]({up}figures/{name})" for start, (name, alt) in PICTURES.items() if kept.startswith(start)), "")
    looks = " It looks like this:" if picture else ""
    return f"{NOTE}{looks}\n\n{picture}\n"


# ---- the library ----------------------------------------------------------------------------------------------------

def reference() -> dict[str, str]:
    """The pages of the reference: the public names, then each room's modules."""
    package = ROOT / "m2kd_lite"
    pages = {"index.md": public_names(ast.parse((package / "__init__.pyi").read_text("utf-8")))}
    for room in ROOMS:
        modules = sorted(path.stem for path in (package / room).glob("*.py") if path.stem != "__init__")
        parts = [f"## {name}\n\n{automodule(f'{room}.{name}')}" for name in modules]
        pages[f"{room}.md"] = f"# {room}/\n\n{automodule(room)}" + "".join(parts)
    pages["shared.md"] = "# What all rooms share\n\n" + "".join(f"## {name}\n\n" + automodule(name) for name in SHARED)
    return pages


def automodule(name: str) -> str:
    """What has Sphinx put a module's docstrings here."""
    return f"```{{eval-rst}}\n.. automodule:: m2kd_lite.{name}\n```\n\n"


def public_names(stub: ast.Module) -> str:
    """The table of what `import m2kd_lite` offers: each name, what it is, and a link to where it lives."""
    lines = []
    for statement in stub.body:
        if not isinstance(statement, ast.ImportFrom):
            continue
        for name in sorted((alias.name for alias in statement.names), key=str.lower):
            home = f"m2kd_lite.{statement.module}" if statement.module else f"m2kd_lite.{name}"
            module = importlib.import_module(home)
            found = getattr(module, name, module)
            about = " ".join((found.__doc__ or "").split("\n\n")[0].split()) if callable(found) or found is module else TABLE
            target = home if found is module else f"{home}.{name}"
            lines.append(f"| {{py:obj}}`m2kd_lite.{name} <{target}>` | {about.replace('|', chr(92) + '|')} |")
    return PUBLIC + "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "book").resolve()))

"""Docstrings of this project for Sphinx: sections become fields, and what is no markup loses its meaning as such.

They follow numpydoc's headings (Parameters, Returns, Raises) with one line a thing, `name : what it is`, and free text under Returns. The
readers of numpydoc take what follows the colon for a type, and a line under Returns for a type of its own.
"""
import re

HEADING = re.compile(r"(?m)^(\w+(?: \([\w ]+\))?)\n-{3,}\n")
ENTRY = re.compile(r"^(\S.*?) : (.*)$")


def as_fields(text: str) -> str:
    """A docstring's text with each section as a field of reStructuredText."""
    head, *sections = HEADING.split(plain(text))
    fields = []
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        section, *after = re.split(r"\n\n(?=\S)", body.strip("\n"), maxsplit=1)
        lines = []
        for line in section.splitlines():
            entry = ENTRY.match(line)
            lines += [f"    **{entry[1]}**", f"        {entry[2]}"] if entry else [f"    {line}".rstrip()]
        fields += [f":{name}:", *lines, "", *after, ""]
    return "\n".join([head, *fields])


def plain(text: str) -> str:
    """Stars of paths and of arguments are themselves: `*.png` begins no emphasis."""
    return re.sub(r"(?<![\w*`])\*(?=\.)|\*(?=\*?given)|(?<=/)\*", r"\\*", text)


def _process(app, what, name, obj, options, lines):
    lines[:] = as_fields("\n".join(lines)).splitlines()


def setup(app):
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

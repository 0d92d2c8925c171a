"""The YAML file of a sweep, read into sections of the form that `spec.py` relies on; no value is checked yet.

A file of a few hundred bytes can ask for more than any machine has: aliases of aliases, keys without end, a product of long lists. Each
is bounded before it is written out.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput

# Characters of a file, the same with each alias written out, and the runs it may ask for.
MOST_BYTES, MOST_WRITTEN_OUT, MOST_CELLS = 1 << 19, 4 << 20, 20_000
SECTIONS = ("base", "grid", "exclude", "include")
Settings = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Plain values only; and of a key written twice, which YAML's own loader silently takes the last of, an error."""

    def get_single_node(self):
        node = super().get_single_node()
        _check_written_out(node)
        return node

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        mapping = super().construct_mapping(node, deep)         # which refuses keys that are lists
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"{twice[0]} is written twice in one place, line {node.start_mark.line + 1}")
        return mapping


def _check_written_out(node: yaml.Node | None) -> None:
    """Raise YAMLError where a file, each alias in it written out, would be longer than any that somebody means."""
    lengths: dict[int, int] = {}

    def length(node: yaml.Node | None) -> int:
        if id(node) not in lengths:
            lengths[id(node)] = MOST_WRITTEN_OUT + 1            # until it is known: of what contains itself there is no end
            below = getattr(node, "value", ())
            if isinstance(node, yaml.ScalarNode):
                lengths[id(node)] = len(below) + 1
            else:
                lengths[id(node)] = 1 + sum(length(child) for pair in below for child in (pair if isinstance(pair, tuple) else (pair,)))
        return lengths[id(node)]

    if length(node) > MOST_WRITTEN_OUT:
        raise yaml.YAMLError("with its aliases written out it is too long; write the settings themselves")


def read(path: Path) -> dict[str, Any]:
    """The sections of a file.

    Raises
    ------
    BadInput : not such a file, a section or a setting that there is none of, or more than anybody means.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise yaml.YAMLError(f"longer than {MOST_BYTES} characters")
        spec = _Loader(text).get_single_data()
    except OSError as error:
        raise BadInput(f"{path}: cannot read: {error.strerror or error}") from None
    except RecursionError:
        raise BadInput(f"{path}: not YAML: too deep") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:         # ValueError: text of no encoding, dates, long numbers
        raise BadInput(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(spec, dict) or not spec.keys() <= set(SECTIONS):
        odd = sorted(set(map(str, spec)) - set(SECTIONS))[0] if isinstance(spec, dict) else "this"
        raise BadInput(f"{path}: {odd}: no such section; give {', '.join(SECTIONS)}")
    spec = {section: spec.get(section) or ([] if section in ("exclude", "include") else {}) for section in SECTIONS}
    if isinstance(spec["grid"], dict):
        spec["grid"] = [spec["grid"]] if spec["grid"] else []
    for section in ("grid", "exclude", "include"):
        if not isinstance(spec[section], list):
            raise BadInput(f"{path}: {section}: not allowed; give a list, each entry settings as key: value")
    for section, settings in _mappings(spec):
        if not isinstance(settings, dict) or section != "base" and not settings:
            raise BadInput(f"{path}: {section}: {settings}: not allowed; give settings as key: value")
        RunConfig.check_names(settings)
        for name, values in settings.items() if section == "grid" else ():
            if not isinstance(values, list) or not values:
                raise BadInput(f"{path}: grid: {name}: {values}: not allowed; give a list of values, as [1, 2]")
    return spec


def _mappings(spec: Mapping[str, Any]) -> Iterator[tuple[str, Settings]]:
    yield "base", spec["base"]
    for section in ("grid", "exclude", "include"):
        for settings in spec[section]:
            yield section, settings


def named_in(spec: Mapping[str, Any]) -> list[str]:
    """The settings in which the cells of a file may differ by its author's will."""
    return [name for name in RunConfig.model_fields
            if any(name in settings for section, settings in _mappings(spec) if section in ("grid", "include"))]

"""Figures, one module a subject: each function takes numbers and returns a `Figure` with its text alternative.

`from m2kd_lite import pictures` gives them by name, as `pictures.stream.class_stream`; each is loaded when it is first used.
"""
import importlib

MODULES = ("explorer", "exemplars", "heads", "lessons", "map", "masks", "painting", "paper", "plots", "rebuilding", "stream", "training")


def __getattr__(name: str):
    if name in MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

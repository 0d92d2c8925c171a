"""Panels for notebooks: thin controls over pure functions of a state, which tests call without a kernel."""
from m2kd_lite.widgets.stream import stream_viewer

__all__ = ["stream_viewer"]

"""Panels for notebooks: thin controls over pure functions of a state, which tests call without a kernel."""
from m2kd_lite.widgets.explorer import explorer
from m2kd_lite.widgets.painter import painter_stepper
from m2kd_lite.widgets.stepper import reconstruction_stepper
from m2kd_lite.widgets.stream import stream_viewer
from m2kd_lite.widgets.targets import target_viewer
from m2kd_lite.widgets.training import TrainingView, training_panel

__all__ = ["TrainingView", "explorer", "painter_stepper", "reconstruction_stepper", "stream_viewer", "target_viewer", "training_panel"]

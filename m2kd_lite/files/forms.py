"""The form of the JSON in a run's files: what must be there, and of which type, before anything is done with it.

A fitting SHA-256 says that a file is as it was written; that it was written by a run is for these forms to say. They
check and change nothing: keys beside these are allowed. Used by `rundir.py`, `snapshots.py` and `painter_file.py`.
"""
from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from m2kd_lite.config import BACKBONES

Count = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Position(_Form):
    step: FromOne
    phase: Literal["train", "finetune", "paint", "done"]
    epoch: Count
    batch: Count


class _Environment(_Form):
    since: _Position | None = None


class _Step(_Form):
    """What is measured after a step."""

    step: FromOne
    classes_seen: FromOne
    top1: float
    top5: float
    accuracy_by_step: list[float]
    confusion: list[list[Count]]
    train_seconds: float
    teacher_seconds: float
    loss: float

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if len(self.accuracy_by_step) != self.step:
            raise ValueError("not one accuracy a step")
        if {len(self.confusion), *map(len, self.confusion)} != {self.classes_seen}:
            raise ValueError("not one row and one column of the confusion matrix a class")
        return self


class _Bytes(_Form):
    """The ledger of one step."""

    weights: Count
    mask: Count
    batch_norm: Count
    heads: Count
    exemplars: Count
    total: Count


class _AllBytes(_Form):
    per_step: list[_Bytes]
    total: Count
    added: int


class Metrics(_Form):
    """metrics.json."""

    schema_: Literal[1] = Field(alias="schema")
    config: dict[str, Any]
    environment: dict[str, Any]
    environments: list[_Environment] = []
    data_sha256: str
    class_names: list[str]
    steps: Annotated[list[_Step], Field(min_length=1)]
    average_incremental_accuracy: float
    final_accuracy: float
    forgetting: float
    bytes: _AllBytes
    wall_seconds: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if [result.step for result in self.steps] != list(range(1, len(self.bytes.per_step) + 1)):
            raise ValueError("not one entry a step")
        return self


class _Result(_Step):
    """A step's measurements in a checkpoint, where the bytes still lie beside them."""

    bytes: _Bytes


class _Seconds(_Form):
    train: float
    teacher: float
    wall: float


class Checkpoint(_Form):
    """The notes of a checkpoint's state."""

    serial: Count
    models: Count
    data_sha256: str
    arithmetic: dict[str, Any] = {}
    environments: list[_Environment] = []
    position: _Position
    results: list[_Result]
    seconds: _Seconds
    step_loss: float | None

    @model_validator(mode="after")
    def _in_step(self) -> Self:
        if not len(self.results) == self.models == self.position.step - 1:
            raise ValueError("not one result and one model a finished step")
        if [result.step for result in self.results] != list(range(1, self.position.step)):
            raise ValueError("its steps are out of order")
        return self


class Snapshots(_Form):
    """The notes of a file of snapshots."""

    backbone: Literal[(*BACKBONES, "own")]
    channels: Annotated[int, Field(ge=0, le=1024)]
    auxiliary: bool
    cosine: bool = False
    masked: bool
    notes: dict[str, Any]
    classes: list[FromOne]

    @model_validator(mode="after")
    def _own(self) -> Self:
        if (self.backbone == "own") != (self.channels == 0) or self.backbone == "own" and self.auxiliary:
            raise ValueError("no channels, or an auxiliary head, of a network that is none of ours")
        return self


class Painter(_Form):
    """The notes of a file of drawings' weights."""

    classes: FromOne
    channels: Annotated[int, Field(ge=1, le=1024)]
    width: FromOne
    seed: Count
    widths: list[Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)]]


def misfit(form: type[_Form], content: Any) -> str:
    """What is wrong with `content`, in one line; nothing where it fits."""
    try:
        form.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return ".".join(map(str, first["loc"])) + f": {first['msg']}" if first["loc"] else first["msg"]
    return ""

"""What a run is: one validated, immutable `RunConfig`, and the three profiles that fill in what was not said.

Every field is an option of `m2kd-lite run`, a papermill parameter of the full-run notebook and a key of a sweep,
under the same name. Loads neither torch nor data, so that `--help` and bad input answer at once.
"""
from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined

from m2kd_lite.errors import BadInput

EXEMPLAR_METHODS = ("icarl", "icarl-aux", "icarl-m2kd")
METHOD_NAMES = ("finetune", "lwf-mc", "m2kd-no-pruning", "m2kd", "joint", "scaled", "rwalk", "ewc", *EXEMPLAR_METHODS)
DATASET_NAMES = ("glyphs", "digits", "fashion-mnist", "cifar100", "imagefolder")
CLASS_ORDERS = ("natural", "seed1993", "icarl", "random")
BACKBONES = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet18")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
EMBEDDED = ("glyphs", "digits")                 # need no download and no folder

# Every method gets the same hyper-parameters in a profile. `decay_at` places the milestones in a schedule of any length.
PROFILES: dict[str, dict[str, Any]] = {
    # Tests: everything runs, nothing is learnt.
    "smoke": dict(backbone="resnet8", epochs=1, finetune_epochs=1, batch_size=32, class_order="seed1993",
                  train_per_class=8, test_per_class=4, decay_at=(0.5,), exemplars=200),
    # A lesson: five steps of glyphs in about a minute on two cores. Batch 32, because binary cross entropy leaves its
    # plateau slowly on little data: the number of updates counts, not the number of images. For the same reason the
    # rate falls late, after 0.7 of the epochs, where iCaRL's code has its first milestone (49 of 70).
    "quick": dict(backbone="resnet8", epochs=10, finetune_epochs=1, batch_size=32, class_order="seed1993",
                  train_per_class=None, test_per_class=None, decay_at=(0.7,), exemplars=200),
    # Section 4.1: "training batch size of 128", "80 epochs for Cifar-100", "decays by a factor of 5 every 40 epochs",
    # "fine tune the network for another 15 epochs". The class order is that of iCaRL, whose setting the paper follows.
    # Section 4.6: "2000 samples (i.e. the default exemplar size)"; that is 4 % of CIFAR-100, and 200 are 5 % of the glyphs.
    "paper": dict(backbone="resnet32", epochs=80, finetune_epochs=15, batch_size=128, class_order="icarl",
                  train_per_class=None, test_per_class=None, decay_at=(0.5,), exemplars=2000),
}


def _one_of(values) -> str:
    return "one of " + ", ".join(values)


def _field(default, about: str, allowed: str, **constraints):
    return Field(default, description=about, json_schema_extra={"allowed": allowed}, **constraints)


class RunConfig(BaseModel):
    """One run, fully resolved: a field left out takes its value from the profile.

    Raises `BadInput` through `RunConfig.make`, one line naming the field, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal[METHOD_NAMES] = _field("m2kd", "a row of the table in methods.py", _one_of(METHOD_NAMES))
    dataset: Literal[DATASET_NAMES] = _field("glyphs", "where the images come from", _one_of(DATASET_NAMES))
    data_root: str | None = _field(None, "folder of the data set (imagefolder: ROOT/{train,test|val}/CLASS/)",
                                   "a folder; only for imagefolder, cifar100 and fashion-mnist")
    class_batch: int = _field(20, "new classes at each incremental step", "a whole number, 1 or more", ge=1)
    class_order: Literal[CLASS_ORDERS] = _field(..., "the order in which classes arrive", _one_of(CLASS_ORDERS))
    backbone: Literal[BACKBONES] = _field(..., "the network", _one_of(BACKBONES))
    epochs: int = _field(..., "epochs of each incremental step", "a whole number, 1 or more", ge=1)
    finetune_epochs: int = _field(..., "epochs after each prune (15 in section 4.1)", "a whole number, 0 or more", ge=0)
    # Section 4.1: "the initial learning rate of 2.0". It suits a loss averaged over all outputs (see losses.py).
    lr: float = _field(2.0, "initial learning rate", "a number above 0", gt=0)
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = _field(
        ..., "epochs after which the rate falls, as 40 or 20,40", "rising whole numbers from 1 to epochs - 1")
    # Section 4.1: "decays by a factor of 5".
    gamma: float = _field(0.2, "factor of the rate at each milestone", "a number above 0, at most 1", gt=0, le=1)
    batch_size: int = _field(..., "images a batch", "a whole number, 2 or more", ge=2)
    # Section 4.1: "Weight decay with a factor of 1e-5 is applied for the first incremental step and 0 for the rest".
    weight_decay: float = _field(1e-5, "weight decay of step 1; later steps have none", "a number from 0 to 1", ge=0, le=1)
    # Section 4.1: "a momentum 0.9".
    momentum: float = _field(0.9, "momentum of SGD", "a number from 0, below 1", ge=0, lt=1)
    # Section 4.1: "0.75 for class batch less than 20 and 0.8 for 20 groups".
    pruning_ratio: float = _field(..., "share of the free weights given back after a step (0.75; 0.8 from class batch 20)",
                                  "a number above 0 and below 1", gt=0, lt=1)
    # Section 4.1: "empirically set alpha to 0.5".
    alpha: float = _field(0.5, "weight of the hard labels on the auxiliary head (Eq. 3)", "a number from 0 to 10", ge=0, le=10)
    # Section 4.1: "lambda is set to be 1.0".
    lambda_aux: float = _field(1.0, "weight of the auxiliary loss (Eq. 4)", "a number from 0 to 10", ge=0, le=10)
    exemplars: int = _field(..., "images kept from old classes, in all (2000 in section 4.6)",
                            "a whole number, at least one a class of the data set", ge=0)
    train_per_class: int | None = _field(..., "use only the first so many training images of a class",
                                         "a whole number, 1 or more", ge=1)
    test_per_class: int | None = _field(..., "use only the first so many test images of a class",
                                        "a whole number, 1 or more", ge=1)
    seed: int = _field(0, "seed of everything random", "a whole number from 0 to 4294967295", ge=0, le=2**32 - 1)
    device: str = _field("auto", "where to compute", "auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    # Not auto by default: rounding is part of an experiment. With bf16, the quick profile learns step 1 of M2KD better
    # (80 % against 71 %, three seeds), and everybody in a course should see the same picture.
    precision: Literal[PRECISIONS] = _field(
        "fp32", "arithmetic of convolutions and heads; auto: bf16 on a CPU with matrix units for it, else fp32; tf32 needs a GPU",
        _one_of(PRECISIONS))
    profile: Literal[tuple(PROFILES)] = _field("quick", "what fills in the fields left out", _one_of(PROFILES))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in given.items() if value is not None}
        profile = dict(PROFILES.get(given.get("profile", "quick"), PROFILES["quick"]))
        decay_at, exemplars = profile.pop("decay_at"), profile.pop("exemplars")
        values = profile | given
        if "milestones" not in values and str(values["epochs"]).isdecimal():
            epochs = int(values["epochs"])
            values["milestones"] = [m for m in (round(share * epochs) for share in decay_at) if 1 <= m < epochs]
        values.setdefault("milestones", [])
        values.setdefault("exemplars", exemplars if values.get("method") in EXEMPLAR_METHODS else 0)
        if "pruning_ratio" not in values:
            values["pruning_ratio"] = 0.8 if str(values.get("class_batch", 20)).isdecimal() and int(
                values.get("class_batch", 20)) >= 20 else 0.75
        return values

    @field_validator("milestones", mode="before")
    @classmethod
    def _split_milestones(cls, value):
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_combinations(self) -> RunConfig:
        steps = (0, *self.milestones, self.epochs)
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            raise _not_allowed("milestones", ",".join(map(str, self.milestones)),
                               f"rising whole numbers from 1 to epochs - 1 = {self.epochs - 1}")
        if self.exemplars and self.method not in EXEMPLAR_METHODS:
            raise _not_allowed("exemplars", str(self.exemplars), f"0: --method {self.method} keeps no exemplars")
        if not self.exemplars and self.method in EXEMPLAR_METHODS:
            raise _not_allowed("exemplars", "0", "at least one a class: without exemplars there is no class mean to be near to")
        if self.dataset == "imagefolder" and not self.data_root:
            raise _not_allowed("data_root", "(none)", "the folder with train/ and test/, which --dataset imagefolder needs")
        if self.dataset in EMBEDDED and self.data_root:
            raise _not_allowed("data_root", self.data_root, f"nothing: --dataset {self.dataset} is embedded")
        return self

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> RunConfig:
        """Validate `values` (strings or Python values; None means "not said").

        Raises
        ------
        BadInput : one line naming the option, the value and what is allowed.
        """
        cls.check_names(values)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise _not_allowed(name, _shown(values.get(name, first["input"])), allowed(name)) from None

    @classmethod
    def check_names(cls, values: Iterable[Any]) -> None:
        """Raise BadInput for a name that is no setting."""
        unknown = [str(name) for name in values if name not in cls.model_fields]
        if unknown:
            near = difflib.get_close_matches(unknown[0], cls.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else "known: " + " ".join(cls.model_fields)
            raise BadInput(f"{unknown[0]}: no such setting; {hint}")

    def learning_rate(self, epoch: int) -> float:
        """The rate of `epoch` (from 0) in a training phase."""
        return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)

    def finetune_rate(self) -> float:
        """The rate after the prune: the paper gives none; we stay at the schedule's last."""
        return self.learning_rate(self.epochs - 1)


def allowed(name: str) -> str:
    """What a field takes, in words."""
    return RunConfig.model_fields[name].json_schema_extra["allowed"]


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def default_text(name: str) -> str:
    """A field's default in words, for `--help` and the notebook."""
    default = RunConfig.model_fields[name].default
    said = {"pruning_ratio": "0.75; 0.8 from class batch 20", "exemplars": "0; for iCaRL from the profile",
            "milestones": "from the profile", PydanticUndefined: "from the profile", None: "none"}
    return said.get(name) or said.get(default) or str(default)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _not_allowed(name: str, value: str, what: str) -> BadInput:
    return BadInput(f"{option(name)} {value}: not allowed; give {what}")

"""What a run is: one validated, immutable `RunConfig`, and the profiles that fill in what was not said.

Every field is an option of `m2kd-lite run`, a papermill parameter of the full-run notebook and a key of a sweep,
under the same name. Loads neither torch nor data, so that `--help` and bad input answer at once.
"""
from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined

from m2kd_lite.errors import BadInput

EXEMPLAR_METHODS = ("icarl", "icarl-aux", "icarl-m2kd")
OUR_METHODS = ("finetune", "lwf-mc", "m2kd-no-pruning", "m2kd", "joint", "scaled", "rwalk", "ewc", *EXEMPLAR_METHODS, "dgm")
# Rows that other packages bring, by name: what an entry point of this group names is a `Method` (docs/your_own_method.md). Loaded when used.
PLUG_INS = {entry.name: entry for entry in entry_points(group="m2kd_lite.methods") if entry.name not in OUR_METHODS}
METHOD_NAMES = (*OUR_METHODS, *sorted(PLUG_INS))
DATASET_NAMES = ("glyphs", "digits", "fashion-mnist", "cifar100", "imagefolder")
CLASS_ORDERS = ("natural", "seed1993", "icarl", "random")
BACKBONES = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet18")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "bf16-compiled")
AUGMENTATIONS = ("flip", "crop")
NORMALISERS = ("all", "seen")
FINETUNE_SCHEDULES = ("last", "whole")
MAX_STEPS = 255                                 # a mask is one byte a weight, and names the step that owns it
SMOKE = "M2KD_LITE_SMOKE"                       # environment variable: every training is cut short, to see that all cells of a lesson run
EMBEDDED = ("glyphs", "digits")                 # need no download and no folder

# Every method gets the same hyper-parameters in a profile. `decay_at` places the milestones in a schedule of any length.
PROFILES: dict[str, dict[str, Any]] = {
    # Tests: everything runs, nothing is learnt.
    "smoke": dict(backbone="resnet8", epochs=1, finetune_epochs=1, batch_size=32, class_order="seed1993",
                  train_per_class=8, test_per_class=4, decay_at=(0.5,), weight_decay=1e-5, exemplars=200, prior=0.05, generator_epochs=2,
                  generator_width=4),
    # A lesson: five steps of glyphs in about a minute on two cores. Batch 32, because binary cross entropy leaves its
    # plateau slowly on little data: the number of updates counts, not the number of images. For the same reason the
    # rate falls late, after 0.7 of the epochs, where iCaRL's code has its first milestone (49 of 70), and new outputs begin at
    # a prior: docs/start.md has the rule by which it was chosen, and what it gains.
    # The painter of DGM is a quarter as wide as the paper's, so that five steps of digits take minutes.
    "quick": dict(backbone="resnet8", epochs=10, finetune_epochs=1, batch_size=32, class_order="seed1993",
                  train_per_class=None, test_per_class=None, decay_at=(0.7,), weight_decay=1e-5, exemplars=200, prior=0.05,
                  generator_epochs=60, generator_width=16),
    # Section 4.1: "training batch size of 128", "80 epochs for Cifar-100", "decays by a factor of 5 every 40 epochs",
    # "fine tune the network for another 15 epochs". The class order is that of iCaRL, whose setting the paper follows.
    # Section 4.6: "2000 samples (i.e. the default exemplar size)"; that is 4 % of CIFAR-100, and 200 are 5 % of the glyphs.
    "paper": dict(backbone="resnet32", epochs=80, finetune_epochs=15, batch_size=128, class_order="icarl",
                  train_per_class=None, test_per_class=None, decay_at=(0.5,), weight_decay=1e-5, exemplars=2000, prior=0.5,
                  generator_epochs=150, generator_width=64),
}
# Section 4.1 to the letter ends step 1 at 78.2 % where Table 1 has 83.5 (docs/measured.md). iCaRL's code, from which the paper takes its
# learning rate, has 70 epochs, a rate that falls after 49 and 63, and 1e-5 times the squared weights in its loss, which
# SGD counts as a decay of 2e-5. With outputs that begin at a prior, it ends at 82.2 %; flips remain the only augmentation.
PROFILES["icarl-recipe"] = PROFILES["paper"] | dict(epochs=70, decay_at=(0.7, 0.9), weight_decay=2e-5, prior=0.05)


def _one_of(values) -> str:
    return "one of " + ", ".join(values)


def _field(default, about: str, allowed: str, **constraints):
    return Field(default, description=about, json_schema_extra={"allowed": allowed}, **constraints)


class RunConfig(BaseModel):
    """One run, fully resolved: a field left out takes its value from the profile.

    Raises `BadInput` through `RunConfig.make`, one line naming the field, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal[METHOD_NAMES] = _field("m2kd", "the method: a row of the table in method/table.py", _one_of(METHOD_NAMES))
    dataset: Literal[DATASET_NAMES] = _field("glyphs", "source of the images", _one_of(DATASET_NAMES))
    data_root: str | None = _field(None, "folder of the data set (imagefolder: ROOT/{train,test|val}/CLASS/)",
                                   "a folder; only for imagefolder, cifar100 and fashion-mnist")
    class_batch: int = _field(20, "new classes per incremental step", "a whole number, 1 or more", ge=1)
    # Half of the classes first is a protocol of other papers (Hou et al. 2019, LUCIR); this paper's steps are all alike.
    first_class_batch: int | None = _field(None, "classes in the first step, if different (50 of 100 is common)",
                                           "a whole number, 1 or more", ge=1)
    class_order: Literal[CLASS_ORDERS] = _field(..., "order in which classes arrive", _one_of(CLASS_ORDERS))
    backbone: Literal[BACKBONES] = _field(..., "backbone network", _one_of(BACKBONES))
    epochs: int = _field(..., "epochs per incremental step", "a whole number, 1 or more", ge=1)
    finetune_epochs: int = _field(..., "epochs after each pruning (15 in section 4.1)", "a whole number, 0 or more", ge=0)
    # Section 4.1 gives no rate for them. At the paper's size the whole schedule takes back what the prune costs (docs/measured.md).
    finetune_schedule: Literal[FINETUNE_SCHEDULES] = _field("last", "learning rate after each pruning: the schedule's last, or its whole schedule "
                                                            "in fewer epochs", _one_of(FINETUNE_SCHEDULES))
    # Section 4.1: "the initial learning rate of 2.0". It suits a loss averaged over all outputs (see losses.py).
    lr: float = _field(2.0, "initial learning rate", "a number above 0", gt=0)
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = _field(
        ..., "epochs after which the learning rate drops, such as 40 or 20,40", "increasing whole numbers from 1 to epochs - 1")
    # Section 4.1: "decays by a factor of 5".
    gamma: float = _field(0.2, "factor applied to the learning rate at each milestone", "a number above 0, at most 1", gt=0, le=1)
    batch_size: int = _field(..., "images per batch", "a whole number, 2 or more", ge=2)
    # Section 4.1: "Only random horizontal flipping is applied as data augmentation for all experiments". iCaRL's code crops as well.
    augment: Literal[AUGMENTATIONS] = _field("flip", "flip: random mirroring; crop: random shifts of up to 4 pixels as well, for "
                                             "which teachers are asked in every batch", _one_of(AUGMENTATIONS))
    # One half is what an output of random weights says. Lin et al. 2017 (focal loss), section 3.3, begin at a prior instead.
    prior: float = _field(..., "initial probability of a new output, as a sigmoid", "a number above 0 and below 1", gt=0, lt=1)
    # iCaRL's code, whose learning rate section 4.1 takes over, averages over all outputs, seen or not.
    normaliser: Literal[NORMALISERS] = _field("all", "classes that the loss is averaged over: all of the stream, or those seen so far",
                                              _one_of(NORMALISERS))
    # Section 4.1: "Weight decay with a factor of 1e-5 is applied for the first incremental step and 0 for the rest in our
    # full model"; here for every method (docs/choices.md).
    weight_decay: float = _field(..., "weight decay in step 1; later steps use none", "a number from 0 to 1", ge=0, le=1)
    # Section 4.1: "a momentum 0.9".
    momentum: float = _field(0.9, "momentum of SGD", "a number from 0, below 1", ge=0, lt=1)
    # Section 4.1: "0.75 for class batch less than 20 and 0.8 for 20 groups".
    pruning_ratio: float = _field(..., "share of the free weights released after each step (0.75; 0.8 from class batch 20)",
                                  "a number above 0 and below 1", gt=0, lt=1)
    # Section 4.1: "empirically set alpha to 0.5".
    alpha: float = _field(0.5, "weight of the hard labels on the auxiliary head (Eq. 3)", "a number from 0 to 10", ge=0, le=10)
    # Section 4.1: "lambda is set to be 1.0".
    lambda_aux: float = _field(1.0, "weight of the auxiliary loss (Eq. 4)", "a number from 0 to 10", ge=0, le=10)
    exemplars: int = _field(..., "total number of images kept from old classes (2000 in section 4.6)",
                            "a whole number, at least one per class of the data set", ge=0)
    generator_epochs: int = _field(..., "epochs of DGM's generator per incremental step", "a whole number, 1 or more", ge=1)
    generator_width: int = _field(..., "channels of DGM's generator before its last layer, in step 1", "a whole number from 1 to 512", ge=1, le=512)
    # Ostapenko et al. 2019 multiply it by how much the generator has grown.
    mask_penalty: float = _field(1e-3, "price of the weights that a mask of DGM's generator takes", "a number from 0 to 1000", ge=0, le=1000)
    train_per_class: int | None = _field(..., "use only the first N training images of each class",
                                         "a whole number, 1 or more", ge=1)
    test_per_class: int | None = _field(..., "use only the first N test images of each class",
                                        "a whole number, 1 or more", ge=1)
    steps: int | None = _field(None, "stop after this many steps; --resume with a larger number continues", "a whole number from 1 to the "
                               "steps of the stream, or all", ge=1)
    seed: int = _field(0, "random seed", "a whole number from 0 to 4294967295", ge=0, le=2**32 - 1)
    device: str = _field("auto", "device to compute on", "auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    # Not auto by default: rounding is part of an experiment, and everybody in a course should see the same picture.
    precision: Literal[PRECISIONS] = _field(
        "fp32", "arithmetic of convolutions and heads; auto: bf16 on CPUs where it is faster, else fp32; tf32: on a GPU; "
        "bf16-compiled: on a CPU",
        _one_of(PRECISIONS))
    profile: Literal[tuple(PROFILES)] = _field("quick", "source of all unset options", _one_of(PROFILES))

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
        values.setdefault("exemplars", exemplars if keeps_exemplars(values.get("method")) else 0)
        if "pruning_ratio" not in values:
            values["pruning_ratio"] = 0.8 if str(values.get("class_batch", 20)).isdecimal() and int(
                values.get("class_batch", 20)) >= 20 else 0.75
        return values

    @field_validator("steps", mode="before")
    @classmethod
    def _all_steps(cls, value):
        return None if value == "all" else value

    @field_validator("milestones", mode="before")
    @classmethod
    def _split_milestones(cls, value):
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_combinations(self) -> RunConfig:
        steps = (0, *self.milestones, self.epochs)
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            raise _not_allowed("milestones", ",".join(map(str, self.milestones)),
                               f"increasing whole numbers from 1 to epochs - 1 = {self.epochs - 1}")
        if self.exemplars and not keeps_exemplars(self.method):
            raise _not_allowed("exemplars", str(self.exemplars), f"0: --method {self.method} keeps no exemplars")
        if not self.exemplars and keeps_exemplars(self.method):
            raise _not_allowed("exemplars", "0", "at least one per class: without exemplars there are no class means to compare with")
        if self.augment == "crop" and self.method == "scaled":
            raise _not_allowed("augment", "crop", "flip: --method scaled counts what was asked for from targets that are filled once a step")
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
        for name, value in values.items():                  # looked up below, before any type is checked
            if isinstance(value, (dict, set)) or isinstance(value, (list, tuple)) and name != "milestones":
                raise _not_allowed(name, _shown(value), allowed(name))
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

    def finetune_rate(self, epoch: int) -> float:
        """The rate of `epoch` (from 0) after the prune. Either way the last epoch has the schedule's last rate."""
        if self.finetune_schedule == "last":
            return self.learning_rate(self.epochs - 1)
        return self.learning_rate((epoch + 1) * self.epochs // self.finetune_epochs - 1)


def smoke_wanted() -> bool:
    """Whether the environment asks for trainings that are cut short."""
    return bool(os.environ.get(SMOKE))


def smoke_sized(config: RunConfig) -> RunConfig:
    """A run as small as those of the profile smoke, with all else as it was. Where exemplars are kept, all training images stay: a
    lesson looks them up by their positions."""
    small = PROFILES["smoke"]
    counts = ("test_per_class",) if config.exemplars else ("train_per_class", "test_per_class")
    return RunConfig.make(config.model_dump() | {
        "epochs": 1, "milestones": (), "finetune_epochs": min(1, config.finetune_epochs),
        "generator_epochs": min(config.generator_epochs, small["generator_epochs"]), **{
            name: min(getattr(config, name) or small[name], small[name]) for name in counts}})


def plug_in(name: str) -> Any:
    """The `Method` that another package brings under this name.

    Raises
    ------
    BadInput : it cannot be loaded, or is none.
    """
    entry = PLUG_INS[name]
    try:
        row = entry.load()
    except Exception as error:          # whatever somebody's code does when it is imported, it is theirs
        raise BadInput(f"--method {name}: {entry.value} cannot be loaded ({type(error).__name__}: {error})") from None
    if not hasattr(row, "keeps_exemplars"):
        raise BadInput(f"--method {name}: {entry.value} is a {type(row).__name__}, not a Method")
    return row


def keeps_exemplars(method: str | None) -> bool:
    """Whether a method keeps images of old classes."""
    return method in EXEMPLAR_METHODS or method in PLUG_INS and plug_in(method).keeps_exemplars


def allowed(name: str) -> str:
    """What a field takes, in words."""
    extra = RunConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def default_text(name: str) -> str:
    """A field's default in words, for `--help` and the notebook."""
    default = RunConfig.model_fields[name].default
    said = {"pruning_ratio": "0.75; 0.8 from class batch 20", "exemplars": "0; for iCaRL from the profile",
            "milestones": "from the profile", "steps": "all", PydanticUndefined: "from the profile", None: "none"}
    return said.get(name) or said.get(default) or str(default)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _not_allowed(name: str, value: str, what: str) -> BadInput:
    return BadInput(f"{option(name)} {value}: not allowed; give {what}")

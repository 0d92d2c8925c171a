"""Every past model of a run in one file, and model k rebuilt from it bit for bit (section 3.3, Eq. 7-8).

With pruning, all models share one set of convolution weights and a mask that says which step owns each; a step adds
which weights it took, its batch-norm parameters and statistics, and its heads. Without pruning a step adds its whole
state. Either way `reconstruct(k)` reads the same: the step's own parts, and the shared weights that are active at k.
How the small parts are packed is in `packing.py`. Written by `train.py`; read by `m2kd-lite reconstruct` and notebooks.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from m2kd_lite import forms, masks, packing, storage
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.nets import IncrementalNet

FORMAT = "m2kd-lite snapshots 2"
SHARED = ("pixel_mean", "pixel_std")        # set in step 1 and the same in every model
PACKED = ("batch_norm", "heads")            # components of a step that are one frame each in a file


@dataclass
class Snapshots:
    """All models of a run so far, as tensors on one device.

    Attributes
    ----------
    backbone, channels, auxiliary : what `IncrementalNet` needs to be built.
    parts : per step, the tensors that only this step's model has, by their names in the network. Where models share
        weights, the auxiliary head is kept for the step's own classes only: a teacher is asked about no others, and
        the head serves training only.
    weights : convolution weights that all models share; empty without pruning.
    masks : uint8, the owner of each of those weights.
    shared : what every model has in common besides.
    notes : JSON values about the run (class names in order, columns, configuration).
    """

    backbone: str
    channels: int
    auxiliary: bool
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.parts)

    def __repr__(self) -> str:
        kind = "one weight set and a mask" if self.masks else "whole models"
        return f"Snapshots({self.backbone}, {len(self)} steps, {kind})"

    def add(self, net: IncrementalNet, new_masks: dict[str, Tensor]) -> None:
        """Remember `net` as the model of the next step. `new_masks` is empty for a method that does not prune."""
        state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        self.shared = {name: state.pop(name) for name in SHARED}
        self.weights = {name: state.pop(name) for name in new_masks}
        self.masks = {name: mask.clone() for name, mask in new_masks.items()}
        if self.masks and self.auxiliary:
            for name in ("auxiliary.weight", "auxiliary.bias"):
                state[name] = state[name][self._old_classes(len(self) + 1):].clone()
        self.parts.append(state)

    def first(self, count: int) -> Snapshots:
        """The models of the first `count` steps, as they were before the later ones came."""
        owners = {name: mask.masked_fill(mask > count, 0) for name, mask in self.masks.items()}
        weights = {name: weight.masked_fill(owners[name] == 0, 0.0) for name, weight in self.weights.items()}
        return replace(self, parts=self.parts[:count], weights=weights, masks=owners)

    def _old_classes(self, step: int) -> int:
        return len(self.parts[step - 2]["main.bias"]) if step > 1 else 0

    def state(self, step: int) -> dict[str, Tensor]:
        """The state dictionary of model `step` (from 1), by Eq. 7 and 8.

        Raises
        ------
        BadInput : there is no such step.
        """
        if not 1 <= step <= len(self):
            raise BadInput(f"--step {step}: not allowed; give a whole number from 1 to {len(self)}")
        rebuilt = {name: weight.masked_fill(~masks.active(self.masks[name], step), 0.0)
                   for name, weight in self.weights.items()}
        return rebuilt | self.shared | self.parts[step - 1]

    def reconstruct(self, step: int, state: Callable[[Snapshots, int], dict[str, Tensor]] | None = None) -> IncrementalNet:
        """Model `step` as it was when its step ended, in eval mode: on the same device, the same logits bit for bit.

        Where models share weights, the auxiliary head is kept for the step's own classes: the auxiliary logits of older
        ones are NaN, so that no use goes unseen.

        Parameters
        ----------
        state : what to use in place of `Snapshots.state`, for a lesson in which the student writes it.
        """
        rebuilt = (state or Snapshots.state)(self, step)
        for name in ("auxiliary.weight", "auxiliary.bias"):
            if name in rebuilt:
                kept = rebuilt[name]
                absent = kept.new_full((len(rebuilt["main.bias"]) - len(kept), *kept.shape[1:]), math.nan)
                rebuilt = rebuilt | {name: torch.cat([absent, kept])}
        net = IncrementalNet(self.backbone, self.channels, self.auxiliary, seed=0).to(rebuilt["main.weight"].device)
        try:
            net.load_state(rebuilt)
        except ValueError as error:
            raise DamagedFile(f"snapshots of step {step}: {error}") from None
        return net.eval().requires_grad_(False)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Flat names to tensors, and JSON notes: what a file holds."""
        tensors = {f"shared/{name}": tensor for name, tensor in self.shared.items()}
        tensors |= {f"weights/{name}": weight for name, weight in self.weights.items()}
        for step, (part, frames) in enumerate(zip(self.parts, self.frames(), strict=True), 1):
            tensors |= {f"step{step:03d}/{name}": tensor for name, tensor in part.items() if _component(name, tensor) == "weights"}
            tensors |= {f"step{step:03d}/{component}": frame for component, frame in frames.items()}
        return tensors, {"format": FORMAT, "backbone": self.backbone, "channels": self.channels,
                         "auxiliary": self.auxiliary, "masked": bool(self.masks), "notes": self.notes,
                         "classes": [len(part["main.bias"]) for part in self.parts]}

    def frames(self) -> list[dict[str, Tensor]]:
        """What each step adds beside whole convolution weights, packed as in the file: uint8, by component."""
        owners = packing.pack_masks(self.masks, len(self)) if self.masks else []
        frames = []
        for step, part in enumerate(self.parts, 1):
            frames.append({component: packing.pack_floats({name: tensor for name, tensor in part.items()
                                                           if _component(name, tensor) == component})
                           for component in PACKED})
            if owners:
                frames[-1]["mask"] = owners[step - 1]
        return frames

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], notes: dict, device: str | torch.device = "cpu") -> Snapshots:
        """The inverse of `to_tensors`. Raises KeyError or ValueError where the two do not fit each other."""
        if notes["format"] != FORMAT:
            raise ValueError(f"format {notes['format']!r}, not {FORMAT!r}")
        wrong = forms.misfit(forms.Snapshots, notes)
        if wrong:
            raise ValueError(wrong)
        packed = tuple(f"/{component}" for component in (*PACKED, "mask"))
        odd = [name for name, tensor in tensors.items()
               if tensor.dtype != (torch.uint8 if name.endswith(packed) else torch.float32)]
        if odd:
            raise ValueError(f"{odd[0]} is of another type")
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor
        steps = [groups[f"step{step:03d}"] for step in range(1, len(notes["classes"]) + 1)]
        weights = groups.get("weights", {})
        owners = {}
        if notes["masked"]:
            owners = packing.unpack_masks([frames.pop("mask") for frames in steps], {name: w.shape for name, w in weights.items()})
        net = IncrementalNet(notes["backbone"], notes["channels"], notes["auxiliary"], seed=0)
        norms = {name: tensor.shape for name, tensor in net.state_dict().items()
                 if name not in SHARED and _component(name, tensor) == "batch_norm"}
        parts = []
        for frames, classes, old in zip(steps, notes["classes"], [0, *notes["classes"]], strict=False):
            heads = {"main.weight": (classes, net.main.in_features), "main.bias": (classes,)}
            if net.auxiliary is not None:
                rows = classes - old if notes["masked"] else classes
                heads |= {"auxiliary.weight": (rows, net.auxiliary.in_features), "auxiliary.bias": (rows,)}
            parts.append(packing.unpack_floats(frames.pop("batch_norm"), norms)
                         | packing.unpack_floats(frames.pop("heads"), heads) | frames)

        def on_device(members: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device) for name, tensor in members.items()}

        return cls(notes["backbone"], notes["channels"], notes["auxiliary"], list(map(on_device, parts)), on_device(weights),
                   on_device(owners), on_device(groups.get("shared", {})), notes["notes"])

    def save(self, path: Path) -> str:
        """Write one safetensors file; returns the SHA-256 of its content."""
        return storage.save_tensors(path, *self.to_tensors())

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Snapshots:
        """Read a file that `save` wrote.

        Raises
        ------
        BadInput : no such file.
        DamagedFile : torn, altered, or not a snapshots file.
        """
        tensors, notes = storage.load_tensors(path)
        try:
            return cls.from_tensors(tensors, notes, device)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise DamagedFile(f"{path}: not a snapshots file ({error})") from None


def ledger(snapshots: Snapshots, memory: str, images_bytes: int = 0, importances_bytes: int = 0) -> dict[str, int]:
    """The bytes a method carries from its latest step to the next, by component (the paper's section 4.6, Table 2).

    Counted as they lie in `snapshots.safetensors`; the file has a header of a few kilobytes besides.

    Parameters
    ----------
    snapshots : the models up to and including that step.
    memory : `Method.memory`. A method that keeps no earlier model carries its current network only, whatever the file
        holds for later study.
    images_bytes : uint8 bytes of the stored images.
    importances_bytes : what a penalty must know of every parameter; counted as weights.

    Returns
    -------
    bytes of weights, mask, batch_norm, heads, exemplars and their total.
    """
    kept = slice(None) if "snapshots" in memory or "mask" in memory else slice(-1, None)
    out = {"weights": sum(map(_bytes, snapshots.weights.values())) + importances_bytes, "mask": 0, "batch_norm": 0, "heads": 0,
           "exemplars": images_bytes}
    for part, frames in zip(snapshots.parts[kept], snapshots.frames()[kept], strict=True):
        out["weights"] += sum(_bytes(tensor) for name, tensor in part.items() if _component(name, tensor) == "weights")
        for component, frame in frames.items():
            out[component] += _bytes(frame)
    return out | {"total": sum(out.values())}


def _component(name: str, tensor: Tensor) -> str:
    if name.startswith(("main.", "auxiliary.")):
        return "heads"
    return "weights" if tensor.dim() == 4 else "batch_norm"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

"""Every past model of a run in one file, and model k rebuilt from it bit for bit (section 3.3, Eq. 7-8).

With pruning, all models share one set of convolution weights and a mask that says which step owns each; a step adds
which weights it took, its batch-norm parameters and statistics, and its heads. Without pruning a step adds its whole
state. Either way `reconstruct(k)` reads the same: the step's own parts, and the shared weights that are active at k.
How the small parts are packed is in `packing.py`. Written by `train.py`; read by `m2kd-lite reconstruct` and notebooks.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.files import forms, storage
from m2kd_lite.method import masks, packing
from m2kd_lite.method.nets import IncrementalNet

FORMAT = "m2kd-lite snapshots 2"
SHARED = ("pixel_mean", "pixel_std")        # set in step 1 and the same in every model
HEADS = ("main.weight", "main.bias", "auxiliary.weight", "auxiliary.bias")          # grow from step to step
PACKED = ("batch_norm", "heads")            # components of a step that are one frame each in a file
OWN = "own"                                 # in place of a backbone's name: a network that is none of ours


@dataclass
class Snapshots:
    """All models of a run so far, as tensors on one device.

    Attributes
    ----------
    backbone, channels, auxiliary, cosine : what `IncrementalNet` needs to be built.
    build : for a network of your own, in place of those: makes it, untrained, with the outputs of all classes. See `Snapshots.of`.
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
    build: Callable[[], nn.Module] | None = None
    cosine: bool = False

    @classmethod
    def of(cls, build: Callable[[], nn.Module]) -> Snapshots:
        """No models yet, of a network of your own; `build` makes one like it, and what it is initialised with does not matter."""
        return cls(OWN, 0, False, build=build)

    def __len__(self) -> int:
        return len(self.parts)

    def __repr__(self) -> str:
        kind = "one weight set and a mask" if self.masks else "whole models"
        return f"Snapshots({self.backbone}, {len(self)} steps, {kind})"

    def add(self, net: nn.Module, new_masks: Mapping[str, Tensor]) -> None:
        """Remember `net` as the model of the next step. `new_masks` is empty for a method that does not prune."""
        state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        self.shared = {name: state.pop(name) for name in SHARED if self.build is None}
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

    def reconstruct(self, step: int, state: Callable[[Snapshots, int], dict[str, Tensor]] | None = None) -> nn.Module:
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
        net = self._blank().to(next(iter(rebuilt.values())).device)
        try:
            net.load_state(rebuilt) if isinstance(net, IncrementalNet) else net.load_state_dict(rebuilt)
        except (ValueError, RuntimeError) as error:         # torch's names every entry that does not fit
            raise DamagedFile(f"snapshots of step {step}: {str(error).splitlines()[-1].strip()}") from None
        return net.eval().requires_grad_(False)

    def _blank(self) -> nn.Module:
        """A network like those that are kept, whose parameters are of no interest."""
        return self.build() if self.build else IncrementalNet(self.backbone, self.channels, self.auxiliary, 0, cosine=self.cosine)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Flat names to tensors, and JSON notes: what a file holds."""
        tensors = {f"shared/{name}": tensor for name, tensor in self.shared.items()}
        tensors |= {f"weights/{name}": weight for name, weight in self.weights.items()}
        for step, (part, frames) in enumerate(zip(self.parts, self.frames(), strict=True), 1):
            tensors |= {f"step{step:03d}/{name}": tensor for name, tensor in part.items() if self._component(name, tensor) == "weights"}
            tensors |= {f"step{step:03d}/{component}": frame for component, frame in frames.items()}
        return tensors, {"format": FORMAT, "backbone": self.backbone, "channels": self.channels,
                         "auxiliary": self.auxiliary, "masked": bool(self.masks), "notes": self.notes,
                         "classes": [len(part.get("main.bias", [0])) for part in self.parts]} | ({"cosine": True} if self.cosine else {})

    def frames(self) -> list[dict[str, Tensor]]:
        """What each step adds beside whole convolution weights, packed as in the file: uint8, by component."""
        owners = packing.pack_masks(self.masks, len(self)) if self.masks else []
        frames = []
        for step, part in enumerate(self.parts, 1):
            frames.append({component: packing.pack_floats({name: tensor for name, tensor in part.items()
                                                           if self._component(name, tensor) == component})
                           for component in self._packed()})
            if owners:
                frames[-1]["mask"] = owners[step - 1]
        return frames

    def _packed(self) -> tuple[str, ...]:
        return PACKED if self.build is None else ("rest",)

    def _component(self, name: str, tensor: Tensor) -> str:
        """Where a step's own tensor is kept: packed with others of its kind, or, as "weights", by itself."""
        if self.build is None:
            return _component(name, tensor)
        return "rest" if tensor.dtype == torch.float32 and tensor.dim() < 4 else "weights"

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], notes: dict, device: str | torch.device = "cpu",
                     build: Callable[[], nn.Module] | None = None) -> Snapshots:
        """The inverse of `to_tensors`. Raises KeyError or ValueError where the two do not fit each other."""
        if notes["format"] != FORMAT:
            raise ValueError(f"format {notes['format']!r}, not {FORMAT!r}")
        wrong = forms.misfit(forms.Snapshots, notes)
        if wrong:
            raise ValueError(wrong)
        if (notes["backbone"] == OWN) != (build is not None):
            raise ValueError(f"its network is {notes['backbone']}; give build for a network of your own, and for no other")
        new = cls(notes["backbone"], notes["channels"], notes["auxiliary"], notes=notes["notes"], build=build,
                  cosine=notes.get("cosine", False))
        packed = tuple(f"/{component}" for component in (*new._packed(), "mask"))
        odd = [name for name, tensor in tensors.items()
               if tensor.dtype != (torch.uint8 if name.endswith(packed) else torch.float32)
               and not (build and tensor.dtype == torch.int64)]             # as the counters of batch norm
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
        parts = []
        shapes_of = [new._shapes(classes, old if notes["masked"] else 0)
                     for classes, old in zip(notes["classes"], [0, *notes["classes"]], strict=False)]
        packing.check_honest((frames[component] for frames in steps for component in new._packed()),
                             (shapes for components in shapes_of for shapes in components.values()))
        for frames, components in zip(steps, shapes_of, strict=True):
            floats: dict[str, Tensor] = {}
            for component, shapes in components.items():
                floats |= packing.unpack_floats(frames.pop(component), shapes)
            parts.append(floats | frames)

        def on_device(members: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device) for name, tensor in members.items()}

        return replace(new, parts=list(map(on_device, parts)), weights=on_device(weights), masks=on_device(owners),
                       shared=on_device(groups.get("shared", {})))

    def _shapes(self, classes: int, old: int) -> dict[str, dict[str, Sequence[int]]]:
        """The shapes of what is packed of a step: by component, by name. `old` rows of the auxiliary head are not kept."""
        net = self._blank()
        shapes: dict[str, dict[str, Sequence[int]]] = {component: {} for component in self._packed()}
        for name, tensor in net.state_dict().items():
            component = self._component(name, tensor)
            if component in shapes and name not in (*SHARED, *HEADS):
                shapes[component][name] = tensor.shape
        if isinstance(net, IncrementalNet):
            shapes["heads"] |= {"main.weight": (classes, net.main.in_features), "main.bias": (classes,)}
            if net.auxiliary is not None:
                shapes["heads"] |= {"auxiliary.weight": (classes - old, net.auxiliary.in_features), "auxiliary.bias": (classes - old,)}
        return shapes

    def save(self, path: Path) -> str:
        """Write one safetensors file; returns the SHA-256 of its content."""
        return storage.save_tensors(path, *self.to_tensors())

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu", build: Callable[[], nn.Module] | None = None) -> Snapshots:
        """Read a file that `save` wrote.

        Parameters
        ----------
        build : for a network of your own, see `Snapshots.of`.

        Raises
        ------
        BadInput : no such file.
        DamagedFile : torn, altered, or not a snapshots file.
        """
        tensors, notes = storage.load_tensors(path)
        try:
            return cls.from_tensors(tensors, notes, device, build)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise DamagedFile(f"{path}: not a snapshots file ({error})") from None


def ledger(snapshots: Snapshots, memory: str, images_bytes: int = 0, importances_bytes: int = 0,
           painter_bytes: Mapping[str, int] | None = None) -> dict[str, int]:
    """The bytes a method carries from its latest step to the next, by component (the paper's section 4.6, Table 2).

    Counted as they lie in `snapshots.safetensors`; the file has a header of a few kilobytes besides.

    Parameters
    ----------
    snapshots : the models up to and including that step.
    memory : `Method.memory`. A method that keeps no earlier model carries its current network only, whatever the file
        holds for later study.
    images_bytes : uint8 bytes of the stored images.
    importances_bytes : what a penalty must know of every parameter; counted as weights.
    painter_bytes : of a generator, by component.

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
    for component, count in (painter_bytes or {}).items():
        out[component] += count
    return out | {"total": sum(out.values())}


def _component(name: str, tensor: Tensor) -> str:
    if name.startswith(("main.", "auxiliary.")):
        return "heads"
    return "weights" if tensor.dim() == 4 else "batch_norm"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

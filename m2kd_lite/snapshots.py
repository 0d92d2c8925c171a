"""Every past model of a run in one file, and model k rebuilt from it bit for bit (section 3.3, Eq. 7-8).

With pruning, all models share one set of convolution weights and a mask that says which step owns each; a step adds
only its batch-norm parameters and statistics, and both heads. Without pruning a step adds its whole state. Either way
`reconstruct(k)` reads the same: the step's own parts, and the shared weights that are active at k. Written by
`train.py`; read by `m2kd-lite reconstruct`, the notebooks and the stepper.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import zstandard
from torch import Tensor

from m2kd_lite import masks, storage
from m2kd_lite.errors import BadInput, DamagedFile
from m2kd_lite.nets import IncrementalNet

FORMAT = "m2kd-lite snapshots 1"
SHARED = ("pixel_mean", "pixel_std")        # set in step 1 and the same in every model


@dataclass
class Snapshots:
    """All models of a run so far, as tensors on one device.

    Attributes
    ----------
    backbone, channels, auxiliary : what `IncrementalNet` needs to be built.
    parts : per step, the tensors that only this step's model has, by their names in the network.
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
        self.parts.append(state)

    def state(self, step: int) -> dict[str, Tensor]:
        """The state dictionary of model `step` (from 1).

        Raises
        ------
        BadInput : there is no such step.
        """
        if not 1 <= step <= len(self):
            raise BadInput(f"--step {step}: not allowed; give a whole number from 1 to {len(self)}")
        rebuilt = {name: weight.masked_fill(~masks.active(self.masks[name], step), 0.0)
                   for name, weight in self.weights.items()}
        return rebuilt | self.shared | self.parts[step - 1]

    def reconstruct(self, step: int) -> IncrementalNet:
        """Model `step` as it was when its step ended, in eval mode: on the same device, the same logits bit for bit."""
        state = self.state(step)
        net = IncrementalNet(self.backbone, self.channels, self.auxiliary, seed=0).to(state["main.weight"].device)
        try:
            net.load_state(state)
        except ValueError as error:
            raise DamagedFile(f"snapshots of step {step}: {error}") from None
        return net.eval().requires_grad_(False)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Flat names to tensors, and JSON notes: what a file holds. Masks are compressed."""
        tensors = {f"shared/{name}": tensor for name, tensor in self.shared.items()}
        tensors |= {f"weights/{name}": weight for name, weight in self.weights.items()}
        if self.masks:
            tensors["masks"] = _compress(self.masks)
        for step, part in enumerate(self.parts, 1):
            tensors |= {f"step{step:03d}/{name}": tensor for name, tensor in part.items()}
        notes = {"format": FORMAT, "backbone": self.backbone, "channels": self.channels, "auxiliary": self.auxiliary,
                 "steps": len(self), "masks": {name: list(mask.shape) for name, mask in self.masks.items()},
                 "notes": self.notes}
        return tensors, notes

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], notes: dict, device: str | torch.device = "cpu") -> Snapshots:
        """The inverse of `to_tensors`. Raises KeyError or ValueError where the two do not fit each other."""
        if notes["format"] != FORMAT:
            raise ValueError(f"format {notes['format']!r}")
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor.to(device)
        return cls(
            notes["backbone"], notes["channels"], notes["auxiliary"],
            parts=[groups[f"step{step:03d}"] for step in range(1, notes["steps"] + 1)],
            weights=groups.get("weights", {}),
            masks=_decompress(tensors["masks"], notes["masks"], device) if notes["masks"] else {},
            shared=groups.get("shared", {}),
            notes=notes["notes"],
        )

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
        except (KeyError, ValueError, TypeError, zstandard.ZstdError) as error:
            raise DamagedFile(f"{path}: not a snapshots file ({error})") from None


def ledger(snapshots: Snapshots, memory: str, images_bytes: int = 0) -> dict[str, int]:
    """The bytes a method carries from its latest step to the next, by component (the paper's section 4.6, Table 2).

    Parameters
    ----------
    snapshots : the models up to and including that step.
    memory : `Method.memory`. A method that keeps no earlier model carries its current network only, whatever the file
        holds for later study.
    images_bytes : uint8 bytes of the stored images.

    Returns
    -------
    bytes of weights, mask, batch_norm, heads, exemplars and their total.
    """
    kept = snapshots.parts if memory not in ("none", "all images") else snapshots.parts[-1:]
    out = {"weights": sum(map(_bytes, snapshots.weights.values())),
           "mask": _compress(snapshots.masks).numel() if snapshots.masks else 0,
           "batch_norm": 0, "heads": 0, "exemplars": images_bytes}
    for part in kept:
        for name, tensor in part.items():
            out[_component(name, tensor)] += _bytes(tensor)
    return out | {"total": sum(out.values())}


def _component(name: str, tensor: Tensor) -> str:
    if name.startswith(("main.", "auxiliary.")):
        return "heads"
    return "weights" if tensor.dim() == 4 else "batch_norm"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _compress(owners: dict[str, Tensor]) -> Tensor:
    """All masks, in name order, as one zstandard frame. Level 19 comes within 2 % of the entropy of the owners."""
    raw = b"".join(owners[name].cpu().contiguous().numpy().tobytes() for name in sorted(owners))
    return torch.frombuffer(bytearray(zstandard.ZstdCompressor(level=19).compress(raw)), dtype=torch.uint8)


def _decompress(frame: Tensor, shapes: dict[str, list[int]], device: str | torch.device) -> dict[str, Tensor]:
    sizes = {name: int(torch.Size(shape).numel()) for name, shape in sorted(shapes.items())}
    total = sum(sizes.values())
    raw = zstandard.ZstdDecompressor().decompress(frame.cpu().numpy().tobytes(), max_output_size=total)
    if len(raw) != total:
        raise ValueError(f"the masks hold {len(raw)} bytes, not {total}")
    flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8).split(list(sizes.values()))
    return {name: part.view(shapes[name]).to(device) for name, part in zip(sizes, flat, strict=True)}

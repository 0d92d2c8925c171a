"""A painter as a file, and as bytes in the ledger: what it has reserved, and each step's mask, batch norms and last layer.

Weights that no step reserved are drawn anew when a step begins, so they are not kept. A mask says of every weight whether the step
uses it; first of those that earlier steps had reserved, then of the others, for the two are taken to different shares. Every step's
images are those of the live painter, bit for bit. Written by `train.py`; read by whoever wants to see what it draws.
"""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from m2kd_lite.errors import DamagedFile
from m2kd_lite.files import forms, storage
from m2kd_lite.method import packing
from m2kd_lite.method.painter import KERNEL, Painter

FILE = "painter.safetensors"
_PARTS = {"mask": "mask", "norms": "batch_norm", "last": "weights"}        # of a step, and where the ledger counts them


def to_tensors(painter: Painter) -> tuple[dict[str, Tensor], dict]:
    """Packed frames, uint8 each, and JSON notes. All steps must have ended."""
    frames = {"weights": packing.pack_floats({f"{layer}": weight[taken] for layer, (weight, taken) in enumerate(
        zip(painter.weights, painter.reserved(), strict=True))})}
    for step, part in enumerate(painter.steps, 1):
        before = _cut(painter.reserved(step - 1), part.masks)
        bits = [half for mask, had in zip(part.masks, before, strict=True) for half in (mask[had], mask[~had])]
        frames |= {f"step{step:03d}/mask": packing.pack_bits(torch.cat(bits)),
                   f"step{step:03d}/norms": packing.pack_floats(part.norms.state_dict()),
                   f"step{step:03d}/last": packing.pack_floats(part.last.state_dict())}
    return frames, {"classes": painter.classes, "channels": painter.channels, "width": painter.width, "seed": painter.seed,
                    "widths": [part.widths for part in painter.steps]}


def from_tensors(frames: dict[str, Tensor], notes: dict, device: str | torch.device = "cpu") -> Painter:
    """The inverse of `to_tensors`; weights that no step reserved are 0. Raises KeyError or ValueError where they do not fit."""
    wrong = forms.misfit(forms.Painter, notes)
    if wrong:
        raise ValueError(wrong)
    painter = Painter(notes["classes"], notes["channels"], notes["width"], notes["seed"])
    state: dict[str, Tensor] = {}
    taken: list[Tensor] = []
    for step, widths in enumerate(notes["widths"], 1):
        shapes = [torch.Size((into, out, KERNEL, KERNEL)) for into, out in zip([painter.draw_size, *widths], widths, strict=False)]
        before = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
        for wider, narrow in zip(before, taken, strict=False):
            wider[:narrow.shape[0], :narrow.shape[1]] = narrow
        bits = packing.unpack_bits(frames[f"step{step:03d}/mask"], sum(shape.numel() for shape in shapes))
        masks = []
        for had, own in zip(before, bits.split([shape.numel() for shape in shapes]), strict=True):
            mask, already = torch.zeros_like(had), int(had.sum())
            mask[had], mask[~had] = own[:already], own[already:]
            masks.append(mask)
        taken = [had | mask for had, mask in zip(before, masks, strict=True)]
        known = {f"{layer}.{name}": (width,) for layer, width in enumerate(widths) for name in ("weight", "bias", "running_mean", "running_var")}
        last = {"weight": (widths[-1], painter.channels, KERNEL, KERNEL)}
        packing.check_honest([frames[f"step{step:03d}/norms"], frames[f"step{step:03d}/last"]], [known, last])
        name = f"parts.{step - 1}"
        state |= {f"{name}.masks.{layer}": mask for layer, mask in enumerate(masks)}
        state |= {f"{name}.norms.{key}": tensor for key, tensor in packing.unpack_floats(frames[f"step{step:03d}/norms"], known).items()}
        state |= {f"{name}.last.{key}": tensor for key, tensor in packing.unpack_floats(frames[f"step{step:03d}/last"], last).items()}
    values = packing.unpack_floats(frames["weights"], {f"{layer}": (int(mask.sum()),) for layer, mask in enumerate(taken)})
    for layer, mask in enumerate(taken):
        state[f"weights.{layer}"] = torch.zeros(mask.shape).masked_scatter(mask, values[f"{layer}"])
    painter.load({name: tensor.to(device) for name, tensor in state.items()})
    return painter.eval().requires_grad_(False)


def carried_bytes(painter: Painter) -> dict[str, int]:
    """Bytes by component of the ledger: weights (the last layers among them), mask, batch_norm."""
    out = dict.fromkeys(("weights", "mask", "batch_norm"), 0)
    for name, frame in to_tensors(painter)[0].items():
        out[_PARTS.get(name.split("/")[-1], "weights")] += frame.numel()
    return out


def save(painter: Painter | None, path: Path) -> None:
    """Write one safetensors file; none without a painter."""
    if painter:
        storage.save_tensors(path, *to_tensors(painter))


def load(path: Path, device: str | torch.device = "cpu") -> Painter:
    """Read a file that `save` wrote.

    Raises
    ------
    BadInput : no such file.
    DamagedFile : torn, altered, or of another kind.
    """
    frames, notes = storage.load_tensors(path)
    try:
        return from_tensors(frames, notes, device)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DamagedFile(f"{path}: not a painter's file ({error})") from None


def _cut(wide: list[Tensor], like: nn.ParameterList) -> list[Tensor]:
    """What was there when the step of these masks was: without the channels that later steps added."""
    return [tensor[:mask.shape[0], :mask.shape[1]] for tensor, mask in zip(wide, like, strict=True)]

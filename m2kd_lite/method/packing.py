"""How the small parts of a snapshot become bytes: masks near their entropy, floats without what repeats.

Both are exact. A step's mask frame answers one question for each weight that was still free: is it mine? At pruning
ratio r that is one bit of entropy h(r) a free weight, so after D steps h(r) (1 - r^D) / (1 - r) bits a weight in all.
Called by `snapshots.py` and `painter_file.py`.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import zstandard
from torch import Tensor

# Ten steps at ratio 0.75 come within 1.4 % of the entropy for ResNet-32 and 0.9 % for ResNet-18 (0.9 s), where one byte
# a weight at the same level came within 1.5 % and took 17 times as long. At ratio 0.9 it is 3.2 %.
LEVEL = 19
# What a frame of trained floats may claim to hold: they pack to a seventh less, and the tensors of a network that was hardly trained to
# a fraction. A file that claims more, beyond what anybody has room for, is made to fill the machine that reads it.
FOLDS, SPARE_BYTES = 16, 64 << 20


def pack_masks(owners: Mapping[str, Tensor], steps: int) -> list[Tensor]:
    """One frame a step, which later steps never change.

    Parameters
    ----------
    owners : uint8, the step that owns each weight, 0 where none does; layers in name order.
    steps : how many steps there are.

    Returns
    -------
    uint8 frames: of step j, which of the weights that steps 1..j-1 left free it owns.
    """
    undecided = torch.cat([owners[name].reshape(-1) for name in sorted(owners)]).cpu().numpy()
    frames = []
    for step in range(1, steps + 1):
        mine = undecided == step
        frames.append(_compress(np.packbits(mine).tobytes()))
        undecided = undecided[~mine]
    return frames


def unpack_masks(frames: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The inverse of `pack_masks`: uint8 masks of the given shapes. Raises ValueError where the two do not fit."""
    sizes = {name: int(torch.Size(shapes[name]).numel()) for name in sorted(shapes)}
    owners = np.zeros(sum(sizes.values()), dtype=np.uint8)
    free = np.arange(len(owners))
    for step, frame in enumerate(frames, 1):
        bits = np.frombuffer(_decompress(frame, -(-len(free) // 8)), dtype=np.uint8)
        mine = np.unpackbits(bits, count=len(free)).astype(bool)
        owners[free[mine]] = step
        free = free[~mine]
    parts = torch.from_numpy(owners).split(list(sizes.values()))
    return {name: part.view(shapes[name]).clone() for name, part in zip(sizes, parts, strict=True)}


def pack_bits(bits: Tensor) -> Tensor:
    """One uint8 frame of (n,) bools, near their entropy where like ones stand together."""
    return _compress(np.packbits(bits.cpu().numpy()).tobytes())


def unpack_bits(frame: Tensor, count: int) -> Tensor:
    """The inverse of `pack_bits`. Raises ValueError where the frame does not hold `count` bools."""
    bits = np.frombuffer(_decompress(frame, -(-count // 8)), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(bits, count=count).astype(bool))


def pack_floats(tensors: Mapping[str, Tensor]) -> Tensor:
    """float32 tensors, in name order, as one uint8 frame.

    All first bytes come first, then all second ones: signs and exponents repeat, and pack to a seventh less in all.
    """
    flat = torch.cat([tensors[name].detach().reshape(-1) for name in sorted(tensors)]).cpu()
    if flat.dtype != torch.float32:
        raise ValueError(f"only float32 is packed, not {flat.dtype}")
    return _compress(flat.numpy().view(np.uint8).reshape(-1, 4).T.tobytes())


def unpack_floats(frame: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The inverse of `pack_floats`. Raises ValueError where the frame does not fit the shapes."""
    sizes = {name: math.prod(shapes[name]) for name in sorted(shapes)}
    planes = np.frombuffer(_decompress(frame, 4 * sum(sizes.values())), dtype=np.uint8)
    flat = torch.from_numpy(planes.reshape(4, -1).T.copy().view(np.float32).reshape(-1))
    return {name: part.view(shapes[name]).clone() for name, part in zip(sizes, flat.split(list(sizes.values())), strict=True)}


def check_honest(frames: Iterable[Tensor], shapes: Iterable[Mapping[str, Sequence[int]]]) -> None:
    """Raise ValueError where frames of floats, all of a file's together, claim more than they can honestly hold.

    Asked before anything is unpacked.

    Parameters
    ----------
    frames : of `pack_floats`.
    shapes : what the file says is in them.
    """
    packed = sum(frame.numel() for frame in frames)
    claimed = sum(4 * math.prod(shape) for group in shapes for shape in group.values())
    if claimed > FOLDS * packed + SPARE_BYTES:
        raise ValueError(f"{packed} packed bytes are said to hold {claimed}")


def _compress(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(zstandard.ZstdCompressor(level=LEVEL).compress(raw)), dtype=torch.uint8)


def _decompress(frame: Tensor, size: int) -> bytes:
    """Raises ValueError unless the frame holds exactly `size` bytes; never unpacks more."""
    data = frame.cpu().numpy().tobytes()
    try:
        if zstandard.frame_content_size(data) != size:
            raise ValueError(f"a frame says it holds {zstandard.frame_content_size(data)} bytes, not {size}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None

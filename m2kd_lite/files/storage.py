"""Files that are whole or absent: written aside, synced, renamed, and checked by a SHA-256 when read.

Tensors travel as safetensors, everything else as JSON; nothing here, or anywhere in the package, unpickles. The digest
covers names, types, shapes, bytes and notes, so a flipped bit anywhere in a file is noticed. Used by the data cache,
the run folder and the snapshots.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from m2kd_lite.errors import BadInput, CannotWrite, DamagedFile

_NOTES = "m2kd_lite"            # one metadata key only: safetensors writes several in no fixed order


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was.

    Raises
    ------
    CannotWrite : the folder cannot be written to, or the disk is full; the file that was there is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())       # mkstemp makes private files; a shared folder's group should read ours
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):      # where nothing can be removed either, the next writer will
                Path(temporary).unlink(missing_ok=True)
        raise CannotWrite(f"{path}: cannot write: {error.strerror or error}") from error


def check_local(path: Path | str) -> None:
    """Raise BadInput for an address as s3://bucket/x, which would become a folder named "s3:" here."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):       # of two letters or more: C:/ is a drive
        raise BadInput(f"--out {path}: not allowed; give a folder or file on this machine (papermill can write executed notebooks "
                       "elsewhere, see docs/clusters.md)")


def is_leftover(path: Path, names: Collection[str]) -> bool:
    """Whether `path` is what a killed `write_bytes` leaves beside one of the files `names`."""
    match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}\.tmp", path.name)
    return match is not None and match[1] in names and path.is_file() and not path.is_symlink()


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what killed writers of the files `names` left in `folder`; for whoever is the only writer there now."""
    for path in [path for path in folder.glob(".*.tmp") if is_leftover(path, names)]:
        with contextlib.suppress(OSError):          # rubbish is no reason to fail
            path.unlink()


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its own SHA-256 under the key "sha256"."""
    body = dict(content)
    body["sha256"] = _json_digest(content)
    write_bytes(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def load_json(path: Path) -> dict[str, Any]:
    """Read what `save_json` wrote, without the digest.

    Raises
    ------
    BadInput : no such file.
    DamagedFile : not JSON, or the digest does not fit.
    """
    raw = _read(path)
    try:
        body = json.loads(raw)
        stated = body.pop("sha256")
        intact = _json_digest(body) == stated
    except Exception as error:      # whatever a hostile or torn file provokes, it is the file's fault
        raise DamagedFile(f"{path}: not a file of this kind, or damaged ({type(error).__name__})") from None
    if not intact:
        raise DamagedFile(f"{path}: its content does not match its SHA-256")
    return body


def save_tensors(path: Path, tensors: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    """Write tensors (any device, any layout) and JSON notes; returns the SHA-256 of the content.

    The same content gives the same bytes on disk.
    """
    import safetensors.torch
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(notes, sort_keys=True, allow_nan=False)
    digest = tensors_digest(tensors, text)
    metadata = {_NOTES: json.dumps({"notes": text, "sha256": digest}, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))
    return digest


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_tensors` wrote: (tensors on the CPU, notes).

    Raises
    ------
    BadInput : no such file.
    DamagedFile : not safetensors, or the digest does not fit.
    """
    import safetensors.torch
    raw = _read(path)
    try:
        header_size = int.from_bytes(raw[:8], "little")
        stated = json.loads(json.loads(raw[8:8 + header_size])["__metadata__"][_NOTES])
        tensors = safetensors.torch.load(raw)
        text, digest = stated["notes"], stated["sha256"]
        intact = tensors_digest(tensors, text) == digest
        notes = json.loads(text)
        if not isinstance(notes, dict):
            raise TypeError("notes are no object")
    except Exception as error:      # whatever a hostile or torn header provokes, it is the file's fault
        raise DamagedFile(f"{path}: not a file of this kind, or damaged ({type(error).__name__})") from None
    if not intact:
        raise DamagedFile(f"{path}: its content does not match its SHA-256")
    return tensors, notes


def tensors_digest(tensors: Mapping[str, Any], text: str = "") -> str:
    """SHA-256 over the sorted names, types, shapes and bytes of CPU tensors, and a text.

    What has `blocks` in place of its bytes (`data/shards.py`) is read block by block, to the same digest.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        for block in tensor.blocks() if hasattr(tensor, "blocks") else (tensor.contiguous(),):
            if block.numel():
                digest.update(memoryview(block.reshape(-1).view(_uint8()).numpy()))
    return digest.hexdigest()


def _uint8():
    import torch
    return torch.uint8


def _json_digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot read: {error.strerror or error}") from None


def umask() -> int:
    """The permissions that this process withholds from new files; there is no way to ask but to set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":          # Windows has no handle on a folder to sync
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

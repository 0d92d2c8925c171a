"""All files of a tree, decoded in parallel and in order, a stated amount at a time. Called by `imagefolder.py`."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed

from m2kd_lite.data.decode import LARGEST, Batch, decode, decode_many
from m2kd_lite.data.layout import Entry, counted, nothing_in, shown
from m2kd_lite.data.shardcache import Decoded, Sink
from m2kd_lite.events import OnEvent

CHUNK = 512             # files that a process is given at once, at most
CHUNK_BYTES = 4 << 20   # and the pixels that they may make
AHEAD = 4               # chunks a process: so at most 16 MB of pixels a process are under way, beside the image it decodes


class Misfit(Exception):
    """An image has not the side that all were to have."""


@dataclass(frozen=True)
class Tree:
    """The files of an image folder.

    Attributes
    ----------
    root : above all of them.
    parts : the folders "train" and "test" by these names, whatever the second is called.
    class_names : as they may be shown.
    files : of each part, by class and name.
    """

    root: Path
    parts: dict[str, Path]
    class_names: tuple[str, ...]
    files: dict[str, list[Entry]]

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def side(self) -> int | None:
        """The side that all images have if they have the first one's; None if that one is not to be kept as it is."""
        for entry in self.files["train"]:
            pixels = decode(f"{self.root}/{entry.name}").pixels
            if pixels is not None:
                _, height, width = pixels.shape
                return height if height == width <= LARGEST else None
        return None

    def bytes_at(self, side: int | None) -> int:
        """What the pixels of all files take."""
        return len(self) * 3 * (side or LARGEST) ** 2

    def decode(self, side: int | None, sink: Sink, on_event: OnEvent) -> Decoded:
        """Hand the pixels of all images to `sink`; side None resizes and crops each.

        Raises
        ------
        Misfit : an image is not square or of another side.
        BadInput : a class without a usable image.
        """
        done, left_out, remarks, labels = 0, [], Remarks(), {}
        on_event({"event": "progress", "what": "decoding images", "done": 0, "total": len(self)})
        for part, entries in self.files.items():
            own: list[int] = []
            for chunk, batch in self._batches(entries, side):
                if batch is None:
                    raise Misfit
                names = [shown(entry.name) for entry in chunk]
                left_out += [f"{names[position]} ({why})" for position, why in batch.left_out.items()]
                remarks.add(names, batch)
                if len(batch.pixels):
                    sink(part, batch.pixels)
                own += [entry.label for position, entry in enumerate(chunk) if position not in batch.left_out]
                done += len(chunk)
                on_event({"event": "progress", "what": "decoding images", "done": done, "total": len(self)})
            empty = sorted(set(range(len(self.class_names))) - set(own))
            if empty:
                raise nothing_in(self.parts[part], [self.class_names[label] for label in empty])
            labels[part] = torch.tensor(own)
        return Decoded(self.class_names, labels, tuple(left_out), remarks.lines())

    def _batches(self, entries: list[Entry], side: int | None) -> Iterator[tuple[list[Entry], Batch | None]]:
        # Pillow holds Python's lock for most of a small image, so processes, not threads; their start costs a second.
        size = max(1, min(CHUNK, CHUNK_BYTES // (3 * (side or LARGEST) ** 2)))
        chunks = list(in_chunks(entries, size))
        workers = cpu_count() if len(self) > 4 * size else 1
        with Parallel(n_jobs=workers, batch_size=1) as parallel:
            for group in in_chunks(chunks, AHEAD * workers):
                batches = parallel(delayed(decode_many)([f"{self.root}/{entry.name}" for entry in chunk], side) for chunk in group)
                yield from zip(group, batches, strict=True)


class Remarks:
    """What was remarked about files, counted: a line a kind, however many files it is about."""

    def __init__(self):
        self._counts, self._first = Counter(), {}

    def add(self, names: Sequence[str], batch: Batch) -> None:
        """Count those of a batch; `names` are of all its files."""
        for position, remarks in batch.remarks.items():
            for remark in remarks:
                self._counts[remark] += 1
                self._first.setdefault(remark, names[position])

    def lines(self) -> tuple[str, ...]:
        """Each kind with its count and an example."""
        return tuple(f"{remark}: {counted(count, 'file')}, such as {self._first[remark]}" for remark, count in self._counts.items())


def in_chunks(items: Sequence, size: int) -> Iterator:
    """Slices of `size`, the last one shorter."""
    return (items[start:start + size] for start in range(0, len(items), size))

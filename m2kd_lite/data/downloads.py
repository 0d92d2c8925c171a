"""Fashion-MNIST and CIFAR-100, fetched with torchvision's tools and read without unpickling.

CIFAR-100 is published twice, as Python pickles and as plain bytes. torchvision's class reads the pickles; no pickle is
ever loaded here, so its download tools fetch the plain-bytes archive instead, checked by its MD5.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2kd_lite.data.cache import folder, looked_in
from m2kd_lite.data.images import ImageSet
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent

CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
CIFAR100_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
_CIFAR_RECORD = 2 + 3 * 32 * 32         # coarse label, fine label, then red, green and blue planes


def fashion_mnist(data_root: str | None, on_event: OnEvent) -> ImageSet:
    """60,000 + 10,000 grey images, padded from 28x28 to 32x32."""
    from torchvision.datasets import FashionMNIST
    root = _root(data_root)
    parts: dict[str, Any] = {}
    for part, train in (("train", True), ("test", False)):
        try:
            found = FashionMNIST(root, train=train, download=False)
        except RuntimeError:
            on_event({"event": "notice", "text": f"fashion-mnist: not under {root}; downloading"})
            found = _online("fashion-mnist", lambda train=train: FashionMNIST(root, train=train, download=True))
        except (OSError, ValueError, AssertionError, IndexError) as error:
            raise BadInput(f"{root}/FashionMNIST: not the files expected ({error}); delete it and fetch again") from None
        parts[f"{part}_images"] = torch.nn.functional.pad(found.data[:, None], (2, 2, 2, 2))
        parts[f"{part}_labels"] = found.targets.to(torch.int64)
    return ImageSet("fashion-mnist", tuple(FashionMNIST.classes), **parts)


def cifar100(data_root: str | None, on_event: OnEvent) -> ImageSet:
    """50,000 + 10,000 colour images of 32x32 with their fine labels."""
    from torchvision.datasets.utils import download_and_extract_archive
    root = _root(data_root)
    base = root / "cifar-100-binary"
    if not base.is_dir():
        on_event({"event": "notice", "text": f"cifar100: no {base}; downloading 161 MB"})
        _online("cifar100", lambda: download_and_extract_archive(CIFAR100_URL, str(root), md5=CIFAR100_MD5))
    try:
        names = tuple((base / "fine_label_names.txt").read_text().split())
        parts: dict[str, Any] = {}
        for part in ("train", "test"):
            records = np.fromfile(base / f"{part}.bin", dtype=np.uint8).reshape(-1, _CIFAR_RECORD)
            parts[f"{part}_images"] = torch.from_numpy(records[:, 2:].reshape(-1, 3, 32, 32).copy())
            parts[f"{part}_labels"] = torch.from_numpy(records[:, 1].astype(np.int64))
            if len(records) == 0 or len(names) != 100 or records[:, 1].max() >= 100:
                raise ValueError("labels out of range")
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: not the files expected ({error}); delete it and fetch again") from None
    return ImageSet("cifar100", names, **parts)


def _root(data_root: str | None) -> Path:
    if data_root is None:
        return folder() / "downloads"
    root = Path(data_root)
    if not root.is_dir():
        raise BadInput(f"--data-root {root}: not allowed; give a folder that exists{looked_in(data_root)}")
    return root


def _online(name: str, fetch):
    try:
        return fetch()
    except (OSError, RuntimeError) as error:        # urllib's errors are OSErrors; torchvision adds RuntimeError
        raise BadInput(f"{name}: could not be downloaded ({error}); give --data-root with a folder that holds it") from None

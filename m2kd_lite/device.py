"""Where and how to compute: the device, the precision, and the environment that a run records."""
from __future__ import annotations

import platform
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import torch

import m2kd_lite
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput


def prepare_device(config: RunConfig) -> torch.device:
    """The device of a run, set up for repeatable arithmetic.

    Raises
    ------
    BadInput : the device is not there, or cannot do the precision.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise BadInput(f"--device {config.device}: not allowed; this machine has {count} CUDA devices; give auto or cpu")
    elif config.precision == "tf32":
        raise BadInput(f"--precision tf32: not allowed with --device {config.device}; it is arithmetic of NVIDIA GPUs; "
                       "give fp32 or bf16")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 for convolutions and heads where asked; master weights, batch norm's statistics and losses stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def describe_environment(device: torch.device) -> dict:
    """What a reader needs to judge a number: versions, device, threads, source revision."""
    import numpy
    import PIL
    import torchvision
    return {
        "m2kd_lite": m2kd_lite.__version__,
        "revision": source_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
    }


def processor_name() -> str:
    """The CPU's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def source_revision() -> str:
    """The git commit of the package's source ("-dirty" if changed since), or the version of an installed one."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True,
                              check=True, timeout=10).stdout.strip()
    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return m2kd_lite.__version__

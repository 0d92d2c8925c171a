"""Where and how to compute: the device, the precision, and the environment that a run records."""
from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import torch

import m2kd_lite
from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.method.nets import MEMORY_FORMAT


def prepare_device(config: RunConfig, on_event: OnEvent = ignore) -> tuple[torch.device, str]:
    """The device and the precision of a run, set up for repeatable arithmetic at the speed of this machine.

    What is chosen here and in `nets.MEMORY_FORMAT` follows from what the machine is, never from a stopwatch: a choice
    by timing could differ from one process to the next, and take the last bits of a result with it. `benchmarks/loop.py`
    has the timings behind each choice.

    Returns
    -------
    the device, and "fp32", "tf32", "bf16" or "bf16-compiled".

    Raises
    ------
    BadInput : the device is not there, or cannot do the precision.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device, precision = torch.device(name), config.precision
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise BadInput(f"--device {config.device}: not allowed; this machine has {count} CUDA devices; give auto or cpu")
        if is_compiled(precision):
            raise BadInput(f"--precision {precision}: not allowed with --device {config.device}; a GPU runs each update as one CUDA "
                           "graph; give auto, fp32, tf32 or bf16")
        precision = "fp32" if precision == "auto" else precision
        _prepare_gpu(precision)
        return device, precision
    if precision == "tf32":
        raise BadInput(f"--precision tf32: not allowed with --device {config.device}; TF32 needs an NVIDIA GPU; "
                       "give auto, fp32 or bf16")
    if precision == "auto":
        precision = "bf16" if bf16_here()[0] else "fp32"
    elif precision.startswith("bf16") and not bf16_here()[0]:
        on_event({"event": "notice", "text": f"--precision {precision} may be slower than fp32 on this processor: {bf16_here()[1]}"})
    if is_compiled(precision):
        _prepare_compiler(precision)
    _prepare_cpu()
    return device, precision


def is_compiled(precision: str) -> bool:
    """Whether updates run in kernels that torch.compile has fused: fewer passes through memory, and other last bits."""
    return precision.endswith("-compiled")


def _prepare_compiler(precision: str) -> None:
    """Compile in this process alone, so that no pool of helpers is left behind where a run is killed; and try it.

    Raises
    ------
    BadInput : it fails, for want of a C++ compiler or of Python's headers.
    """
    import torch._inductor.config
    torch._inductor.config.compile_threads = 1
    try:
        torch.compile(torch.relu)(torch.ones(64))
    except Exception as error:
        raise BadInput(f"--precision {precision}: not allowed here, torch.compile needs a C++ compiler that works "
                       f"({str(error).splitlines()[0]}); give auto, fp32 or bf16") from None


def _prepare_gpu(precision: str) -> None:
    """TF32 where asked, and kernels that sum in one order. A kernel that has no such twin only warns."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")         # read when the first handle is made
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False        # type: ignore[attr-defined]    # a debugging aid that costs a kernel a tensor


def _prepare_cpu() -> None:
    # Numbers below 1e-38 make a convolution many times slower. Set before the pool of threads starts, to reach them all.
    torch.set_flush_denormal(True)
    # A container or a scheduler may allow fewer cores than the machine has; more threads than cores crawl.
    allowed = joblib.cpu_count()
    if torch.get_num_threads() > allowed:
        torch.set_num_threads(allowed)


def bf16_on(capabilities: Mapping[str, Any], vendor: str) -> tuple[bool, str]:
    """Whether bf16 trains faster than fp32 on a processor, and what is known of it; docs/measured.md has the machines.

    Parameters
    ----------
    capabilities : as `torch.cpu.get_capabilities` gives them.
    vendor : as the processor names it, "GenuineIntel" or "AuthenticAMD".
    """
    if capabilities.get("amx_bf16"):
        return True, "it has matrix units for bf16"
    if capabilities.get("avx512_bf16") and vendor == "AuthenticAMD":
        return True, "its vector units compute bf16 at twice the rate of fp32"
    if capabilities.get("avx512_bf16"):
        return False, "it has no matrix units for bf16, and with vector units alone an Intel processor was 0.8 times as fast as with fp32"
    return False, "it has no instructions for bf16, which is converted to fp32 and back"


def bf16_here() -> tuple[bool, str]:
    """The same of this machine."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bf16_on(capabilities, processor_vendor())


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 for convolutions and heads where asked; master weights, batch norm's statistics and losses stay fp32.

    Without autocast's cache of converted weights: each is used once a pass, and a CUDA graph must not keep them.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision.startswith("bf16"), cache_enabled=False)


def describe_environment(device: torch.device, precision: str) -> dict:
    """What a reader needs to judge a number: versions, device, threads, source revision."""
    import numpy
    import PIL
    return {
        "m2kd_lite": m2kd_lite.__version__,
        "revision": source_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),          # from its metadata: loading it takes a second
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "memory_format": str(MEMORY_FORMAT).removeprefix("torch."),
        "denormals": "flushed" if device.type == "cpu" else "kept",
    }


def processor_name() -> str:
    """The CPU's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processor_vendor() -> str:
    """"GenuineIntel", "AuthenticAMD", or whatever the system tells; empty if nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id"))
    except (OSError, StopIteration):
        return platform.processor().rpartition(", ")[2]         # Windows: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD"


def source_revision() -> str:
    """The git commit of the package's source ("-dirty" if changed since), or the version of an installed one."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(Path(m2kd_lite.__file__).parent), *arguments], capture_output=True, text=True,
                              check=True, timeout=10).stdout.strip()
    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return m2kd_lite.__version__

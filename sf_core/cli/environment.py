"""Facts about this machine: versions, devices and attention backends for a bug report, and peak memory."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

import torch

from .._version import __version__
from ..byte_units import format_bytes
from ..model.attention import BACKENDS, choose_attention, is_installed

# Distributions, not modules: as pip names them.
_PACKAGES = (
    *("av", "einops", "numpy", "pillow", "safetensors", "tqdm"),
    *("transformers", "sentencepiece", "pydantic", "flash-attn", "sageattention"),
)


def environment_report() -> str:
    """The facts that a bug report needs, one a line. Holds no path and no name of a user or machine."""
    lines = {
        "self-forcing": __version__,
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}, {_torch_build()}",
        **_devices(),
        "CPU": f"{os.cpu_count()} logical processors",
        "attention": _attention(),
        "packages": ", ".join(f"{name} {_version_of(name)}" for name in _PACKAGES),
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes. None where the system does not report it."""
    if sys.platform != "win32":
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().peak_wset)


def _torch_build() -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version() or 'not found'}"
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return "CPU build" if not torch.backends.mps.is_built() else "with MPS"


def _devices() -> dict[str, str]:
    """GPU name, VRAM and compute capability by torch's device name; one line that says so if there is no GPU."""
    devices = {}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = (
            f"{facts.name}, {format_bytes(facts.total_memory)} VRAM, compute capability {facts.major}.{facts.minor}"
        )
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices or {"GPU": "none that torch can use"}


def _attention() -> str:
    installed = ", ".join(name for name in BACKENDS if is_installed(name))
    if not torch.cuda.is_available():
        return installed
    chosen = choose_attention("auto", torch.device("cuda", 0), torch.bfloat16)
    return f"{installed}; auto takes {chosen} on cuda:0 in bfloat16"


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"

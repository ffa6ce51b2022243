"""How fast a device multiplies, attends, convolves and copies: measured in two seconds, and remembered.

A plan turns the work of a chunk into frames a second by these rates. They are remembered for each device, dtype and
version of torch and driver, in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .files.atomic_write import atomic_write

SECONDS = 0.5  # for each of the four


@dataclass(frozen=True)
class DeviceRates:
    """Rates of a device in one dtype.

    Attributes:
        name: The device, dtype, and versions of torch and driver.
        products: Floating-point operations a second of the linear layers.
        attention: Floating-point operations a second of attention.
        convolution: Floating-point operations a second of the decoder.
        copies: Bytes a second from host memory.
    """

    name: str
    products: float
    attention: float
    convolution: float
    copies: float


def known_rates(device: torch.device, dtype: torch.dtype, anew: bool = False) -> DeviceRates:
    """The rates of a device; measured if they are not remembered, or ``anew``."""
    remembered = None if anew else remembered_rates(device, dtype)
    if remembered is not None:
        return remembered
    rates = measure_rates(device, dtype)
    values = asdict(rates)
    del values["name"]
    path, known = rates_file(), {**_read(), rates.name: values}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    except OSError:  # a folder that cannot be written: they are measured again next time
        pass
    return rates


def remembered_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates | None:
    """The rates of a device that was measured before. None: it was not, with these versions of torch and driver."""
    name = device_name(device, dtype)
    values = _read().get(name)
    try:
        return DeviceRates(name, **values) if isinstance(values, dict) else None
    except TypeError:  # they are not ours
        return None


def _read() -> dict[str, Any]:
    """The file of rates; empty if there is none, or not one of ours."""
    try:
        known = json.loads(rates_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def rates_file() -> Path:
    """Where rates are remembered."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "self_forcing" / "rates.json"


def device_name(device: torch.device, dtype: torch.dtype) -> str:
    """The device, dtype and versions that rates belong to."""
    kind = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        driver = torch.version.cuda or torch.version.hip
        return f"{facts.name}, {kind}, torch {torch.__version__}, {driver}"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{device.type} {platform.machine()}, {kind}{threads}, torch {torch.__version__}"


def measure_rates(device: torch.device, dtype: torch.dtype, seconds: float = SECONDS) -> DeviceRates:
    """Measure the rates of a device, each for ``seconds``, by sizes of the 1.3B model; a CPU gets smaller ones."""
    fast = device.type != "cpu"
    tokens, seen, width, inner, heads = (4680, 32760, 1536, 8960, 12) if fast else (512, 2048, 512, 2048, 4)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    x, weight = random(tokens, width), random(inner, width)
    q, k, v = random(1, heads, tokens, 128), random(1, heads, seen, 128), random(1, heads, seen, 128)
    rows, columns = (240, 416) if fast else (48, 64)
    picture, kernel = random(1, 96, 3, rows, columns), random(96, 96, 3, 3, 3)
    there = torch.zeros(2**28 if fast else 2**24, dtype=torch.uint8, pin_memory=device.type == "cuda")
    here = torch.empty_like(there, device=device)
    functional = torch.nn.functional
    with torch.inference_mode():
        timed = [
            _seconds_of(lambda: functional.linear(x, weight), device, seconds),
            _seconds_of(lambda: functional.scaled_dot_product_attention(q, k, v), device, seconds),
            _seconds_of(lambda: functional.conv3d(picture, kernel, padding=(0, 1, 1)), device, seconds),
            _seconds_of(lambda: here.copy_(there, non_blocking=True), device, seconds),
        ]
    convolved = 2 * 27 * 96 * 96 * rows * columns
    work = [2 * tokens * width * inner, 4 * tokens * seen * heads * 128, convolved, there.nbytes]
    return DeviceRates(device_name(device, dtype), *(done / took for done, took in zip(work, timed, strict=True)))


def _seconds_of(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The shortest time of a run, of as many as fit into ``seconds`` after one that warms up."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    run()
    wait()
    end, shortest = time.perf_counter() + seconds, float("inf")
    while True:
        begin = time.perf_counter()
        run()
        wait()
        now = time.perf_counter()
        shortest = min(shortest, now - begin)
        if now >= end:
            return shortest

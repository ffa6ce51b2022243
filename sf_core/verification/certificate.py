"""The certificate of a verification: what was checked, where, and with which result, as JSON and as one line."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..config import RolloutConfig
from ..files.atomic_write import atomic_write
from .cases import Case
from .checks import Check, dtype_name

PASSED, FAILED = "passed", "FAILED"


@dataclass(frozen=True)
class Certificate:
    """A certificate.

    Attributes:
        file: Name of the checkpoint's file, without its folder.
        family: The model that it was taken for, and why.
        config: Settings that it was verified with.
        case: The recorded case of this family. None: there is none, and ``checks`` has none of it.
        device: The device of the computation.
        dtype: Of the computation.
        attention: The attention that was asked.
        size: Width and height of the checkpoint's videos, in pixels; None: it was not run itself.
        checks: The results.
    """

    file: str
    family: str
    config: RolloutConfig
    case: Case | None
    device: torch.device
    dtype: torch.dtype
    attention: str
    size: tuple[int, int] | None
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether no check failed. Without any check, nothing has passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def line(self) -> str:
        """The certificate as one line, for a bug report. Holds no path and no name of a user or machine."""
        results = [f"{check.name}: {'' if check.passed else FAILED + ', '}{check.said}" for check in self.checks]
        if self.case is None:
            results.insert(0, NO_CASE)
        verdict = PASSED if self.passed else FAILED
        where = f"{device_name(self.device)}, {dtype_name(self.dtype)}, torch {torch.__version__}"
        return f"verify {verdict}: {self.file} as {self.family} on {where}; {'; '.join(results)} ({__version__})"

    def as_dict(self) -> dict[str, Any]:
        """The certificate for JSON."""
        return {
            "line": self.line,
            "passed": self.passed,
            "file": self.file,
            "family": self.family,
            "settings": self.config.as_dict(),
            "recorded_case": self.case.name if self.case is not None else None,
            "size": self.size,
            "machine": {
                "self_forcing": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
                "device": device_name(self.device),
                "dtype": dtype_name(self.dtype),
                "attention": self.attention,
                "threads": torch.get_num_threads(),
                "tf32": bool(torch.backends.cuda.matmul.allow_tf32) and self.device.type == "cuda",
            },
            "checks": [{"name": c.name, "passed": c.passed, "said": c.said, **_finite(c.facts)} for c in self.checks],
        }

    def write(self, path: Path) -> None:
        """Write the certificate as JSON, whole or not at all. Raises OSError."""
        with atomic_write(path) as part:
            part.write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


NO_CASE = "recorded case: none with these settings, so nothing was compared with recorded numbers"


def device_name(device: torch.device) -> str:
    """Return the type of a device, and of a GPU its model."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_properties(device).name})"
    return device.type


def _finite(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts that JSON can hold: an infinite distance as text."""
    infinite = (float("inf"), float("-inf"))
    return {name: str(value) if value in infinite or value != value else value for name, value in facts.items()}

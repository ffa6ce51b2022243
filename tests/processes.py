"""Real groups of processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def torchrun(count: int, *command: object, restarts: int = 0) -> list[str]:
    """The command line that starts ``command`` (a script or ``-m module``, and its arguments) ``count`` times."""
    how = ["--standalone", "--nproc-per-node", str(count), "--max-restarts", str(restarts)]
    return [sys.executable, "-m", "torch.distributed.run", *how, *map(str, command)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(count: int, *command: object, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run it to its end, whatever that is. Raises TimeoutExpired, the group ended, after ``seconds``."""
    return subprocess.run(
        torchrun(count, *command), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=seconds
    )

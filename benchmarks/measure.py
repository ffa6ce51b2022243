"""Timings in turns, and reports as a table and a JSON file, for all benchmarks."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

import torch

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
Result = TypeVar("Result")


# Timing -------------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Measure ``work`` by the wall clock, and return the seconds and its result; a GPU is idle before and after."""
    settle()
    begin = time.perf_counter()
    result = work()
    settle()
    return time.perf_counter() - begin, result


def settle() -> None:
    """Wait until a GPU that is in use is idle."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def alternate(first: Callable[[], object], second: Callable[[], object], pairs: int) -> list[tuple[float, float]]:
    """Measure two functions in turns, so that other load affects both alike; each is first in half of the pairs."""
    times = []
    for pair in range(pairs):
        if pair % 2:
            b, a = timed(second)[0], timed(first)[0]
        else:
            a, b = timed(first)[0], timed(second)[0]
        times.append((a, b))
    return times


def resident_mib() -> float:
    """Return the resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


@dataclass(frozen=True)
class Spread:
    """Order statistics of some measurements."""

    median: float
    quarter: float
    three_quarters: float
    least: float
    most: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Compute the statistics of ``values``."""
        q1, q2, q3 = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return Spread(q2, q1, q3, min(values), max(values), len(values))


# Reporting ----------------------------------------------------------------------------------------------------------


class Report:
    """Collector of measurements and bars; `finish` prints a table and writes ``results/<name>.json``."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        torch.set_num_threads(args.threads)
        device = getattr(args, "device", "cpu")
        self.name = name if device == "cpu" else f"{name}_{device.partition(':')[0]}"
        self.processor = _cpu_name() if device == "cpu" else torch.cuda.get_device_name(device)
        options = {k: v for k, v in vars(args).items() if not isinstance(v, (Path, type(None)))}  # no machine's paths
        self.settings: dict[str, Any] = options | {"torch": torch.__version__, "cpu": _cpu_name()}
        if device != "cpu":
            self.settings["gpu"] = self.processor
        self.rows: dict[str, dict[str, Any]] = {}

    def row(
        self, what: str, values: Sequence[float], unit: str, least: float | None = None, most: float | None = None
    ) -> None:
        """Add measurements of one quantity, with bars for their median."""
        spread = Spread.of(values)
        bars = {k: v for k, v in (("at_least", least), ("at_most", most)) if v is not None}
        met = (least is None or spread.median >= least) and (most is None or spread.median <= most)
        self.rows[what] = {"unit": unit, **asdict(spread), **bars} | ({"met": met} if bars else {})
        print(f"  {what}: {spread.median:.4g} {unit}", file=sys.stderr, flush=True)

    def ratio(self, what: str, pairs: Sequence[tuple[float, float]], **bars: float) -> None:
        """Add the ratio of first to second of each pair."""
        self.row(what, [a / b for a, b in pairs], "x", **bars)

    def finish(self) -> int:
        """Print and write all rows; returns the exit status, 1 if a bar was missed."""
        width = max(map(len, self.rows))
        print(f"\n{self.name}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), {self.processor}")
        print(f"{'':{width}}  {'median':>9}  {'quartiles':>19}  {'min .. max':>20}  {'n':>4}  bar")
        for what, row in self.rows.items():
            low, high, least, most = (f"{row[k]:.4g}" for k in ("quarter", "three_quarters", "least", "most"))
            bar = [f"{sign} {row[key]}" for key, sign in (("at_least", ">="), ("at_most", "<=")) if key in row]
            verdict = f"{' '.join(bar)}: {'met' if row['met'] else 'MISSED'}" if bar else ""
            quarters, extremes, median = f"{low} .. {high}", f"{least} .. {most}", f"{row['median']:.4g} {row['unit']}"
            print(f"{what:{width}}  {median:>9}  {quarters:>19}  {extremes:>20}  {row['count']:>4}  {verdict}".rstrip())
        path = ROOT / "benchmarks" / "results" / f"{self.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": self.name, "settings": self.settings, "rows": self.rows}, indent=1) + "\n")
        print(f"written to {path.relative_to(ROOT)}")
        return 0 if all(row.get("met", True) for row in self.rows.values()) else 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def commit_of(checkout: Path) -> str:
    """Return the current commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() or "unknown"

"""Settings of all tests, and a summary of what could not run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]

from tests.scheduling import ByServerOrFile, longest_first

NOT_UNIT = tuple(Path(__file__).parent / name for name in ("browser", "comfyui"))

torch.set_num_threads(1)  # the workers share two cores; results are bit-equal either way
# quick: make check. fast: make test. thorough: make test-thorough, drawn anew each time.
for profile, examples in (("quick", 5), ("fast", 25)):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=True,
    )
settings.register_profile("thorough", max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("SF_TEST_PROFILE", "fast"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServerOrFile:
    return ByServerOrFile(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests of servers and browsers aside in the unit tier: not even their harness is imported."""
    return True if config.option.markexpr == "unit" and collection_path in NOT_UNIT else None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests: those that need no server and no browser, are not slow, and do not measure time."""
    for item in items:
        marked = any(item.get_closest_marker(name) for name in ("slow", "alone"))
        if not marked and not any(item.path.is_relative_to(folder) for folder in NOT_UNIT):
            item.add_marker("unit")
    longest_first(items, NOT_UNIT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"COULD NOT RUN: {report.nodeid}: {reason}", yellow=True, bold=True)
    terminalreporter.write_line(f"tests that could not run here: {len(skipped)}", bold=True)

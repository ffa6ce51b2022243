"""Settings of all tests, and a summary of what could not run."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]

from tests.scheduling import ByServerOrFile

torch.set_num_threads(1)  # two workers share two cores; results are bit-equal either way
settings.register_profile(
    "fast", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("thorough", max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("SF_TEST_PROFILE", "fast"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServerOrFile:
    return ByServerOrFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"COULD NOT RUN: {report.nodeid}: {reason}", yellow=True, bold=True)
    terminalreporter.write_line(f"tests that could not run here: {len(skipped)}", bold=True)

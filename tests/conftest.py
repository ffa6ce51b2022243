"""Test settings, and the loud lines about what could not be run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.comfyui import servers

torch.set_num_threads(1)  # two workers share two cores; results are bit-equal either way
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


class ByServer(LoadScopeScheduling):
    """What --dist loadgroup is for; with this pytest and xdist it ignores the groups without a word."""

    def _split_scope(self, nodeid: str) -> str:
        return servers.group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByServer(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests: those that need no server and no browser, are not slow, and do not measure time."""
    for item in items:
        folders = item.path.relative_to(Path(__file__).parent).parts[:-1]
        marked = any(item.get_closest_marker(name) for name in ("slow", "alone"))
        if not marked and not {"comfyui", "browser"} & set(folders):
            item.add_marker("unit")


def pytest_sessionfinish() -> None:
    servers.stop_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"COULD NOT RUN: {report.nodeid}: {reason}", yellow=True, bold=True)
    terminalreporter.write_line(f"tests that could not run here: {len(skipped)}", bold=True)

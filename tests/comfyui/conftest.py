"""Fixtures of the tests on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.comfyui.servers import server

__all__ = ["server"]


@pytest.fixture(autouse=True)
def server_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """The end of the server's log, printed so that it is in the report of a test that fails."""
    yield
    if "server" in request.fixturenames and (running := request.node.funcargs.get("server")):
        print(running.log_tail(25))

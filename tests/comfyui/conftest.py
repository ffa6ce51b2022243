"""`server`: the real ComfyUI, with the pack and the probe nodes; every test that takes it runs on each version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.comfyui import servers
from tools.comfyui.server import Prompt, Server
from tools.comfyui.workflow import to_prompt


@pytest.fixture(scope="session", params=servers.parameters())
def server(request: pytest.FixtureRequest) -> Server:
    return servers.get(request.param)


@pytest.fixture
def ui_to_api() -> Callable[[dict[str, Any], Server], Prompt]:
    """A workflow as the editor saves it -> what /prompt takes."""
    return lambda workflow, server: to_prompt(workflow, server.object_info())


@pytest.fixture(autouse=True)
def said_by_the_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """The end of the server's log is printed, so that it is in the report of a test that fails."""
    yield
    if "server" in request.fixturenames and (running := request.node.funcargs.get("server")):
        print(running.log_tail(25))

"""`page`: the real editor in a real browser, on each ComfyUI, drawn in each of its two ways."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.comfyui.servers import server
from tools.comfyui.browser import Editor, Mode, chromium, editor
from tools.comfyui.find import CACHE, Unavailable
from tools.comfyui.server import Server

__all__ = ["server"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        opened = chromium()
        with opened as running:
            yield running
    except Unavailable as error:
        if os.environ.get("SF_WITHOUT_BROWSER"):
            pytest.skip(f"browser: not run: {error}")
        pytest.fail(f"{error} (SF_WITHOUT_BROWSER=1 does without)", pytrace=False)


@pytest.fixture(params=["classic", "nodes2"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture
def page(server: Server, browser: Browser, mode: Mode, request: pytest.FixtureRequest) -> Iterator[Editor]:
    """An empty canvas. A picture of a test that fails is kept below .comfyui/failures."""
    with editor(browser, server, mode) as tab:
        failed_before = request.session.testsfailed
        yield tab
        if request.session.testsfailed > failed_before:
            name = re.sub(r"[^\w.-]+", "_", request.node.name)
            print(f"screenshot: {tab.screenshot(CACHE / 'failures' / f'{name}.png')}; page errors: {tab.errors}")

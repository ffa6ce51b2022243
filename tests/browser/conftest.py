"""Fixtures of the tests in a browser: the real editor of each ComfyUI, drawn in each of its two ways."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import Error as PlaywrightError

from tests.comfyui import servers
from tests.comfyui.servers import server
from tools.comfyui.browser import PATIENCE, Editor, Mode, chromium, editor
from tools.comfyui.checkout import CACHE, LATEST, Unavailable, newest_frontend
from tools.comfyui.server import Server

__all__ = ["server"]

expect.set_options(timeout=PATIENCE)


# of a test marked ``one_mode``, by the role of the server: each editor and each way of drawing is used
ONE_MODE: dict[str, Mode] = {"primary": "classic", "latest": "nodes2"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the second way of drawing where a test is marked ``one_mode``."""
    left_out = {item for item in items if isinstance(item, pytest.Function) and _is_second_mode(item)}
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


def _is_second_mode(item: pytest.Function) -> bool:
    if item.get_closest_marker("one_mode") is None:
        return False
    server, mode = (str(item.callspec.params[name]) for name in ("server", "mode"))
    return mode != ONE_MODE[server]


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


@pytest.fixture(scope="session", params=["classic", "nodes2"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


class Tab:
    """The page of one editor in one mode: opening it takes 6 s of CPU time, so that tests share it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._shown: tuple[Server, Mode, Path | None] | None = None
        self._editor: Editor | None = None
        self._opened = contextlib.ExitStack()

    def empty(self, server: Server, mode: Mode, frontend: Path | None = None) -> Editor:
        """Return the page with an empty canvas: the last test's if it can be cleared, otherwise a new one."""
        if self._editor is not None and self._shown == (server, mode, frontend):
            with contextlib.suppress(PlaywrightError):
                self._editor.clear()
                return self._editor
        self.close()
        self._shown = server, mode, frontend
        self._editor = self._opened.enter_context(editor(self._browser, server, mode, frontend=frontend))
        return self._editor

    def close(self) -> None:
        """Close the page; the next test gets a new one."""
        self._editor = None
        self._opened.close()


TAB = pytest.StashKey[Tab]()


@pytest.fixture(scope="session")
def tab(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Tab]:
    shared = request.config.stash[TAB] = Tab(browser)
    yield shared
    shared.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Close the page before tests of servers alone: it would draw their runs, for half of the CPU time of each."""
    yield
    if TAB in item.config.stash and nextitem is not None and not nextitem.path.is_relative_to(Path(__file__).parent):
        item.config.stash[TAB].close()


@contextlib.contextmanager
def pictured(shown: Editor, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep a picture of a test that fails below .comfyui/failures, and leave no run behind."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        name = re.sub(r"[^\w.-]+", "_", request.node.name)
        print(f"screenshot: {shown.screenshot(CACHE / 'failures' / f'{name}.png')}; page errors: {shown.errors}")
    shown.server.settle()


@contextlib.contextmanager
def kept_if_passed(tab: Tab, shown: Editor, request: pytest.FixtureRequest) -> Iterator[Editor]:
    failed_before = request.session.testsfailed
    with pictured(shown, request):
        yield shown
    if request.session.testsfailed > failed_before:
        tab.close()


@pytest.fixture
def page(tab: Tab, server: Server, mode: Mode, request: pytest.FixtureRequest) -> Iterator[Editor]:
    """An empty canvas, in a page that tests share."""
    with kept_if_passed(tab, tab.empty(server, mode), request) as shown:
        yield shown


@pytest.fixture(scope="session", params=["classic", "nodes2"], ids=lambda mode: f"{LATEST}-newest-{mode}")
def newest_mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture
def newest_page(tab: Tab, newest_mode: Mode, request: pytest.FixtureRequest) -> Iterator[Editor]:
    """An empty canvas of the newest editor, on the latest server: for what that editor does otherwise."""
    try:
        frontend = newest_frontend()
    except Unavailable as error:
        pytest.skip(f"the newest editor: not run: {error}")
    server = servers.get("latest", request.config)
    with kept_if_passed(tab, tab.empty(server, newest_mode, frontend), request) as shown:
        yield shown


@pytest.fixture
def own_page(browser: Browser, server: Server, mode: Mode, request: pytest.FixtureRequest) -> Iterator[Editor]:
    """An empty canvas in a page of its own, for a test that would leave it unfit for others.

    Settings of the editor are given by indirect parametrization.
    """
    with editor(browser, server, mode, settings=getattr(request, "param", None)) as shown, pictured(shown, request):
        yield shown

"""ComfyUI's editor in a headless Chromium, used as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from .checkout import Unavailable
from .server import PACK, PromptFailed, PromptInterrupted, Server

Mode = Literal["classic", "nodes2"]
PATIENCE = 120_000  # milliseconds to wait for the page: far more than a busy machine takes
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    # the page requests other hosts; without access to the internet it would wait for them
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
# on a first visit the template browser covers the editor; the minimap covers a corner of the canvas; the panel at the
# right, once opened, opens with each page; and nodes drawn at a low level of detail have no controls
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
    "Comfy.Locale": "en",
}
# what QUIET has otherwise than a new user: for pictures and tests of what is seen
NEW_USER = {"Comfy.Minimap.Visible": True, "LiteGraph.Canvas.MinFontSizeForLOD": 8}
READY = (
    "() => window.app?.extensionManager && window.app.graph"
    " && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 50"
)
RESTORED = "() => app.extensionManager.workflow.activeWorkflow"  # what was open before a reload
RECORD = """() => {
  window.harness = { ended: [] };
  for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    app.api.addEventListener(kind, (event) => window.harness.ended.push([kind, event.detail]));
}"""
DIALOG = ".p-dialog-mask, [role=dialog]"
CLEAR = """async () => {
  const { workflow, sidebarTab, command, toast } = app.extensionManager;
  toast.removeAll?.();
  await command.execute("Comfy.NewBlankWorkflow");
  for (const open of [...workflow.openWorkflows])
    if (open.path !== workflow.activeWorkflow.path) await workflow.closeWorkflow(open);
  if (sidebarTab.activeSidebarTabId) sidebarTab.toggleSidebarTab(sidebarTab.activeSidebarTabId);
  app.canvas.deselectAll?.();
  app.graph.clear();
  Object.assign(app.canvas.ds, { scale: 1, offset: [0, 0] });
  document.activeElement?.blur?.();
}"""
SET_WIDGET = """([id, name, value]) => {
  const node = app.graph.getNodeById(id);
  const widget = node?.widgets?.find((one) => one.name === name);
  if (!widget) throw new Error(`node ${id} has no widget ${name}; it has ${node?.widgets?.map((one) => one.name)}`);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  app.graph.setDirtyCanvas(true, true);
}"""
STILL = """() => {
  const { scale, offset } = app.canvas.ds;
  const now = String([scale, ...offset, ...app.graph.nodes.flatMap((node) => [...node.pos, ...node.size])]);
  harness.view = { now, frames: harness.view?.now === now ? harness.view.frames + 1 : 0 };
  return harness.view.frames >= 20;
}"""
LET_GO = "() => { app.canvas.pointer?.reset?.(); }"  # of what a test before left dragged: near an edge the view pans
# the editor fits the view to the boxes that it measures when it draws: those of a node that it never drew are empty
FIT = """async () => {
  app.canvas.deselectAll?.();
  app.canvas.draw(true, true);
  await app.extensionManager.command.execute("Comfy.Canvas.FitView");
}"""
FITS = """() => {
  const { canvas, ds, graph } = app.canvas;
  const ends = [canvas.clientWidth, canvas.clientHeight].map((pixels, k) => pixels / ds.scale - ds.offset[k]);
  return (graph ?? app.graph).nodes.every(({ pos, size }) =>
    [0, 1].every((k) => pos[k] >= -ds.offset[k] && pos[k] + size[k] <= ends[k]));
}"""
MEDIA_READY = """() => [...document.querySelectorAll("video, img")].every(
  (one) => !one.src || (one.tagName === "IMG" ? one.complete : one.readyState >= 2))"""
DROP = """([text, name, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type }));
  const target = document.querySelector("#graph-canvas");
  const box = target.getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
  for (const kind of ["dragenter", "dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true, ...at }));
}"""
# errors of a ComfyUI without a network and without its packages of templates and documentation
HARMLESS = re.compile(
    r"user\.css|templates/|comfy\.templates|core workflow templates|/docs/|ERR_NAME_NOT_RESOLVED|favicon"
    r"|api\.comfy\.org|huggingface\.co|graph accessed before initialization"
    r"|cleanup event listeners for graph that was never set up"  # editor 1.32.9
    r"|Subgraph not found"  # editor 1.32.9, for messages of a node inside an open subgraph
    r"|getCanvas: canvas is null"  # for messages that arrive while the page loads
    r"|reading 'id'\)\s+at onChange"  # editor 1.32.9, for a setting that it does not know
)
BANNER_CLOSED = "localStorage.setItem('vueNodesBannerDismissed', 'true')"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium."""
    with sync_playwright() as playwright:
        browser = _launch(playwright)
        try:
            yield browser
        finally:
            browser.close()


def _launch(playwright: Playwright) -> Browser:
    given = os.environ.get("CHROMIUM")
    path = given or next(filter(None, map(shutil.which, NAMES)), None)
    try:  # with no path: Playwright's own, where it was installed
        return playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
    except PlaywrightError as error:
        raise Unavailable(f"no browser: {path or 'no Chromium found'}: {str(error).splitlines()[0]}") from error


class Editor:
    """One tab with the editor. `page` is Playwright's, for everything that has no method here."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []  # of the page's scripts and console, without the harmless ones
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"{error.name}: {error.message}\n{error.stack}"))
        page.add_init_script(BANNER_CLOSED)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"{message.text} ({message.location.get('url', '')})")

    def _note(self, error: str) -> None:
        if not HARMLESS.search(error):
            self.errors.append(error)

    def open(self) -> None:
        """Open the editor with an empty canvas."""
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.ready()
        # a new editor loads its initial workflow after it is ready, which would replace what is built here
        self.page.wait_for_function("() => app.graph.nodes.length > 0")
        self.page.evaluate("() => app.graph.clear()")

    def reload(self) -> None:
        """Reload the page."""
        self.page.reload(wait_until="domcontentloaded")
        self.ready()
        self.page.wait_for_function(RESTORED)

    def clear(self) -> None:
        """Empty the canvas, close what is open and forget errors, as a stand-in for a new page, which costs seconds."""
        self.dismiss()
        self.page.locator(DIALOG).first.wait_for(state="hidden", timeout=10_000)
        self.page.mouse.up()
        self.js(LET_GO)
        self.js(CLEAR)
        self.page.mouse.move(0, 0)
        self.errors.clear()

    def ready(self) -> None:
        """Wait until the editor is ready."""
        self.page.wait_for_function(READY)
        self.page.evaluate(RECORD)
        self.dismiss()

    def dismiss(self) -> None:
        """Close a dialog that opened by itself."""
        if self.page.locator(DIALOG).first.is_visible():
            self.page.keyboard.press("Escape")

    def js(self, script: str, argument: Any = None) -> Any:
        """Run a script in the page."""
        return self.page.evaluate(script, argument)

    # -- a workflow

    def load_workflow(self, workflow: dict[str, Any] | Path, name: str = "workflow") -> None:
        """Load a workflow."""
        content = json.loads(workflow.read_text()) if isinstance(workflow, Path) else workflow
        self.js("([graph, name]) => app.loadGraphData(graph, true, true, name)", [content, name])
        self.page.wait_for_function("(n) => app.graph.nodes.length === n", arg=len(content["nodes"]))

    def workflow(self) -> dict[str, Any]:
        """Return what the editor would save, as it is in a file: without what is undefined."""
        saved: dict[str, Any] = self.js("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
        return saved

    def prompt(self) -> dict[str, Any]:
        """Return the prompt that Run would send."""
        prompt: dict[str, Any] = self.js("async () => (await app.graphToPrompt()).output")
        return prompt

    def set_widget(self, node_id: int | str, name: str, value: Any) -> None:
        """Set the value of a widget."""
        self.js(SET_WIDGET, [node_id, name, value])

    def drop(self, text: str, name: str = "workflow.json", media_type: str = "application/json") -> None:
        """Drop a file onto the canvas."""
        self.js(DROP, [text, name, media_type])

    # -- running it

    def queue(self) -> int:
        """Queue the graph as Run does, and return the number that `wait` takes."""
        ended: int = self.js("async () => { const n = harness.ended.length; await app.queuePrompt(0, 1); return n; }")
        return ended

    def press_run(self) -> int:
        """Press the Run button, and return the number that `wait` takes."""
        ended: int = self.js("() => harness.ended.length")
        self.page.get_by_role("button", name="Run", exact=True).first.click()
        return ended

    def wait(self, ended: int, timeout: float = 120) -> None:
        """Wait until the run ends; raises the errors of `Server.wait`."""
        self.page.wait_for_function("(n) => harness.ended.length > n", arg=ended, timeout=timeout * 1000)
        kind, data = self.js("(n) => harness.ended[n]", ended)
        if kind == "execution_error":
            raise PromptFailed(data)
        if kind == "execution_interrupted":
            raise PromptInterrupted(str(data.get("node_id")))

    def run(self, timeout: float = 120) -> None:
        """Queue the graph, and wait until the run ends."""
        self.wait(self.queue(), timeout)

    def node_errors(self) -> dict[str, Any]:
        """Return the errors of the last prompt that the server rejected."""
        errors: dict[str, Any] = self.js("() => app.lastNodeErrors ?? {}")
        return errors

    # -- looking

    def command(self, name: str) -> None:
        """Execute a command of the editor."""
        self.js("(name) => app.extensionManager.command.execute(name)", name)

    def select(self, node_id: int | str) -> None:
        """Select a node."""
        self.js("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", node_id)

    def fit_view(self) -> None:
        """Fit the view to the graph, and wait until it shows all nodes."""
        self.js(FIT)
        self.page.wait_for_function(FITS)
        try:
            self.still(seconds=20)
        except PlaywrightTimeout:  # the editor pans while it holds something that is dragged: let go of it
            self.page.mouse.up()
            self.js(LET_GO)
            self.js(FIT)
            self.page.wait_for_function(FITS)
            self.still()

    def still(self, seconds: float = PATIENCE / 1000) -> None:
        """Wait until no animation moves the view or the nodes."""
        self.js("() => { harness.view = undefined; }")
        self.page.wait_for_function(STILL, timeout=1000 * seconds)

    def media_ready(self, timeout: float = 30) -> None:
        """Wait until every picture and video on the page is loaded."""
        self.page.wait_for_function(MEDIA_READY, timeout=timeout * 1000)
        self.page.wait_for_timeout(500)

    def screenshot(self, path: Path) -> Path:
        """Save a picture of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path

    def photo(self, x: float, y: float, width: float, height: float) -> Image.Image:
        """Take a picture of a part of the page."""
        clip: Any = {"x": x, "y": y, "width": width, "height": height}
        return Image.open(BytesIO(self.page.screenshot(clip=clip))).convert("RGB")

    def open_templates(self, pack: str = PACK) -> list[str]:
        """Open the template browser at the pack, and return the names of its templates."""
        self.command("Comfy.BrowseTemplates")
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(pack, exact=True).first.click()
        names = self.server.get("/api/workflow_templates").get(pack, [])
        dialog.get_by_text(names[0]).first.wait_for()
        return sorted(name for name in names if dialog.get_by_text(name).count())

    def node_help(self, node_id: int | str) -> str:
        """Open the help of a node, and return its text."""
        self.fit_view()
        # the button is above the node: leave room for it below the top bar
        self.js("() => { const { ds } = app.canvas; ds.changeScale(ds.scale * 0.6); app.canvas.setDirty(true, true); }")
        self.select(node_id)
        self.page.locator("[data-testid='info-button']").first.click()
        panel = self.page.locator(".node-help-content").filter(has_text=re.compile(r"\S")).first
        panel.wait_for()
        return panel.inner_text()


@contextlib.contextmanager
def editor(
    browser: Browser,
    server: Server,
    mode: Mode = "classic",
    size: tuple[int, int] = (1600, 900),
    settings: Mapping[str, Any] | None = None,
    frontend: Path | None = None,
) -> Iterator[Editor]:
    """Open the editor of a running server in a new profile, with an empty canvas and no dialog.

    Args:
        browser: Runs the page.
        server: Answers it.
        mode: How nodes are drawn.
        size: Width and height of the window in pixels.
        settings: Settings of the editor, beside `QUIET`.
        frontend: Folder of another version of the editor than the server's. One server can so show several.
    """
    usual = {**QUIET, "Comfy.VueNodes.Enabled": mode == "nodes2"}
    server.settings({**usual, **(settings or {})})
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PATIENCE)
    if frontend is not None:
        # a page that is no answer of the server may not open the server's websocket without it
        context.grant_permissions(["local-network-access"])
        _replace_frontend(context, frontend)
    try:
        tab = Editor(context.new_page(), server)
        tab.open()
        yield tab
    finally:
        context.close()
        server.settings(usual)  # for a page of this server that is reloaded


def _replace_frontend(context: BrowserContext, folder: Path) -> None:
    """Answer requests for files of the editor from ``folder``, in place of the server."""

    def file_of(url: str) -> Path:
        return folder / (urlsplit(url).path.lstrip("/") or "index.html")

    context.route(lambda url: file_of(url).is_file(), lambda route: route.fulfill(path=file_of(route.request.url)))

"""The button that verifies a loader's model, in the editor's toolbar above the selected node."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from sf_core.verification.cases import cases
from tests.comfyui import models
from tools.comfyui.browser import Editor
from tools.comfyui.server import Server

(CASE,) = (case for case in cases() if case.name == "Infinite-Forcing")
FILE = "verify_me.safetensors"
ADD = """(file) => {
  const node = LiteGraph.createNode("SFLoadModel");
  node.pos = [200, 200];
  app.graph.add(node);
  node.widgets.find((one) => one.name === "model_name").value = file;
  app.graph.setDirtyCanvas(true, true);
  return JSON.stringify(app.graph.serialize().nodes.map((one) => one.type));
}"""
# of the title of the node, on the page
PLACE = """() => {
  const { ds, canvas } = app.canvas, box = canvas.getBoundingClientRect(), [x, y] = app.graph.nodes[0].pos;
  return [box.left + (x + 100 + ds.offset[0]) * ds.scale, box.top + (y - 15 + ds.offset[1]) * ds.scale];
}"""
TYPES = "() => JSON.stringify(app.graph.serialize().nodes.map((one) => one.type))"


@pytest.fixture(autouse=True)
def _file(server: Server) -> None:
    facts = {"sf.num_heads": "2", "sf.text_len": "8", "sf.rollout": json.dumps(CASE.config.as_dict())}
    models.put(server, "diffusion_models", FILE, CASE.weights(), facts)
    server.object_info()


def test_the_button_of_a_selected_loader_shows_a_certificate_on_it(own_page: Editor) -> None:
    before = own_page.js(ADD, FILE)
    own_page.fit_view()  # a page that has just opened may move its view late
    x, y = own_page.js(PLACE)
    own_page.page.mouse.click(x, y)
    button, words = own_page.page.locator("button:has(.pi-verified)"), own_page.page.locator(".sf-words")
    for _ in range(2):  # the second time, ComfyUI has the loader's result
        expect(button).to_have_count(1)
        ended = own_page.js("() => harness.ended.length")
        button.click()
        own_page.wait(ended)
        own_page.page.wait_for_timeout(500)  # a text that comes after the end would replace the certificate
        expect(words).to_contain_text("verify passed: verify_me.safetensors")
        expect(words).to_contain_text("recorded case: ")
    assert own_page.js(TYPES) == before  # the workflow is as it was
    own_page.page.keyboard.press("Escape")
    own_page.js("() => app.canvas.deselectAllNodes?.() ?? app.canvas.deselectAll()")
    expect(button).to_have_count(0)  # quiet until a loader is selected

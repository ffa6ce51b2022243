"""`fps` of a new node follows the model before it; what was set or saved stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.comfyui import models
from tools.comfyui.browser import Editor
from tools.comfyui.server import Server

FILE = "rate_of_48_channels.safetensors"
# loader 1, session 2, then nodes with fps
BUILD = """(kinds) => {
  ["SFLoadModel", "SFSession", ...kinds].forEach((kind, place) => {
    const node = LiteGraph.createNode(kind);
    node.pos = [450 * place, 0];
    app.graph.add(node);
  });
  const [loader, session, ...rest] = app.graph.nodes;
  loader.connect(0, session, session.findInputSlot("model"));
  for (const node of rest) session.connect(0, node, node.findInputSlot("session"));
}"""
SET = """([id, name, value]) => {
  const widget = app.graph.getNodeById(id).widgets.find((one) => one.name === name);
  widget.value = value;
  widget.callback?.(value);
}"""
FPS = "() => app.graph.nodes.slice(2).map((node) => node.widgets.find((one) => one.name === 'fps').value)"
LABEL = "(id) => app.graph.getNodeById(id).widgets.find((one) => one.name === 'fps').label ?? ''"
KINDS = ["SFStreamVideo", "SFSampleChunks", "SFDecodeChunks"]


@pytest.fixture
def files(server: Server) -> None:
    arch = replace(models.ARCH, in_dim=48, out_dim=48)
    models.put(server, "diffusion_models", FILE, models.wan(arch=arch))
    models.put(server, "diffusion_models", "rate_of_16.safetensors", models.wan())
    server.object_info()


def rates_are(page: Editor, expected: list[float]) -> None:
    page.page.wait_for_function(f"(expected) => JSON.stringify(({FPS})()) === JSON.stringify(expected)", arg=expected)


@pytest.mark.usefixtures("files")
def test_a_new_node_follows_the_model_until_its_rate_is_set(page: Editor) -> None:
    page.js(BUILD, KINDS)
    page.js(SET, [1, "model_name", FILE])
    rates_are(page, [24, 24, 24])
    assert page.js(LABEL, 3) == "fps (the model's: 24)"
    page.js(SET, [4, "fps", 30])
    page.js(SET, [1, "model_name", "rate_of_16.safetensors"])
    rates_are(page, [16, 30, 16])
    assert page.js(LABEL, 4) in ("", "fps")
    assert page.errors == []


@pytest.mark.usefixtures("files")
def test_a_node_of_a_workflow_keeps_its_rate(page: Editor) -> None:
    page.js(BUILD, KINDS)
    rates_are(page, [16, 16, 16])
    page.load_workflow(page.workflow())
    page.js(SET, [1, "model_name", FILE])
    page.page.wait_for_function("() => document.body.innerText.includes('48')", timeout=10_000)
    assert page.js(FPS) == [16, 16, 16]
    assert page.errors == []

"""A LoRA is trained on the canvas: seen while it learns, interrupted, gone on with, and there for core's loader."""

from __future__ import annotations

import itertools
import json

import pytest
from playwright.sync_api import expect

from tools.comfyui.browser import Editor
from tools.comfyui.checkout import ROOT
from tools.comfyui.server import PromptInterrupted

WORKFLOW = ROOT / "workflows" / "tiny_train.json"
FEW = {"start_steps": 2, "steps": 4, "batch_size": 2, "chunks": 2, "sample_every": 2}
STATES = """() => {
  window.states = [];
  app.api.addEventListener("self_forcing.run", ({ detail }) => window.states.push(detail));
}"""
LOADABLE = """async () => {
  await app.refreshComboInNodes();
  const node = LiteGraph.createNode("LoraLoaderModelOnly");
  const { values } = node.widgets.find((one) => one.name === "lora_name").options;
  return typeof values === "function" ? values() : values;
}"""
_numbers = itertools.count()


@pytest.mark.one_mode
def test_a_lora_is_trained_interrupted_and_finished(page: Editor) -> None:
    name = f"canvas_{next(_numbers)}"
    page.load_workflow(json.loads(WORKFLOW.read_text()))
    (node,) = page.js("() => app.graph.nodes.filter((one) => one.type === 'SFTrain').map((one) => one.id)")
    for key, value in {**FEW, "name": name}.items():
        page.set_widget(node, key, value)
    page.fit_view()
    page.js(STATES)
    player = page.page.locator(".sf-player").filter(has=page.page.locator(".sf-losses"))
    expect(player.locator(".sf-hint")).to_contain_text("Losses appear here")

    run = page.press_run()
    expect(player.locator(".sf-facts")).to_contain_text("self forcing")
    page.page.wait_for_function("() => window.states.some((one) => one.training?.step >= 2 && one.frames)")
    page.command("Comfy.Interrupt")
    with pytest.raises(PromptInterrupted):
        page.wait(run)
    expect(player.locator(".sf-state")).to_have_text("Interrupted")
    expect(player.locator(".sf-text")).to_have_text(
        f"loras/{name}.safetensors holds the training so far; Run continues it"
    )
    assert page.js("() => window.states.at(-1).chunk") < FEW["start_steps"] + 5 * FEW["steps"]

    page.wait(page.press_run(), timeout=180)
    expect(player.locator(".sf-text")).to_have_text(f"loras/{name}.safetensors is ready")
    assert player.locator(".sf-losses polyline").count() == 2
    expect(player.locator(".sf-legend")).to_contain_text("critic")
    assert player.locator(".sf-picture canvas").evaluate("(canvas) => canvas.width") == 128  # four samples of 64
    assert f"{name}.safetensors" in page.js(LOADABLE)
    assert page.errors == []

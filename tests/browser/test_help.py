"""The help panel and the languages, as the editor shows them."""

from __future__ import annotations

import pytest

from tools.comfyui.browser import Editor, Mode

# its editor, 1.32.9, fetches a language after the packs' words for it and puts it in their place
EDITOR_FORGETS = {"0.3.75"}
ADD = """(kind) => {
  Object.assign(app.canvas.ds, { scale: 1, offset: [0, 0] });
  const node = LiteGraph.createNode(kind);
  node.pos = [500, 300];
  app.graph.add(node);
  return node.id;
}"""
PICTURES = """() => [...document.querySelectorAll(".node-help-content img, [data-testid='node-help'] img")]
  .map((one) => [new URL(one.src).pathname, one.naturalWidth])"""
LABELS = """(id) => {
  const node = app.graph.getNodeById(id);
  return [node.title, ...[...node.inputs, ...node.outputs].map((one) => one.label ?? one.localized_name ?? one.name)];
}"""


@pytest.mark.one_mode
def test_the_help_panel_shows_page_and_picture(page: Editor) -> None:
    """Its first request for the page finds it."""
    asked: list[tuple[str, int]] = []
    page.page.on("response", lambda answer: asked.append((answer.url, answer.status)))
    text = page.node_help(page.js(ADD, "SFStreamVideo"))
    assert "How it behaves" in text
    assert [status for url, status in asked if url.endswith(".md")] == [200]
    page.page.wait_for_function(
        f"() => ({PICTURES})().some(([name, width]) => name.includes('SFStreamVideo') && width)"
    )
    assert page.errors == []


@pytest.mark.one_mode
@pytest.mark.parametrize("own_page", [{"Comfy.Locale": "zh"}], ids=["zh"], indirect=True)
def test_chinese_names_and_help_show(own_page: Editor, mode: Mode) -> None:
    node = own_page.js(ADD, "SFStreamVideo")
    labels = own_page.js(LABELS, node)
    if own_page.server.checkout.version not in EDITOR_FORGETS:
        assert labels[0] == "流式生成视频"
        assert {"会话", "视频"} <= set(labels)
        if mode == "nodes2":
            own_page.page.locator("[data-node-id]").get_by_text("会话").first.wait_for()
    own_page.page.locator(".sf-player").get_by_text("视频生成时会显示在这里").wait_for()
    assert "逐块生成视频" in own_page.node_help(node)


@pytest.mark.parametrize("mode", ["classic"], indirect=True)  # the texts are the same in both
def test_without_the_texts_the_editor_opens_and_the_player_shows_their_keys(own_page: Editor) -> None:
    own_page.page.route("**/i18n", lambda route: route.fulfill(status=500, body="no texts"))
    own_page.reload()
    own_page.js("() => app.graph.clear()")
    own_page.js(ADD, "SFStreamVideo")
    own_page.page.locator(".sf-player").get_by_text("nothing yet", exact=True).wait_for()

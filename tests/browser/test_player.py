"""The player: frames play on the node while the run goes on, and what is done there by hand changes the video."""

from __future__ import annotations

import itertools
from typing import Any

import av
import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from torch import Tensor

from tests.comfyui.graphs import BLUE, RED, Graph, Tiny, forget_all, latents, probe, temp_videos
from tests.comfyui.servers import VERSIONS
from tools.comfyui.browser import Editor, Mode

CHUNK = 12  # frames of a chunk, but 9 of the first
FPS = 16
_seeds = itertools.count(1)
AS_WORKFLOW = """async (prompt) => {
  await app.loadApiJson(prompt, "live");
  return JSON.parse(JSON.stringify({ ...app.graph.serialize(), id: crypto.randomUUID() }));
}"""
# which frames the canvas shows and when: [seconds, number, how bright the picture is below the number]
WATCH = """() => {
  const first = !window.seen;
  window.seen = [];
  window.states = [];
  // the last messages of another test's run may still come
  window.others = new Set([...(window.others ?? []), ...(window.runs ?? [])]);
  window.runs = new Set();
  if (!first) return;
  app.api.addEventListener("self_forcing.run", ({ detail }) => {
    if (window.others.has(detail?.run)) return;
    window.runs.add(detail?.run);
    window.states.push({ ...detail, at: performance.now() / 1000 });
  });
  const small = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const pen = small.getContext("2d", { willReadFrequently: true });
  const look = () => {
    requestAnimationFrame(look);
    const canvas = document.querySelector(".sf-picture canvas:not([hidden])");
    if (!canvas || canvas.width < 2) return;
    pen.drawImage(canvas, 0, 0, 64, 64);
    const { data } = pen.getImageData(0, 0, 64, 64);
    const at = (x, y) => (data[4 * (64 * y + x)] + data[4 * (64 * y + x) + 1] + data[4 * (64 * y + x) + 2]) / 765;
    let number = 0;
    for (let bit = 0; bit < 12; bit++) if (at(5 * bit + 2, 4) > 0.5) number |= 1 << bit;
    if (number === window.seen.at(-1)?.[1]) return;
    let bright = 0;
    for (let x = 0; x < 64; x++) for (let y = 16; y < 64; y++) bright += at(x, y) / (64 * 48);
    window.seen.push([performance.now() / 1000, number, bright]);
  };
  look();
}"""
DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))"
HAS_STREAM = "() => app.graph.nodes.some((node) => node.type === 'SFStreamVideo')"
SLOW = 10  # milliseconds that each attention takes at least: a chunk takes a third of its time on the screen


def open_graph(page: Editor, graph: Graph) -> None:
    """As a workflow from a file: it has an id, by which the editor and the player know it again."""
    page.load_workflow(page.js(AS_WORKFLOW, graph.prompt), "live")


class Live:
    """A video without an end, begun by the Run button."""

    def __init__(self, page: Editor, slow: int = 0) -> None:
        self.page, graph = page, Graph()
        forget_all(page.server)
        tiny = Tiny.of(graph)
        model = graph("ProbeAttention", model=tiny.model, name="slow", at=slow, does="rest")[0] if slow else tiny.model
        session = tiny.session(RED, seed=next(_seeds), model=model)
        vae = graph("ProbeNumbered", vae=tiny.vae)[0]
        stream = graph("SFStreamVideo", session=session, vae=vae, seconds=0.0, fps=FPS, clip=tiny.clip)
        self.node, self.probe = stream.number, probe(graph, stream[1])
        open_graph(page, graph)
        page.fit_view()
        page.js(WATCH)
        self.run = page.press_run()

    @property
    def player(self) -> Locator:
        return self.page.page.locator(".sf-player").first

    def button(self, name: str) -> Locator:
        return self.player.get_by_role("button", name=name, exact=True)

    @property
    def video(self) -> Locator:
        return self.player.locator("video")

    def until(self, what: str) -> dict[str, Any]:
        """The first state of the run that is so."""
        self.page.page.wait_for_function(f"() => window.states.some((state) => {what})")
        found: dict[str, Any] = self.page.js(f"() => window.states.find((state) => {what})")
        return found

    def type(self, prompt: str) -> None:
        box = self.player.get_by_role("textbox")
        box.fill(prompt)
        box.press("Enter")

    def stop(self) -> None:
        self.button("Stop").click()
        self.page.wait(self.run)
        expect(self.video).to_be_visible()

    def seen(self) -> list[tuple[float, int, float]]:
        found: list[tuple[float, int, float]] = self.page.js("() => window.seen")
        return found

    def latents(self, run: int) -> Tensor:
        prompt_id = self.page.js("(n) => harness.ended[n][1].prompt_id", run)
        return latents(self.page.server.wait(prompt_id)["outputs"], self.probe)


def frames_in(page: Editor) -> int:
    with av.open(str(temp_videos(page.server)[-1])) as container:
        return sum(1 for _ in container.decode(video=0))


def first_of(chunk: int) -> int:
    return max(0, CHUNK * chunk - 3)


# alone on the machine, in real time: each editor and each way of drawing once, not each with each
WATCHED = [(role, mode) for role, mode in (("primary", "classic"), ("latest", "nodes2")) if role in VERSIONS]


@pytest.mark.alone
@pytest.mark.one_mode
@pytest.mark.parametrize(
    ("server", "mode"), WATCHED, ids=[f"{VERSIONS[role]}-{mode}" for role, mode in WATCHED], indirect=True
)
def test_nine_frames_in_ten_are_shown_in_order_at_the_videos_rate_while_it_is_made(page: Editor) -> None:
    live = Live(page, slow=SLOW)
    second = live.until("state.chunk >= 2")
    live.until("state.chunk >= 28")
    live.stop()
    ended = live.until("state.state === 'ended'")["at"]
    during = [(at, number) for at, number, _ in live.seen() if at <= ended]
    times, numbers = np.array(during).T
    assert times[0] < second["at"]
    assert (np.diff(numbers) > 0).all()
    assert len(numbers) >= 0.9 * (numbers[-1] + 1)
    assert numbers[-1] >= frames_in(page) - 5 * CHUNK  # the run is ahead of what is shown, but not far
    playing = slice(2, None)  # the first ones were drawn while the page was busy with the run's beginning
    rate = np.polyfit(times[playing], numbers[playing], 1)[0]
    assert 15 <= rate <= 17
    assert 15 <= (len(numbers) - 1) / (times[-1] - times[0]) <= 17
    assert page.errors == []


@pytest.mark.one_mode
def test_what_is_typed_is_seen_from_the_chunk_that_is_recorded_and_replay_makes_it_again(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 3")
    live.type(BLUE)  # on white; what came before is on black
    live.until("state.actions.length === 1")
    live.button("Cut").click()
    state = live.until("state.actions.length === 2")
    first = first_of(state["actions"][0]["chunk"])
    page.page.wait_for_function(f"() => window.seen.some(([, number, light]) => number >= {first} && light > 0.6)")
    live.stop()
    typed, cut = live.until("state.state === 'ended'")["actions"]
    assert (typed["action"], typed["prompt"], cut["action"]) == ("prompt", BLUE, "cut")
    assert all(light < 0.4 for _, number, light in live.seen() if number < first)

    made = live.latents(live.run)
    live.player.get_by_text("Replay", exact=True).click()
    page.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'SFPromptTimeline')")
    forget_all(page.server)
    again = page.press_run()
    page.wait(again)
    assert torch.equal(live.latents(again), made)
    assert page.errors == []


@pytest.mark.one_mode
def test_stop_keeps_the_video_that_was_made(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 3")
    live.stop()
    chunks = live.until("state.state === 'ended'")["chunk"]
    page.page.wait_for_function("() => document.querySelector('.sf-player video').readyState >= 2")
    assert frames_in(page) == first_of(chunks)
    seconds = page.js("() => document.querySelector('.sf-player video').duration")
    assert abs(seconds - first_of(chunks) / FPS) < 0.1
    expect(live.player.locator("canvas")).to_be_hidden()
    expect(live.player).to_contain_text("Stopped")


@pytest.mark.one_mode
def test_a_page_that_is_loaded_again_goes_on_showing_the_run(page: Editor) -> None:
    live = Live(page)
    made = live.until("state.chunk >= 2")["frames"]
    workflow = page.workflow()
    page.reload()
    try:
        page.page.wait_for_function(HAS_STREAM, timeout=5000)
    except PlaywrightTimeout:  # a newer editor brings back what it had time to keep
        page.load_workflow(workflow)
    page.fit_view()
    page.js(WATCH)
    page.page.wait_for_function("() => window.seen.length >= 10")
    assert all(number >= made for _, number, _ in live.seen())
    ended = page.js("() => harness.ended.length")
    live.run = ended
    live.stop()
    assert page.errors == []


@pytest.mark.one_mode
def test_a_re_rolled_chunk_is_shown_again_and_nothing_runs_backwards_without_it(page: Editor) -> None:
    live = Live(page, slow=SLOW)
    live.until("state.chunk >= 4")
    live.button("Re-roll").click()
    action = live.until("state.actions.length === 1")["actions"][0]
    live.until(f"state.chunk >= {action['chunk'] + 4}")
    live.stop()
    numbers = [number for _, number, _ in live.seen()]
    again = range(first_of(action["chunk"]), first_of(action["chunk"] + 1))
    back = [b for a, b in itertools.pairwise(numbers) if b <= a]
    assert len(back) <= 1  # none if the withdrawn frames had not been shown yet
    assert set(back) <= {again[0] - 1, *again}  # or the last one that holds, until they come again
    assert set(numbers) & set(again)  # a busy machine leaves some out


@pytest.mark.one_mode
def test_a_run_can_be_paused_and_gone_on_with(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 2")
    live.button("Pause run").click()
    expect(live.player).to_contain_text("Run paused")
    page.page.wait_for_function("() => performance.now() / 1000 - window.seen.at(-1)[0] > 1.5")  # no new frame
    first = len(live.seen())
    live.button("Resume run").click()
    page.page.wait_for_function("(n) => window.seen.length > n + 20", arg=first)
    live.stop()


@pytest.mark.one_mode
def test_a_click_counts_when_the_run_goes_on_between_press_and_release(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 2")
    live.button("Pause run").hover()
    page.page.mouse.down()
    shown = page.js("() => window.states.length")
    page.page.wait_for_function("(shown) => window.states.length > shown", arg=shown)
    page.page.mouse.up()
    expect(live.player.locator(".sf-state")).to_have_text("Run paused")
    live.stop()


@pytest.mark.one_mode
def test_the_details_draw_how_far_each_chunk_is_away_from_the_first_ones(page: Editor) -> None:
    live = Live(page)
    live.until("state.drift && state.drift.points.length >= 6")
    live.button("Details").click()
    details = live.player.get_by_role("dialog", name="Details")
    expect(details).to_contain_text("(limit 0.5)")
    curve = details.get_by_role("img", name="Drift of the chunks").locator("polyline")
    expect(curve).to_be_visible()
    points = [[float(one) for one in point.split(",")] for point in str(curve.get_attribute("points")).split()]
    assert len(points) >= 6
    assert [x for x, _ in points] == sorted({x for x, _ in points})  # to the right
    assert points[0][1] > max(y for _, y in points[1:])  # the first chunk is its own beginning, at the bottom
    page.page.keyboard.press("Escape")
    live.stop()
    assert page.errors == []


@pytest.mark.one_mode
def test_an_interrupted_run_leaves_its_video_on_the_node(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 3")
    page.server.interrupt()
    expect(live.video).to_be_visible()
    expect(live.player).to_contain_text("Interrupted")


@pytest.mark.one_mode
def test_a_prompt_that_is_not_understood_is_said_below_its_field_and_the_run_goes_on(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 1")
    live.type("an elephant")
    message = live.player.locator(".sf-message")
    expect(message).to_contain_text("The prompt was not understood")
    field, place = live.player.get_by_role("textbox").bounding_box(), message.bounding_box()
    assert field
    assert place
    assert place["y"] >= field["y"] + field["height"]
    words = message.get_by_text("purple")
    expect(words).to_be_hidden()
    message.get_by_role("button", name="More").click()
    expect(words).to_be_visible()
    page.page.keyboard.press("Escape")
    chunk = live.until("state.note !== ''")["chunk"]
    live.until(f"state.chunk >= {chunk + 2}")
    expect(message).to_contain_text("The prompt was not understood")
    live.player.get_by_role("textbox").fill("a red circle")  # it holds no longer
    expect(message).not_to_contain_text("The prompt was not understood")
    live.stop()
    assert page.errors == []


OPEN_POPUP = ".sf-popup:popover-open"


def test_the_player_is_used_by_keys_alone(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 4")
    live.player.focus()
    page.page.keyboard.press("Space")
    expect(live.button("Play")).to_be_visible()
    page.js(DRAWN)
    before = live.seen()[-1][1]
    for key, shown in (("ArrowLeft", before - 1), ("ArrowRight", before), ("Home", 0)):
        page.page.keyboard.press(key)
        page.page.wait_for_function("(number) => window.seen.at(-1)[1] === number", arg=shown)
    for name in ("More", "Details"):
        live.button(name).press("Enter")
        expect(live.player.locator(OPEN_POPUP)).to_be_visible()
        page.page.keyboard.press("Escape")
        expect(live.player.locator(OPEN_POPUP)).to_have_count(0)
    live.stop()


@pytest.mark.one_mode
def test_a_picture_can_be_taken(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 1")
    live.button("More").click()
    live.button("Copy frame").click()
    expect(live.player.locator(".sf-message")).to_contain_text("Frame ")
    live.stop()


@pytest.mark.one_mode  # the panel does not depend on how nodes are drawn
@pytest.mark.parametrize("own_page", [{"Comfy.RightSidePanel.IsOpen": True}], ids=["open"], indirect=True)
def test_the_panel_beside_the_canvas_has_no_empty_place_for_the_player(own_page: Editor) -> None:
    """Newer editors list a selected node's widgets there."""
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(RED), vae=tiny.vae, seconds=1.0, fps=FPS)
    open_graph(own_page, graph)
    own_page.fit_view()
    own_page.select(stream.number)
    expect(own_page.page.locator(".sf-player")).to_be_visible()
    own_page.js(DRAWN)
    assert own_page.page.locator("canvas.cursor-crosshair").count() == 0  # how such a panel draws what it cannot show


@pytest.mark.one_mode
def test_sample_chunks_shows_its_chunks_with_a_vae_and_stops_and_goes_on(page: Editor) -> None:
    forget_all(page.server)
    graph = Graph()
    tiny = Tiny.of(graph)
    model = graph("ProbeAttention", model=tiny.model, name="slow", at=SLOW, does="rest")[0]
    session = tiny.session(RED, seed=next(_seeds), model=model)
    vae = graph("ProbeNumbered", vae=tiny.vae)[0]
    made = graph("SFSampleChunks", session=session, chunks=1000, preview_vae=vae)
    probe(graph, made[0])
    open_graph(page, graph)
    page.fit_view()
    page.js(WATCH)
    run = page.press_run()
    page.page.wait_for_function("() => window.seen.length >= 40")
    page.page.locator(".sf-player").get_by_role("button", name="Stop", exact=True).click()
    page.wait(run)
    numbers = [number for _, number, _ in page.js("() => window.seen")]
    assert numbers == sorted(set(numbers))
    expect(page.page.locator(".sf-state")).to_have_text("Stopped")
    player = page.page.locator(".sf-player")
    expect(player.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    player.get_by_role("button", name="Keep", exact=True).click()
    expect(page.page.locator(".sf-message")).to_contain_text("Kept as a red circle")
    made = page.js("() => Math.max(...window.seen.map(([, number]) => number))")
    run = page.js("() => harness.ended.length")
    player.get_by_role("button", name="Continue", exact=True).click()
    page.page.wait_for_function("(made) => window.seen.some(([, number]) => number > made + 12)", arg=made)
    player.get_by_role("button", name="Stop", exact=True).click()
    page.wait(run)
    assert page.errors == []


INTO_SUBGRAPH = """() => {
  const wanted = app.graph.nodes.filter((one) => one.type === "SFStreamVideo");
  app.canvas.deselectAll?.();
  const { node } = app.graph.convertToSubgraph(new Set(wanted));
  return String(node.id);
}"""
OPEN_SUBGRAPH = """(id) => {
  const node = app.graph.getNodeById(Number(id));
  app.canvas.openSubgraph(node.subgraph, node);
}"""


def test_in_a_subgraph_it_plays_and_stops_too(page: Editor) -> None:
    forget_all(page.server)
    graph = Graph()
    tiny = Tiny.of(graph)
    vae = graph("ProbeNumbered", vae=tiny.vae)[0]
    stream = graph("SFStreamVideo", session=tiny.session(RED, seed=next(_seeds)), vae=vae, seconds=0.0, fps=FPS)
    probe(graph, stream[1])
    open_graph(page, graph)
    outer = page.js(INTO_SUBGRAPH)
    page.js(WATCH)
    run = page.press_run()
    page.js(OPEN_SUBGRAPH, outer)
    page.fit_view()
    page.page.wait_for_function("() => window.seen.length >= 10")
    page.page.locator(".sf-player").get_by_role("button", name="Stop", exact=True).click()
    page.wait(run)
    assert page.errors == []


ADD = """([kind, count]) => {
  const nodes = Array.from({ length: count }, (_, n) => {
    const node = LiteGraph.createNode(kind);
    node.pos = [(n % 10) * 320, Math.floor(n / 10) * 500];
    app.graph.add(node);
    return node;
  });
  window.added = nodes.map((node) => node.id);
}"""
REMOVE = "() => { for (const id of window.added) app.graph.remove(app.graph.getNodeById(id)); }"
# what the pack's modules hold on to: listeners on what outlives a node, timers, addresses of blobs
COUNT = """() => {
  const ours = () => new Error().stack.includes("comfyui-self-forcing");
  const held = (window.held = { listeners: new Map(), timers: new Set(), blobs: new Set() });
  const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
  const lasting = (target) => !(target instanceof Element) || target === document.body || target === app.canvas.canvas;
  EventTarget.prototype.addEventListener = function (type, then, options) {
    if (lasting(this) && ours()) {
      const key = [this, type, then];
      held.listeners.set(`${type} ${held.listeners.size}`, key);
      options?.signal?.addEventListener("abort", () => forget(this, type, then));
    }
    return add.call(this, type, then, options);
  };
  const forget = (target, type, then) => {
    for (const [name, [on, kind, what]] of held.listeners)
      if (on === target && kind === type && what === then) held.listeners.delete(name);
  };
  EventTarget.prototype.removeEventListener = function (type, then, options) {
    forget(this, type, then);
    return remove.call(this, type, then, options);
  };
  for (const [start, end] of [["setTimeout", "clearTimeout"], ["setInterval", "clearInterval"],
                              ["requestAnimationFrame", "cancelAnimationFrame"]]) {
    const [begin, stop] = [window[start], window[end]];
    window[start] = (then, ...more) => {
      const mine = ours();
      const id = begin((...given) => {
        if (start !== "setInterval") held.timers.delete(`${start} ${id}`);
        then(...given);
      }, ...more);
      if (mine) held.timers.add(`${start} ${id}`);
      return id;
    };
    window[end] = (id) => (held.timers.delete(`${start} ${id}`), stop(id));
  }
  const [make, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (blob) => {
    const url = make.call(URL, blob);
    if (ours()) held.blobs.add(url);
    return url;
  };
  URL.revokeObjectURL = (url) => (held.blobs.delete(url), revoke.call(URL, url));
}"""
HELD = """() => ({
  listeners: [...window.held.listeners].filter(([, [on]]) => !(on instanceof MediaQueryList)).map(([name]) => name),
  timers: [...window.held.timers], blobs: [...window.held.blobs],
  elements: document.querySelectorAll("[class*='sf-']").length })"""


def test_nodes_added_and_removed_leave_nothing(own_page: Editor, mode: Mode) -> None:
    count = {"classic": 100, "nodes2": 10}[mode]  # Nodes 2.0 takes seconds for a hundred
    own_page.js(COUNT)
    before = own_page.js(HELD)
    for kind in ("SFStreamVideo", "SFSampleChunks", "SFDecodeChunks", "SFPromptTimeline"):
        own_page.js(ADD, [kind, count])
        own_page.page.wait_for_function(f"(before) => ({HELD})().elements > before", arg=before["elements"])
        own_page.js(DRAWN)
        own_page.js(REMOVE)
    # a removed node keeps something for an undo, for two seconds
    own_page.page.wait_for_function(f"(before) => JSON.stringify(({HELD})()) === JSON.stringify(before)", arg=before)
    assert own_page.errors == []


def test_a_removed_node_takes_its_player_with_it_while_it_plays(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 2")
    page.js("(id) => app.graph.remove(app.graph.getNodeById(Number(id)))", live.node)
    expect(page.page.locator(".sf-player")).to_have_count(0)
    live.until("state.chunk >= 4")
    page.server.post("/self_forcing/steer", {"node_id": live.node, "action": "stop"})
    page.wait(live.run)
    assert page.errors == []


def test_the_player_is_in_no_saved_workflow_and_in_no_prompt(page: Editor) -> None:
    page.js(ADD, ["SFStreamVideo", 1])
    page.set_widget(1, "seconds", 7.5)
    saved = page.workflow()
    assert saved["nodes"][0]["widgets_values"] == [7.5, FPS, "measure", 0.5]
    inputs = {"seconds": 7.5, "fps": FPS, "on_drift": "measure", "drift_threshold": 0.5}
    assert page.prompt()["1"]["inputs"] == inputs
    page.load_workflow(saved)
    assert page.prompt()["1"]["inputs"] == inputs


GARBAGE = """(node) => {
  const values = [undefined, null, true, -1, NaN, "", "x", [], {}, [null], 2 ** 60, "running", node, "9".repeat(999)];
  let seed = 7;
  const one = () => values[(seed = (seed * 48271) % 2147483647) % values.length];
  const names = ["node_id", "run", "state", "fps", "chunk", "frames", "first", "count", "numbers", "actions", "video"];
  for (let k = 0; k < 10_000; k++) {
    const detail = k % 7 ? Object.fromEntries(names.map((name) => [name, one()])) : one();
    const type = `self_forcing.${["run", "frames", "withdrawn"][k % 3]}`;
    app.api.dispatchEvent(new CustomEvent(type, { detail }));
  }
}"""


@pytest.mark.one_mode
def test_ten_thousand_messages_of_garbage_change_nothing(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 1")
    page.js(GARBAGE, live.node)
    shown = len(live.seen())
    page.page.wait_for_function("(n) => window.seen.length > n + 10", arg=shown)
    live.button("Stop").click()
    page.wait(live.run)
    assert page.errors == []


@pytest.mark.one_mode
def test_it_plays_under_the_policy_of_disable_api_nodes(page: Editor) -> None:
    """Which lets the page load nothing but its own files, and no blobs as media. All servers of the tests have it."""
    policy = page.js("async () => (await fetch('/')).headers.get('content-security-policy')")
    assert "default-src 'self'" in policy
    live = Live(page)
    page.page.wait_for_function("() => window.seen.length > 20")
    live.stop()
    assert [error for error in page.errors if "self-forcing" in error or "self_forcing" in error] == []

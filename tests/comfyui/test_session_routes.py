"""The routes of the sessions panel: they say what there is, keep and delete it, and touch nothing else."""

from __future__ import annotations

import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sf_core.session.saved_record import read_record
from tests.comfyui.graphs import BLUE, Graph, Tiny
from tests.comfyui.sessions_api import (
    DELETE,
    KEEP,
    KEEP_FILE,
    RENAME,
    ask,
    endless,
    entries,
    entry,
    folder,
    http,
    post,
    save_numbers,
    saved,
    tree,
)
from tests.waiting import wait_until
from tools.comfyui.server import Server

REFUSALS = (400, 404, 409, 413)


def test_a_saved_session_is_listed_with_what_it_holds(server: Server) -> None:
    name = saved(server, "shelf/holds")
    found, path = entry(server, name), folder(server) / name
    assert found == {
        "name": name,
        "kind": "saved",
        "node_id": None,
        "chunks": 2,
        "frames": 6,
        "width": 64,
        "height": 64,
        "model": read_record(path)["model"],
        "prompt": BLUE,
        "seconds": 21 / 16,
        "model_name": "tiny demo",
        "workflow": "",
        "bytes": path.stat().st_size,
        "modified": path.stat().st_mtime,
        "picture": found["picture"],
    }


def test_the_picture_beside_a_session_is_shown_by_the_address_in_its_entry(server: Server) -> None:
    name = saved(server, "shelf/with é & picture")
    (folder(server) / name).with_suffix(".jpg").write_bytes(b"a picture")
    with http.open(server.url + entry(server, name)["picture"]) as answer:
        assert answer.read() == b"a picture"


def picture_of(server: Server, found: dict[str, Any]) -> Image.Image:
    with http.open(f"{server.url}/api{found['picture']}", timeout=30) as answer:
        return Image.open(io.BytesIO(answer.read())).convert("RGB")


def is_blue_on_white(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    white, blue = (pixels.min(axis=-1) > 200).sum(), ((pixels[..., 2] > 150) & (pixels[..., 0] < 100)).sum()
    return picture.size == (64, 64) and bool(white > 2000 and blue > 150)


def test_sessions_that_were_decoded_have_a_picture_of_their_end(server: Server) -> None:
    """One that is saved, one that is kept while it is made, one that was interrupted."""
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE), vae=tiny.vae, seconds=3.0, fps=16.0)
    number = graph("SFSaveSession", session=stream[1], filename_prefix=f"sessions/pictured {next(save_numbers)}").number
    name = server.run(graph.prompt)[number]["text"][0].split(":")[0]
    assert is_blue_on_white(picture_of(server, entry(server, name)))
    with endless(server) as node:
        wait_until(lambda: next(one for one in entries(server) if one["kind"] == "live")["frames"] > 30, "30 frames")
        live = next(one for one in entries(server) if one["kind"] == "live")
        assert is_blue_on_white(picture_of(server, live))  # also while no page shows the run
        _, kept = post(server, KEEP, node_id=node, name="pictured while made")
    interrupted = next(one for one in entries(server) if one["kind"] == "interrupted")
    assert is_blue_on_white(picture_of(server, interrupted))
    assert is_blue_on_white(picture_of(server, entry(server, kept["name"])))


def test_damaged_files_are_listed_with_a_sentence_and_hide_no_other(server: Server) -> None:
    name = saved(server, "shelf/sound")
    sound = (folder(server) / name).read_bytes()
    bad = {"shelf/empty.session": b"", "shelf/short.session": sound[:-9], "shelf/noise.session": bytes(range(256)) * 9}
    for one, data in bad.items():
        (folder(server) / one).write_bytes(data)
    os.mkfifo(folder(server) / "shelf/pipe.session")  # whoever reads it waits for ever
    try:
        for one in bad:
            found = entry(server, one)
            assert found["error"]
            assert str(server.base) not in found["error"]
            assert found["chunks"] is None
        assert entry(server, name)["chunks"] == 2
    finally:
        for one in [*bad, "shelf/pipe.session"]:
            (folder(server) / one).unlink()


def test_a_file_that_changes_is_read_again(server: Server) -> None:
    name, longer = saved(server, "shelf/first"), saved(server, "shelf/second", chunks=3)
    assert entry(server, name)["chunks"] == 2
    (folder(server) / name).write_bytes((folder(server) / longer).read_bytes())
    assert entry(server, name)["chunks"] == 3


def test_a_live_session_is_kept_while_its_run_goes_on(server: Server) -> None:
    with endless(server) as node:
        live = next(one for one in entries(server) if one["kind"] == "live")
        assert (live["node_id"], live["width"], live["height"], live["bytes"]) == (node, 64, 64, None)
        names = [post(server, KEEP, node_id=node, name="kept 1.2_a-b é 视频") for _ in range(2)]
        assert [status for status, _ in names] == [200, 200]
        assert len({answer["name"] for _, answer in names}) == 2
        assert server.get("/queue")["queue_running"]
        for _, answer in names:
            kept = entry(server, answer["name"])
            assert kept["chunks"] >= live["chunks"]
            assert kept["model"] == live["model"]
            assert read_record(folder(server) / answer["name"])["seeds"]
    assert not any(one["kind"] == "live" for one in entries(server))
    interrupted = next(one for one in entries(server) if one["kind"] == "interrupted")
    assert interrupted["chunks"] >= live["chunks"]
    assert post(server, KEEP, node_id=node, name="late")[0] == 404


def last_state(server: Server, graph: Graph, node: str, stop: bool = False) -> dict[str, Any]:
    """Run a graph; return the state with which the run of a node ended. stop: end it by hand after two chunks."""
    with server.events(f"of {node}") as events:
        server.submit(graph.prompt, client_id=f"of {node}")
        if stop:
            events.wait_for(lambda e: e.kind == "self_forcing.run" and e.data["chunk"] == 2)
            post(server, "/self_forcing/steer", node_id=node, action="stop")
        events.wait_for_end()
        state: dict[str, Any] = [e for e in events.all if e.kind == "self_forcing.run"][-1].data
    return state


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "at its end"])
def test_a_run_that_ends_keeps_its_session_which_can_be_continued_and_kept(server: Server, stop: bool) -> None:
    """Under the words of its prompt; whoever continues it is told where the new frames begin."""
    graph = Graph()
    tiny = Tiny.of(graph)
    fresh = tiny.session(BLUE, seed=time.monotonic_ns() % 2**40)
    seconds = 0.0 if stop else 1.0
    node = graph("SFStreamVideo", session=fresh, vae=tiny.vae, seconds=seconds, fps=16.0).number
    ended = last_state(server, graph, node, stop)
    found = entry(server, ended["session"])
    assert (ended["state"], found["kind"], found["chunks"]) == ("ended", "ended", ended["chunk"])
    kept = [post(server, KEEP_FILE, session=ended["session"])[1]["name"] for _ in range(2)]
    assert kept[0].startswith(BLUE[:20])
    assert kept[0] != kept[1]
    assert all(entry(server, one)["kind"] == "saved" and entry(server, one)["picture"] for one in kept)
    assert (folder(server) / kept[1]).read_bytes() == (folder(server) / kept[0]).read_bytes()

    more = Graph()
    tiny = Tiny.of(more)
    loaded = more("SFLoadSession", model=tiny.model, file=ended["session"], allow_other_model=False)[0]
    node = more("SFStreamVideo", session=loaded, vae=tiny.vae, seconds=0.5, fps=16.0).number
    longer = last_state(server, more, node)
    assert longer["first_new"] == ended["frames"]
    assert longer["begins"] == 0.0  # its rows count from the beginning of the session, as its video does
    assert longer["frames"] == ended["frames"] + round(longer["seconds"] * 16)
    assert entry(server, longer["session"])["chunks"] == ended["chunk"] + longer["chunk"]


def test_only_what_is_kept_is_said_to_be_kept(server: Server) -> None:
    """A run that made nothing keeps nothing; a session that made room for newer ones is not named any more."""
    graph = Graph()
    tiny = Tiny.of(graph)
    node = graph("SFStreamVideo", session=tiny.session(BLUE, seed=9), vae=tiny.vae, seconds=0.5, fps=16.0).number
    name = last_state(server, graph, node)["session"]
    assert post(server, DELETE, name=name)[0] == 200
    attached = post(server, "/self_forcing/attach", client_id=f"of {node}", own=True)[1]["runs"]
    assert [one["session"] for one in attached if one["node_id"] == node] == [None]
    status, refusal = post(server, KEEP_FILE, session=name)
    assert (status, refusal["error"]) == (404, f"the session {name!r} is gone: newer ones have taken its place")


def test_a_session_is_renamed_with_its_picture_and_takes_no_others_name(server: Server) -> None:
    first, second = saved(server, "shelf/one"), saved(server, "shelf/two")
    (folder(server) / first).with_suffix(".jpg").write_bytes(b"a picture")
    status, answer = post(server, RENAME, session=first, name=Path(second).stem)
    assert (status, answer["name"]) == (200, f"shelf/{Path(second).stem} 2.session")
    assert entry(server, answer["name"])["chunks"] == 2
    assert (folder(server) / answer["name"]).with_suffix(".jpg").read_bytes() == b"a picture"
    assert first not in [one["name"] for one in entries(server)]
    assert post(server, RENAME, session=first, name="late")[0] == 404
    assert post(server, RENAME, session=second, name="../up")[0] == 400


def test_a_fork_is_named_by_its_prompt(server: Server) -> None:
    with endless(server) as node:
        _, kept = post(server, KEEP, node_id=node)
    assert re.fullmatch(rf"{BLUE} at chunk \d+\.session", kept["name"])


BAD_NAMES = (
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "../up",
    "a/b",
    "a\\b",
    "/tmp/x",
    "a\0b",
    "a\nb",
    "x" * 101,
    "视" * 90,
    "a%date%",
)


def test_a_name_that_is_none_is_refused_and_nothing_is_written(server: Server) -> None:
    with endless(server) as node:
        before = {path for path in tree(server) if path.endswith(".session")}
        for name in BAD_NAMES:
            status, answer = post(server, KEEP, node_id=node, name=name)
            assert (status, list(answer)) == (400, ["error"]), name
        assert {path for path in tree(server) if path.endswith(".session")} == before


def test_deleting_takes_the_session_and_its_picture_and_no_other_file(server: Server) -> None:
    name = saved(server, "shelf/doomed")
    path = folder(server) / name
    path.with_suffix(".jpg").write_bytes(b"its own")
    other = path.with_name("doomed.jpg")
    other.write_bytes(b"another's")
    before = tree(server)
    assert post(server, DELETE, name=name) == (200, {"deleted": name})
    assert set(before) - set(tree(server)) == {str(path), str(path.with_suffix(".jpg"))}
    assert name not in [one["name"] for one in entries(server)]
    assert post(server, DELETE, name=name)[0] == 404


def test_nothing_outside_the_folders_is_deleted(server: Server, tmp_path: Path) -> None:
    victims = [tmp_path / "victim.session", tmp_path / "victim.jpg", server.base / "output" / "victim.session"]
    for victim in victims:
        victim.write_bytes(b"not yours")
    links = [folder(server) / "link.session", folder(server) / "linked"]
    links[0].symlink_to(victims[0])
    links[1].symlink_to(tmp_path, target_is_directory=True)
    names = [
        *("../victim.session", "shelf/../../victim.session", str(victims[0]), str(victims[2]), "..\\victim.session"),
        *("link.session", "linked/victim.session", "linked", "victim.jpg", "link.session\0", "~/victim.session"),
        *("", ".", "..", "/", "\0", "x" * 3000, "视频" * 300, "con", "file:///etc/passwd"),
    ]
    try:
        for name in names:
            status, answer = post(server, DELETE, name=name)
            assert status in REFUSALS, (name, answer)
            assert answer["error"]
        assert all(victim.read_bytes() == b"not yours" for victim in victims)
        assert all(link.is_symlink() for link in links)
    finally:
        for path in (*links, victims[2]):
            path.unlink()


@pytest.mark.parametrize("path", [KEEP, KEEP_FILE, RENAME, DELETE])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"[" * 4000, 400),
        (b'{"name": 1e999, "node_id": NaN}', 400),
        (b'{"name": "\\ud800", "node_id": "7"}', 400),
        (b'{"name": ["a"], "node_id": {}}', 400),
        (b'{"name": true, "node_id": true}', 400),
        (b'{"name": "\xff", "node_id": "7"}', 400),
        (b'{"name": "' + b"x" * 40_000 + b'", "node_id": "7"}', 413),
        (b'{"name": "nobody.session", "node_id": "999"}', 404),
        (b'{"name": "nobody.session", "node_id": ' + b"9" * 4000 + b"}", 404),
    ],
)
def test_a_wrong_body_is_refused_in_a_sentence(server: Server, path: str, body: bytes, status: int) -> None:
    got, answer = ask(server, path, body)
    assert (got, list(answer)) == (status, ["error"]) or (status == 404 and got == 400)


def test_wrong_headers_are_refused_too(server: Server) -> None:
    body = b'{"name": "nobody.session", "node_id": "999"}'
    for headers in ({"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}, {"Content-Encoding": "odd"}):
        assert ask(server, DELETE, body, **headers)[0] in REFUSALS
    assert ask(server, DELETE, body, **{"Content-Type": "text/plain; charset=nonsense"})[0] in REFUSALS
    assert ask(server, DELETE, body, **{"comfy-user": "nobody"})[0] in REFUSALS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
PATHS = st.lists(st.sampled_from(["..", ".", "/", "\\", "\0", "shelf", "x.session", "~", "%2e", "é", "C:"])).map(
    "".join
)
FIELDS = st.fixed_dictionaries(
    {}, optional={"name": PATHS | st.text() | JSON, "session": PATHS | JSON, "node_id": st.integers() | PATHS | JSON}
)
BODIES = st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode) | FIELDS.map(json.dumps).map(str.encode)


def test_garbage_gets_no_500_and_changes_no_file(server: Server) -> None:
    saved(server, "shelf/stays")
    before = tree(server)

    @settings(max_examples=200, deadline=None)
    @example(KEEP, b"\x00")
    @given(path=st.sampled_from([KEEP, KEEP_FILE, RENAME, DELETE]), body=BODIES)
    def holds(path: str, body: bytes) -> None:
        status, answer = ask(server, path, body)
        assert status in REFUSALS, (path, body, answer)
        assert isinstance(answer["error"], str)

    holds()
    assert tree(server) == before

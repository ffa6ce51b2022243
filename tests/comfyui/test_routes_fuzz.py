"""Thousands of malformed requests: each is refused in a sentence, and nothing is written, deleted or broken."""

from __future__ import annotations

import asyncio
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from tests.comfyui.sessions_api import endless, saved, tree
from tools.comfyui.server import Server

COUNT = 10_000 if os.environ.get("SF_TEST_PROFILE") == "thorough" else 2_000
AT_ONCE = 8
REFUSALS = (400, 404, 405, 409, 413)  # 405 is aiohttp's own
POSTS = ("attach", "steer", "sessions/keep", "sessions/delete", "model")
FIELDS = (
    "client_id",
    "node_id",
    "action",
    "prompt",
    "blend",
    "recache",
    "seed",
    "name",
    "preset",
    "run",
    "number",
    "own",
    "visible",
    "runs",
)
ESCAPES = ("../../x", "..\\x", "/etc/passwd", "%2e%2e%2fx", "a/../../b", "con\0", ".", "..", "~", "x\u202e", "\ud800")
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**63, 2**70, 1.5, 1e308, "", " ", "x" * 5000, "9" * 30, [], {}, [[]], {"a": {}}),
    *("prompt", "cut", "reroll", "pause", "resume", "7", "3:7", "a red circle", *ESCAPES),
)


def request(random: random.Random, node: str) -> tuple[str, str, bytes | None]:
    """(method, path, body)"""
    if random.random() < 0.15:
        run, number = (str(random.choice(VALUES))[:60] for _ in range(2))
        return "GET", f"/self_forcing/frames/{run or 'x'}/{number or 'x'}", None
    path = f"/self_forcing/{random.choice(POSTS)}"
    kind = random.random()
    if kind < 0.1:
        return "POST", path, random.randbytes(random.choice((0, 1, 50, 5000)))
    if kind < 0.2:
        return "POST", path, json.dumps(random.choice(VALUES)).encode()
    body = {name: random.choice(VALUES) for name in FIELDS if random.random() < 0.5}
    if random.random() < 0.5:
        body["node_id"] = node
    if body.get("action") in ("stop", "pause"):
        del body["action"]
    return "POST", path, json.dumps(body).encode()[: random.choice((None, None, None, 40))]


async def send_all(server: Server, node: str) -> list[tuple[int, str]]:
    """What was answered that is neither a refusal nor accepted."""
    draw, strange = random.Random(5), []
    todo = [request(draw, node) for _ in range(COUNT)]

    async def work(http: aiohttp.ClientSession) -> None:
        while todo:
            method, path, body = todo.pop()
            async with http.request(method, server.url + path, data=body) as answer:
                text = await answer.text(errors="replace")
                sentence = answer.status == 200 or answer.status == 404 or '"error"' in text or answer.status == 405
                if answer.status not in (200, *REFUSALS) or not sentence:
                    strange.append((answer.status, f"{method} {path} {body!r}: {text}"[:300]))

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(work(http) for _ in range(AT_ONCE)))
    return strange


def test_thousands_of_malformed_requests_break_nothing_and_touch_no_file_of_others(server: Server) -> None:
    saved(server, "before the storm")
    with endless(server) as node:
        before = kept_files(server)
        with ThreadPoolExecutor(1) as pool:  # a browser's test may have left a loop in this thread
            strange = pool.submit(asyncio.run, send_all(server, node)).result()
        server.post("/self_forcing/steer", {"node_id": node, "action": "resume"})
        after = kept_files(server)
    assert strange == []
    assert "Traceback" not in server.log_text().split("got prompt")[-1]
    assert {name: after.get(name) for name in before} == before
    new = [Path(name).relative_to(server.base) for name in after if name not in before]
    assert {path.parent.as_posix() for path in new} <= {"output/sessions"}  # kept under a name that is one
    assert {path.suffix for path in new} <= {".session", ".jpg"}


def kept_files(server: Server) -> dict[str, tuple[int, int]]:
    """All but those that the run itself is writing."""
    temp = str(server.base / "temp")
    return {name: facts for name, facts in tree(server).items() if not name.startswith(temp)}

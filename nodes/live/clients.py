"""Clients that watch runs: pages and programs of ComfyUI's users, by the client id of their websocket.

Messages are sent past ComfyUI's queue of messages, which waits for each client in turn: one that does not read would
hold up all others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web
from server import PromptServer

from ..adapters import host, languages, users

REMEMBERED = 1000  # attached clients without a websocket
MESSAGE_BYTES = 256_000  # of a message, at most: programs' websockets often take no more than 1 MiB
# bytes that wait for a client, below which it is sent the best, the second, and at least the last version of a message
BACKLOGS = (64 * 2**10, 256 * 2**10, 2**20)
HIGH_WATER = 8 * 2**20  # bytes; ComfyUI's own messages wait for a client only beyond
PATIENCE = 1.0  # seconds
_attached: dict[str, Attached] = {}
_outboxes: WeakKeyDictionary[web.WebSocketResponse, _Outbox] = WeakKeyDictionary()
_sending: set[asyncio.Task[None]] = set()


@dataclass
class _Outbox:
    """Messages that are being sent to a client, in order. Only the event loop's thread uses it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unsent: int = 0  # bytes


@dataclass
class Attached:
    """The wishes of a client.

    Attributes:
        user: Whose it is.
        own: Whether it wants the runs alone that it queued; else all of its user's.
        visible: Whether anybody can see its frames now.
        left_out: Runs whose frames it does not want.
        previews: Whether it wants ComfyUI's previews of runs whose frames it shows, too.
        lags: Whether it was behind when it was last sent something.
    """

    user: str
    own: bool = False
    visible: bool = True
    left_out: frozenset[str] = frozenset()
    previews: bool = False
    lags: bool = False


def attach(client_id: str, asked: Attached, language: str = "") -> bool:
    """Send the messages of the runs that a client ``asked`` for from now on, in its language, English by default.

    Returns:
        Whether it may; False: the client is another user's.
    """
    if not users.give_client(client_id, asked.user):
        return False
    languages.set_language(client_id, language)
    _attached.pop(client_id, None)
    _attached[client_id] = asked
    gone = [one for one in _attached if one not in PromptServer.instance.sockets]
    for one in gone[: max(0, len(gone) - REMEMBERED)]:
        del _attached[one]
        users.forget_client(one)
        languages.forget_client(one)
    return True


def is_attached(client_id: str) -> bool:
    """Whether a client has asked for the messages of its user's runs."""
    return client_id in _attached


def watching(user: str, queued_by: str) -> list[str]:
    """Return the connected clients that watch a run of ``user``, which the client ``queued_by`` queued."""
    sockets, attached = PromptServer.instance.sockets, dict(_attached)
    first = [queued_by] if queued_by not in attached or attached[queued_by].user == user else []
    others = [one for one, asked in attached.items() if asked.user == user and not asked.own and one != queued_by]
    return [one for one in (*first, *others) if one in sockets]


def showing(watchers: Iterable[str], run: str) -> list[str]:
    """Return those ``watchers`` that asked for the frames of ``run`` and show them."""
    attached = dict(_attached)  # which the event loop changes meanwhile
    asked = {one: attached[one] for one in watchers if one in attached}
    return [one for one, wish in asked.items() if wish.visible and run not in wish.left_out]


def takes_previews(client: str, showing: Iterable[str]) -> bool:
    """Whether a client wants ComfyUI's previews of a run whose frames the clients ``showing`` get."""
    wish = _attached.get(client)
    return client not in showing or (wish is not None and wish.previews)


def any_lags(clients: Iterable[str]) -> bool:
    """Whether one of these clients was behind when it was last sent something."""
    attached = dict(_attached)  # which the event loop changes meanwhile
    return any(attached[one].lags for one in clients if one in attached)


def send(event: str, clients: list[str], *versions: dict[str, Any]) -> None:
    """Send an event to ``clients``. From any thread.

    Args:
        event: Its type.
        clients: Client ids.
        versions: Its data, from the best to the smallest. A client gets the best one that it has time for, or none.
    """
    texts = [json.dumps({"type": event, "data": data}) for data in versions]
    fitting = [text for text in texts if len(text) <= MESSAGE_BYTES]
    if len(fitting) < len(texts):
        host.log.warning("a message %s of %s bytes is too long, and was not sent", event, max(map(len, texts)))
    if clients and fitting:
        PromptServer.instance.loop.call_soon_threadsafe(_begin_sending, clients, fitting)


def wait_until_sent() -> None:
    """Wait until all messages are on their way: ComfyUI's own come after them. Not in the event loop's thread."""
    sent = asyncio.run_coroutine_threadsafe(_all_sent(), PromptServer.instance.loop)
    with suppress(TimeoutError):
        sent.result(PATIENCE)


async def _all_sent() -> None:
    if _sending:
        await asyncio.wait(set(_sending), timeout=PATIENCE)


def _begin_sending(clients: list[str], texts: list[str]) -> None:
    for client in clients:
        socket = PromptServer.instance.sockets.get(client)
        if socket is None or socket.closed:
            continue
        outbox = _outboxes.setdefault(socket, _Outbox())
        waiting = outbox.unsent + _unread(socket)
        if client in _attached:
            _attached[client].lags = waiting >= BACKLOGS[0]
        limits = BACKLOGS[-len(texts) :]
        chosen = next((text for text, limit in zip(texts, limits, strict=True) if waiting < limit), None)
        if chosen is not None:
            outbox.unsent += len(chosen)
            task = asyncio.get_running_loop().create_task(_send(socket, outbox, chosen))
            _sending.add(task)
            task.add_done_callback(_sending.discard)


async def _send(socket: web.WebSocketResponse, outbox: _Outbox, text: str) -> None:
    try:
        async with outbox.lock:
            await socket.send_str(text)
    except (ConnectionError, RuntimeError) as gone:  # closed meanwhile; ComfyUI's own sending goes on likewise
        host.log.debug("a message was not sent: %s", gone)
    finally:
        outbox.unsent -= len(text)


def _unread(socket: web.WebSocketResponse) -> int:
    """Bytes in this process that the client did not take yet."""
    transport = getattr(getattr(socket, "_writer", None), "transport", None)
    if transport is None:  # another aiohttp
        return 0
    # a backlog of ours is far below, so that no message of ComfyUI waits for the client to read it
    transport.set_write_buffer_limits(high=HIGH_WATER)
    return int(transport.get_write_buffer_size())

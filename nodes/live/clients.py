"""Clients that watch runs: pages and programs of ComfyUI's users, by the client id of their websocket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server import PromptServer

DEFAULT_USER = "default"  # ComfyUI's only one without --multi-user
REMEMBERED = 1000  # client ids
LAGGING = 64  # queued messages
_users: dict[str, str] = {}


def attach(client_id: str, user: str) -> None:
    """Send the messages of ``user``'s runs to this client from now on; the graphs that it queues are ``user``'s."""
    _users.pop(client_id, None)
    _users[client_id] = user
    while len(_users) > REMEMBERED:
        del _users[next(iter(_users))]


def user_of(client_id: str | None) -> str:
    """Return the user of a client."""
    return _users.get(client_id or "", DEFAULT_USER)


def queued_by() -> str | None:
    """Return the client whose graph runs."""
    client_id: str | None = PromptServer.instance.client_id
    return client_id


def watching(user: str, client_id: str | None) -> list[str]:
    """Return the connected clients that watch a run of ``user`` which ``client_id`` queued."""
    sockets = PromptServer.instance.sockets
    attached = [client for client, owner in list(_users.items()) if owner == user]
    return [client for client in dict.fromkeys([client_id or "", *attached]) if client in sockets]


def send(event: str, data: dict[str, Any], clients: Iterable[str]) -> None:
    """Send an event to ``clients``. From any thread."""
    for client in clients:
        PromptServer.instance.send_sync(event, data, client)


def lag() -> bool:
    """Whether the server queues messages faster than its connections take them."""
    return bool(PromptServer.instance.messages.qsize() > LAGGING)

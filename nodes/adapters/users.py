"""ComfyUI's users (``--multi-user``): whose a request, a prompt and a client id are.

Without ``--multi-user`` there is one user, and nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from aiohttp import web
from comfy.cli_args import args
from server import PromptServer

from .running_prompt import running_prompt

REMEMBERED = 10_000  # client ids without a websocket
DEFAULT = "default"  # ComfyUI's only user without --multi-user; with it, whoever names none
_SIGNATURE = "self_forcing_user"  # in the data that is queued beside a graph
_of_request: ContextVar[str | None] = ContextVar("self_forcing_user", default=None)
_of_client: dict[str, tuple[str, Any]] = {}  # user, and the client's websocket or None, by client id


def register() -> None:
    """Note whose each prompt is. To be called while ComfyUI loads its packs."""
    if args.multi_user:
        PromptServer.instance.app.middlewares.append(_noting_the_user)
        PromptServer.instance.add_on_prompt_handler(_sign)


def of_request(request: web.Request) -> str:
    """Return the user of a request. Raises KeyError for an unknown one."""
    return str(PromptServer.instance.user_manager.get_request_user_id(request))


def current() -> str:
    """Return the user of the request that is answered, or of the prompt that runs."""
    if not args.multi_user:
        return DEFAULT
    asked = _of_request.get()
    if asked is not None:
        return asked
    prompt = running_prompt()
    signed = prompt.extra.get(_SIGNATURE)
    return signed if isinstance(signed, str) else of_client(prompt.client_id)


def of_client(client_id: str) -> str:
    """Return the user that a client id was given to."""
    return _of_client.get(client_id, (DEFAULT, None))[0]


def give_client(client_id: str, user: str) -> bool:
    """Give a client id to ``user``. False: it is another user's.

    It stays that user's until a new websocket has the id, as when a page is loaded again after its user has changed.
    Client ids are no secret: everybody's are in ComfyUI's queue. So one is given to whoever uses it first, before it is
    there.
    """
    owner, socket = _of_client.get(client_id, (user, None))
    now = PromptServer.instance.sockets.get(client_id)
    if owner != user and (socket is None or now is None or now is socket):
        _of_client[client_id] = (owner, socket or now)
        return False
    _of_client[client_id] = (user, now or socket)
    if len(_of_client) > 2 * REMEMBERED:
        gone = [one for one in _of_client if one not in PromptServer.instance.sockets]
        for one in gone[:-REMEMBERED]:
            forget_client(one)
    return True


def forget_client(client_id: str) -> None:
    """Forget whose a client id is."""
    _of_client.pop(client_id, None)


@web.middleware
async def _noting_the_user(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Keep the user of a request for those who answer it."""
    try:
        user = of_request(request)
    except KeyError:
        user = DEFAULT
    before = _of_request.set(user)
    try:
        return await handler(request)
    finally:
        _of_request.reset(before)


def _sign(queued: dict[str, Any]) -> dict[str, Any]:
    """Write the user of the request into a prompt that it queues, and give the user its client id."""
    user, client = _of_request.get() or DEFAULT, queued.get("client_id")
    if isinstance(client, str) and (user != DEFAULT or client not in _of_client):  # a page's programs may name no user
        give_client(client, user)
    extra = queued.setdefault("extra_data", {})
    if isinstance(extra, dict):
        extra.pop(_SIGNATURE, None)
        if user != DEFAULT:
            extra[_SIGNATURE] = user
    return queued

"""Validation of requests: a small JSON object with known fields. Everything else is refused with a sentence."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import BadHttpMessage

from ..adapters import users

MAX_BODY_BYTES = 32 * 1024  # the longest prompt has 2,000 characters, each of up to 12 bytes in JSON
Kinds = type | tuple[type, ...]
NODE_ID: Kinds = (str, int)  # an execution id: "7", or "3:7" in a subgraph
_IN_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, sentence: str) -> None:
        """Refuse with a status: 400 (wrong request), 404 (no such thing), 409 (not now) or 413 (too long)."""
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


Route = Callable[[web.Request], Awaitable[Any]]


def json_route(route: Route, anybody: bool = False) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Decorator: make an aiohttp handler of ``route``. JSON values become the body, `Refused` an error response.

    Args:
        route: Answers a request; `users.current` is whose it is.
        anybody: Whether the request need not be of a user whom ComfyUI knows.
    """

    @functools.wraps(route)
    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            if not anybody:
                _check_user(request)
            answer = await route(request)
        except Refused as refused:
            return web.json_response({"error": refused.sentence}, status=refused.status)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    return handler


async def body_of(
    request: web.Request, fields: Mapping[str, Kinds], optional: Mapping[str, Kinds] | None = None
) -> dict[str, Any]:
    """Read the body of a request: all ``fields``, and those ``optional`` ones that were sent.

    Args:
        request: The request.
        fields: Type, or types, by name of a required field.
        optional: The same for optional fields. Unknown fields are left out.

    Raises:
        Refused: The body is not such an object.
    """
    body = _parsed(await _read(request))
    optional = optional or {}
    for name, kinds in {**fields, **optional}.items():
        if name in body:
            _check(name, body[name], kinds)
        elif name in fields:
            raise Refused(400, f"{name} is missing; expected {_in_words(kinds)}")
    return {name: value for name, value in body.items() if name in fields or name in optional}


async def _read(request: web.Request) -> bytes:
    """Read the body, never more than is allowed, whatever its header says."""
    read = bytearray()
    try:
        while (request.content_length or 0) <= MAX_BODY_BYTES and len(read) <= MAX_BODY_BYTES:
            part = await request.content.read(MAX_BODY_BYTES + 1)
            if not part:
                return bytes(read)
            read += part
    except (web.RequestPayloadError, ClientPayloadError, BadHttpMessage) as error:
        raise Refused(400, "the body cannot be read") from error
    raise Refused(413, f"the body is too long; expected at most {MAX_BODY_BYTES} bytes")


def _parsed(read: bytes) -> dict[str, Any]:
    try:
        body = json.loads(read, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is not JSON") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object")
    return body


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(name: str, value: Any, kinds: Kinds) -> None:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    # true is an int to Python, and 1 is as good as 1.0
    if type(value) not in allowed and not (type(value) is int and float in allowed):
        raise Refused(400, f"{name} is of the wrong type; expected {_in_words(kinds)}")
    if isinstance(value, str) and not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused(400, f"{name} holds half a character")


def _in_words(kinds: Kinds) -> str:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    return " or ".join(_IN_WORDS.get(kind, kind.__name__) for kind in allowed)


def _check_user(request: web.Request) -> None:
    """Raise `Refused` if a request is of no user whom ComfyUI knows."""
    try:
        users.of_request(request)
    except KeyError as error:
        raise Refused(400, "this ComfyUI does not know the user that the request names") from error

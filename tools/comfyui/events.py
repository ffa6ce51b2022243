"""Messages of a server's websocket, with the time of each."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

# the binary messages that the editor knows (protocol.py of ComfyUI)
PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
Value = TypeVar("Value")
RUN_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True)
class Event:
    """A message of the server."""

    time: float  # of time.monotonic()
    kind: str  # the type of a JSON message; "preview" or "text" of a binary one
    data: dict[str, Any] = field(default_factory=dict)
    image: bytes = b""  # a JPEG or PNG


def decode(message: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Decode a binary message to its kind, its data and its image."""
    (kind,) = struct.unpack_from(">I", message)
    rest = message[4:]
    if kind == PREVIEW:
        return "preview", {}, rest[4:]  # after the number of the image's format
    if kind == PREVIEW_WITH_METADATA:
        (length,) = struct.unpack_from(">I", rest)
        return "preview", json.loads(rest[4 : 4 + length]), rest[4 + length :]
    if kind == TEXT:
        (length,) = struct.unpack_from(">I", rest)
        node, text = rest[4 : 4 + length].decode(), rest[4 + length :].decode()
        return "text", {"node": node, "text": text}, b""
    return f"binary {kind}", {}, rest


class Events:
    """Collector of messages: `with server.events() as events:`; submit prompts with `client_id=events.client_id`."""

    def __init__(self, url: str, client_id: str | None = None) -> None:
        self.client_id = client_id or uuid.uuid4().hex
        self._url = f"{url.replace('http', 'ws', 1)}/ws?clientId={self.client_id}"
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._open = threading.Event()
        self._error: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="comfyui-events", daemon=True)

    @property
    def all(self) -> list[Event]:
        """All messages so far."""
        with self._changed:
            return list(self._events)

    def of(self, *kinds: str) -> list[Event]:
        """Return the messages of these kinds."""
        return [event for event in self.all if event.kind in kinds]

    def wait_until(self, condition: Callable[[list[Event]], Value], timeout: float = 120) -> Value:
        """Wait until ``condition`` gives a true value of all messages so far, and return it.

        The only way to read messages that may not have arrived: the answer to a request, a run's outputs and a file
        may all be there before the message about them.

        Raises:
            ConnectionError: The websocket was lost.
            TimeoutError: No message made the condition true.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (value := condition(list(self._events))):
                if self._error is not None:
                    raise ConnectionError("the websocket was lost") from self._error
                if (left := deadline - time.monotonic()) <= 0:
                    kinds = [event.kind for event in self._events[-20:]]
                    raise TimeoutError(f"not within {timeout:.0f} s; the last of {len(self._events)} messages: {kinds}")
                self._changed.wait(left)
            return value

    def wait_for(self, predicate: str | Callable[[Event], bool], timeout: float = 120) -> Event:
        """Return the first event, past or future, of a kind or with a true predicate."""
        fits = (lambda event: event.kind == predicate) if isinstance(predicate, str) else predicate
        (event,) = self.wait_until(lambda events: list(filter(fits, events))[:1], timeout)
        return event

    def wait_for_end(self, timeout: float = 120) -> Event:
        """Wait for the message of the run's end, after which the server sends nothing more about the run."""
        return self.wait_for(lambda event: event.kind in RUN_ENDS, timeout)

    def __enter__(self) -> Events:
        self._thread.start()
        if not self._open.wait(30) or self._error is not None:
            raise ConnectionError(f"cannot listen at {self._url}") from self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._open.set()
            self._loop.close()

    async def _listen(self) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0) as socket:
            # without this flag previews do not name their node
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            self._open.set()
            async for message in socket:
                now = time.monotonic()
                if message.type is aiohttp.WSMsgType.BINARY:
                    kind, data, image = decode(message.data)
                    event = Event(now, kind, data, image)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    event = Event(now, content["type"], content.get("data") or {})
                else:
                    continue
                with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
        raise ConnectionError("the server closed the websocket")

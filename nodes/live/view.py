"""Messages to the viewers of a run: its state, its frames and its video. See docs/live.md.

ComfyUI's previews do not serve: its editor shows a node's previews and its finished video in one place, and once it
has shown a video it takes every preview for one.
"""

from __future__ import annotations

import base64
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server import PromptServer
from torch import Tensor

from ...sf_core.files.pixels import to_bytes
from ..adapters import host
from ..adapters.images import jpegs_of
from ..adapters.rate_limit import RateLimit
from . import clients, thumbnails
from .frame_store import FrameStore

IMAGES_A_SECOND = 30  # of wall time, at most; of a faster model some frames are left out
PART = IMAGES_A_SECOND // 2  # frames in a message, at most
LONGEST_EDGE = 512  # pixels
WAITING = 2  # queued chunks, at most; the pictures of further ones are left out
NO_WORKFLOW = "00000000-0000-0000-0000-000000000000"  # the editor's id of a graph that was never saved
REMEMBERED = 16  # runs, including ended ones
BEFORE_RUN = -1  # chunk index of frames that are older than the run
_views: dict[str, LiveView] = {}  # by node; the newest last


def states_for(user: str) -> list[dict[str, Any]]:
    """Return the states of all remembered runs of ``user``."""
    return [view.state() for view in list(_views.values()) if view.user == user]


def picture_of(user: str, run: str, number: int) -> tuple[int, bytes] | None:
    """Return (number, JPEG) of a frame or the nearest earlier one; None: there is none."""
    view = next((view for view in list(_views.values()) if view.run == run and view.user == user), None)
    return view.store.at(number) if view else None


class LiveView:
    """The state of a node's run, as its viewers see it. Only `tell` may be called outside the graph's thread."""

    def __init__(self, node: Any, node_id: str, fps: float, chunks: int = 0, steerable: bool = False) -> None:
        """Begin a view, and announce the run.

        Args:
            node: The node's class, with hidden ``extra_pnginfo`` and, if it can be steered, ``prompt``.
            node_id: The node's execution id.
            fps: Frames a second of the video.
            chunks: Number of chunks to come; 0: unknown.
            steerable: Whether the run takes prompts.
        """
        self.run, self.node_id = secrets.token_hex(8), node_id
        self._workflow = _id_of_workflow(node.hidden.extra_pnginfo)
        self.client = clients.queued_by()
        self.user = clients.user_of(self.client)
        self.store = FrameStore(self.run)
        self._facts: dict[str, Any] = {
            **{"state": "running", "fps": fps, "chunk": 0, "chunks": chunks, "frames": 0, "made_fps": 0.0},
            **{"first_seconds": None, "cache_bytes": 0, "steerable": steerable, "prompt": "", "note": ""},
            **{"actions": [], "rows": "", "seconds": 0.0, "video": None},
            "training": None,
        }
        self._facts["seeds"] = _seeds_of(getattr(node.hidden, "prompt", None))
        self._firsts: dict[int, int] = {}  # first frame of each of the newest chunks
        self._older = 0  # frames older than the run
        self._newest: Tensor | None = None  # frame
        self._begun = time.perf_counter()
        self._encoder = _Encoder(self)
        former = _views.pop(node_id, None)
        if former is not None:
            former.store.close()
        _views[node_id] = self
        while len(_views) > REMEMBERED:
            _views.pop(next(iter(_views))).store.close()
        self.tell()

    def newest_picture(self) -> bytes | None:
        """Return the newest frame as JPEG, watched or not; None: there is none, or it was withdrawn."""
        newest = self._newest
        return None if newest is None else jpegs_of(newest[None], thumbnails.LONGEST_EDGE)[0]

    def state(self) -> dict[str, Any]:
        """Return the state of the run, as docs/live.md describes it."""
        names = {"node_id": self.node_id, "run": self.run, "workflow": self._workflow}
        return {**names, "first_frame": self.store.first, **self._facts}

    @property
    def watchers(self) -> list[str]:
        """Client ids of the viewers."""
        return clients.watching(self.user, self.client)

    def tell(self, **changes: Any) -> None:
        """Change the state and send it to the viewers. From any thread."""
        self._facts.update(changes)
        if watchers := self.watchers:
            clients.send("self_forcing.run", self.state(), watchers)

    def say(self, note: str) -> None:
        """Show a note to the viewers."""
        self.tell(note=note)

    def show(self, frames: Tensor, chunk: int, made: int, cache_bytes: int = 0) -> None:
        """Send the next frames.

        Args:
            frames: [T, H, W, 3], float in 0..1 or 8-bit.
            chunk: Index of their chunk, or `BEFORE_RUN`.
            made: Number of chunks that this run has made; 0: the frames are older than the run.
            cache_bytes: Memory of the KV caches.
        """
        frames = to_bytes(frames)  # waits for the GPU, so that the times below are those of finished frames
        first = self._facts["frames"]
        self._firsts = {**dict(list(self._firsts.items())[-8:]), chunk: first}
        self._newest = frames[-1].clone()  # does not hold the chunk
        self._encoder.show(chunk, first, frames)
        seconds = max(1e-6, time.perf_counter() - self._begun)
        frames_made = first + len(frames)
        self._older = self._older if made else frames_made
        began = self._facts["first_seconds"]
        self.tell(
            frames=frames_made,
            chunk=made,
            made_fps=frames_made / seconds,
            seconds=(frames_made - self._older) / self._facts["fps"],
            first_seconds=seconds if began is None else began,
            cache_bytes=cache_bytes,
        )

    def withdraw(self, chunk: int, made: int) -> None:
        """Withdraw ``chunk`` and all after it; this run has now made ``made`` chunks."""
        withdrawn = [(number, first) for number, first in self._firsts.items() if number >= chunk]
        if not withdrawn:
            return
        for number, _ in withdrawn:
            del self._firsts[number]
        first = withdrawn[0][1]
        self._newest = None
        self._encoder.withdraw(chunk, first)
        self.tell(frames=first, chunk=made, seconds=(first - self._older) / self._facts["fps"])

    @contextmanager
    def until_end(self, video: Path | None = None) -> Iterator[None]:
        """Tell the viewers how the block ended, and the address of ``video`` if it exists."""
        try:
            yield
        except BaseException as error:
            self._end("interrupted" if host.is_interrupt(error) else "failed", video)
            if self._facts["video"]:
                self._show_video()
            raise
        self._end("ended", video)

    def _end(self, state: str, video: Path | None) -> None:
        self._encoder.end()
        self.tell(state=state, video=host.temp_file_facts(video) if video and video.exists() else None)

    def _show_video(self) -> None:
        """Send the node's ``ui``, which ComfyUI does only for nodes that return."""
        server = PromptServer.instance
        message = {"node": self.node_id, "display_node": self.node_id, "output": self.on_node()}
        server.send_sync("executed", {**message, "prompt_id": server.last_prompt_id}, server.client_id)

    def on_node(self) -> dict[str, Any]:
        """Return the node's ``ui``: state and video. ComfyUI sends it again for a cached result."""
        return {"sf_run": [self.state()], **({"sf_video": [video]} if (video := self._facts["video"]) else {})}


def _id_of_workflow(extra: Any) -> str:
    """Return the id of the editor's workflow; "" if a program queued the graph, or it was never saved."""
    workflow = extra.get("workflow") if isinstance(extra, dict) else None
    name = workflow.get("id") if isinstance(workflow, dict) else None
    return name if isinstance(name, str) and name != NO_WORKFLOW else ""


def _seeds_of(prompt: Any) -> dict[str, dict[str, int]]:
    """Return {node: {input: seed}} of the graph that runs; the editor may have drawn new seeds since."""
    inputs = {number: node.get("inputs", {}) for number, node in (prompt or {}).items()}
    seeds = {
        number: {name: value for name, value in values.items() if name.endswith("seed") and isinstance(value, int)}
        for number, values in inputs.items()
    }
    return {number: values for number, values in seeds.items() if values}


class _Encoder:
    """A thread that compresses frames and sends them in order, leaving out frames that come too fast."""

    def __init__(self, view: LiveView) -> None:
        self._view, self._ending = view, threading.Event()
        self._budget = RateLimit(burst=IMAGES_A_SECOND, per_second=IMAGES_A_SECOND)
        self._todo: queue.Queue[tuple[int, int, Tensor | None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="self-forcing-pictures", daemon=True)
        self._thread.start()

    def show(self, chunk: int, first: int, frames: Tensor) -> None:
        if not self._view.watchers:
            return
        try:
            self._todo.put_nowait((chunk, first, frames))
        except queue.Full:
            self._send(chunk, first, len(frames), {})

    def withdraw(self, chunk: int, first: int) -> None:
        self._todo.put((chunk, first, None))

    def end(self) -> None:
        """Wait until everything is sent."""
        self._ending.set()
        self._todo.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (todo := self._todo.get()) is not None:
            chunk, first, frames = todo
            if frames is None:
                self._view.store.forget_from(first)
                message = {"node_id": self._view.node_id, "run": self._view.run, "chunk": chunk, "first": first}
                clients.send("self_forcing.withdrawn", message, self._view.watchers)
                continue
            try:
                for part in frames.split(PART):
                    self._send(chunk, first, len(part), self._pictures(first, part))
                    first += len(part)
            except Exception as error:  # the video is more important than the view on it
                host.log.warning("cannot show a chunk: %s", error)

    def _pictures(self, first: int, frames: Tensor) -> dict[int, bytes]:
        numbers = self._affordable(len(frames))
        pictures = {first + n: one for n, one in zip(numbers, jpegs_of(frames[numbers], LONGEST_EDGE), strict=True)}
        for number, picture in pictures.items():
            self._view.store.add(number, picture)
        return {} if clients.lag() else pictures

    def _affordable(self, count: int) -> list[int]:
        """Choose the frames to send: all, after a short wait, if nothing is queued; else evenly spread ones."""
        while (missing := count - self._budget.available) > 0 and self._todo.empty():
            if self._ending.wait(min(missing / IMAGES_A_SECOND, 0.05)):
                break
        sent = min(count, max(1, int(self._budget.available)))
        self._budget.take(sent)
        return [count - 1 - k * count // sent for k in reversed(range(sent))]

    def _send(self, chunk: int, first: int, count: int, pictures: dict[int, bytes]) -> None:
        message = {
            **{"node_id": self._view.node_id, "run": self._view.run, "chunk": chunk, "first": first, "count": count},
            "numbers": list(pictures),
            # base64 in JSON: the editor reports an error for each binary message of a type that it does not know
            "frames": [base64.b64encode(picture).decode() for picture in pictures.values()],
        }
        clients.send("self_forcing.frames", message, self._view.watchers)

"""Messages to the viewers of a run: its state, its frames and its video. See docs/live.md.

ComfyUI's previews do not serve where a player is: its editor shows a node's previews and its finished video in one
place, and once it has shown a video it takes every preview for one.
"""

from __future__ import annotations

import json
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
from ...sf_core.message import NOTHING, Message
from ..adapters import host, languages, users
from ..adapters.graph_facts import about_session
from ..adapters.images import jpegs_of
from ..adapters.running_prompt import executing_node, running_prompt
from . import clients, thumbnails
from .frame_store import FrameStore
from .pictures import Pictures
from .preview import Preview

NO_WORKFLOW = "00000000-0000-0000-0000-000000000000"  # the editor's id of a graph that was never saved
REMEMBERED = 16  # runs of a user, including ended ones
BEFORE_RUN = -1  # chunk index of frames that are older than the run
EXACT = 2**53  # JavaScript has no larger whole numbers; they are sent as text
LONGEST_TEXT = 1000  # characters of a note or a name, so that no message is too long
ENVELOPE_BYTES = 1000  # of a message, besides the state
SEEDS_BYTES = 32_000  # of the seeds in a message, at most
_views: dict[tuple[str, str, str], LiveView] = {}  # by user, client and node; the newest last


def states_for(user: str, client: str | None = None) -> list[dict[str, Any]]:
    """Return the states of the remembered runs of ``user``; with ``client``, of those alone that it queued."""
    views = [view for view in list(_views.values()) if view.user == user and client in (None, view.client)]
    return [view.state() for view in views]


def picture_of(user: str, run: str, number: int, or_newest: bool = False) -> tuple[int, bytes] | None:
    """Return (number, JPEG) of a frame or the nearest earlier one; None: there is none.

    Args:
        user: Whose run it is.
        run: Id of the run.
        number: Number of the frame.
        or_newest: The newest frame will do where there is none: it has a picture also if no page shows the run.
    """
    view = next((view for view in list(_views.values()) if view.run == run and view.user == user), None)
    if view is None:
        return None
    return view.store.at(number) or (view.newest_picture() if or_newest else None)


class LiveView:
    """The state of a node's run, as its viewers see it.

    Any thread may read it, and call `tell`, `say`, `refuse` and `accept`; all else is for the graph's thread.
    """

    def __init__(self, node: Any, fps: float, chunks: int = 0, steerable: bool = False) -> None:
        """Begin a view, and announce the run.

        Args:
            node: The node's class, with hidden ``extra_pnginfo``.
            fps: Frames a second of the video.
            chunks: Number of chunks to come; 0: unknown.
            steerable: Whether the run takes prompts.
        """
        self.run, self.node_id = secrets.token_hex(8), executing_node()
        prompt = running_prompt()
        self.client, self.user, self.about = prompt.client_id, users.current(), about_session(fps)
        self._prompt_id, self._workflow = prompt.prompt_id, _id_of_workflow(node.hidden.extra_pnginfo)
        self.store = FrameStore(self.run)
        self._facts: dict[str, Any] = {
            **{"state": "running", "fps": fps, "chunk": 0, "chunks": chunks, "frames": 0, "made_fps": 0.0},
            **{"first_seconds": None, "cache_bytes": 0, "steerable": steerable, "prompt": "", "note": ""},
            **{"model": self.about.get("model", "")},
            **{"refused": {"count": 0, "prompt": ""}, "actions": [], "rows": "", "seconds": 0.0, "video": None},
            **{"drift": None, "training": None, "seeds": _seeds_of(prompt.graph), "first_new": 0, "begins": 0.0},
        }
        self._growing: Path | None = None  # the video's file, while the run lasts
        self._kept: Path | None = None  # the session's file
        self._firsts: dict[int, int] = {}  # first frame of each of the newest chunks
        self._newest: tuple[int, Tensor] | None = None  # number and frame
        self._begun, self._made_frames = time.perf_counter(), 0  # withdrawn ones included
        self.idle_seconds = 0.0  # in which the run was paused, or waited for its viewer
        self._telling = threading.RLock()  # viewers get the states in the order of the changes
        preview = Preview(self.node_id, prompt.prompt_id, self.client)
        names = {"node_id": self.node_id, "run": self.run}
        self._pictures = Pictures(names, fps, self.store, lambda: self.watchers, preview)
        self._remember()
        self.tell()

    def _remember(self) -> None:
        """Take the place of the node's former run, and forget the user's oldest of too many."""
        name = (self.user, self.client, self.node_id)
        if name in _views:
            _views.pop(name).store.close()
        _views[name] = self
        for oldest in [one for one in _views if one[0] == self.user][:-REMEMBERED]:
            _views.pop(oldest).store.close()

    def newest_picture(self) -> tuple[int, bytes] | None:
        """Return (number, JPEG) of the newest frame, watched or not; None: there is none, or it was withdrawn."""
        newest = self._newest
        return None if newest is None else (newest[0], jpegs_of(newest[1][None], thumbnails.LONGEST_EDGE)[0])

    def state(self) -> dict[str, Any]:
        """Return the state of the run, as docs/live.md describes it."""
        names = {"node_id": self.node_id, "run": self.run, "prompt_id": self._prompt_id}
        session = (
            self._kept.name if self._kept and self._kept.exists() else None
        )  # a newer one may have taken its place
        return {
            **{**names, "workflow": self._workflow, "first_frame": self.store.first},
            **{**self._facts, "session": session, "video_so_far": self._video_so_far()},
        }

    def _video_so_far(self) -> dict[str, str] | None:
        growing = self._growing
        return host.temp_file_facts(growing) if growing is not None and growing.exists() else None

    def _in_a_message(self) -> dict[str, Any]:
        """Return the state; without the rows of a timeline that no message holds, and then without a replay of them."""
        state = self.state()
        fits = len(json.dumps(state)) < clients.MESSAGE_BYTES - ENVELOPE_BYTES
        return state if fits else {**state, "rows": "", "actions": []}

    @property
    def watchers(self) -> list[str]:
        """Client ids of the viewers."""
        return clients.watching(self.user, self.client)

    def tell(self, **changes: Any) -> None:
        """Change the state and send it to the viewers."""
        with self._telling:
            self._facts.update(changes)
            if watchers := self.watchers:
                clients.send("self_forcing.run", watchers, self._in_a_message())

    def keep(self, session: Path) -> None:
        """Note the file of the run's last session, from which one can go on."""
        self._kept = session

    def begin_with(self, frames: int, second: float) -> None:
        """Tell the viewers that the first ``frames`` frames will be older than the run.

        Args:
            frames: Number of these frames.
            second: Second of the session at which the video's first frame is.
        """
        self.tell(first_new=frames, begins=second)

    def say(self, note: Message) -> None:
        """Show a note to the viewers, in the language of the client that queued the run."""
        self.tell(note=self._in_words(note))

    def take_back(self, note: Message) -> None:
        """Show a note no longer, unless another one has taken its place."""
        with self._telling:
            if self._facts["note"] == self._in_words(note):
                self.say(NOTHING)

    def _in_words(self, note: Message) -> str:
        return languages.for_client(note, self.client)[:LONGEST_TEXT]

    def refuse(self, prompt: str, why: Message) -> None:
        """Say that a typed prompt takes no effect. The note stays until another action is accepted."""
        with self._telling:
            count = self._facts["refused"]["count"] + 1
            self.tell(note=self._in_words(why), refused={"count": count, "prompt": prompt})

    @property
    def refusals(self) -> int:
        """Number of typed prompts that took no effect."""
        count: int = self._facts["refused"]["count"]
        return count

    def accept(self, refusals: int) -> None:
        """Take back what was said of an earlier action.

        Args:
            refusals: Their number before this action, which may have been refused already, in the encoder's thread.
        """
        with self._telling:
            if self._facts["note"] and refusals == self.refusals:
                self.say(NOTHING)

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
        self._newest = (first + len(frames) - 1, frames[-1].clone())  # does not hold the chunk
        self._pictures.show(chunk, first, frames)
        seconds = time.perf_counter() - self._begun
        self._made_frames += len(frames)
        frames_made = first + len(frames)
        began = self._facts["first_seconds"]
        self.tell(
            frames=frames_made,
            chunk=made,
            made_fps=self._made_frames / max(1e-6, seconds - self.idle_seconds),
            seconds=self._new_seconds(frames_made),
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
        self._pictures.withdraw(chunk, first)
        self.tell(frames=first, chunk=made, seconds=self._new_seconds(first))

    def _new_seconds(self, frames: int) -> float:
        """Seconds that are new among the first ``frames`` frames."""
        return float(max(0, frames - self._facts["first_new"]) / self._facts["fps"])

    @contextmanager
    def until_end(self, video: Path | None = None) -> Iterator[None]:
        """Tell the viewers how the block ended, and the address of ``video`` from when it exists."""
        self._growing = video
        try:
            yield
        except BaseException as error:
            self._end("interrupted" if host.is_interrupt(error) else "failed", video)
            if self._facts["video"]:
                self._show_video()
            raise
        self._end("ended", video)

    def _end(self, state: str, video: Path | None) -> None:
        self._pictures.end()
        self._growing = None
        self.tell(state=state, video=host.temp_file_facts(video) if video and video.exists() else None)
        clients.wait_until_sent()

    def _show_video(self) -> None:
        """Send the node's ``ui`` to the client whose graph runs, which ComfyUI does only for nodes that return."""
        server = PromptServer.instance
        if server.client_id is None:  # ComfyUI would send it to everybody
            return
        message = {"node": self.node_id, "display_node": self.node_id, "output": self.on_node()}
        server.send_sync("executed", {**message, "prompt_id": server.last_prompt_id}, server.client_id)

    def on_node(self) -> dict[str, Any]:
        """Return the node's ``ui``: state and video. ComfyUI sends it again for a cached result."""
        return {"sf_run": [self.state()], **({"sf_video": [video]} if (video := self._facts["video"]) else {})}


def _id_of_workflow(extra: Any) -> str:
    """Return the id of the editor's workflow; "" if a program queued the graph, or it was never saved."""
    workflow = extra.get("workflow") if isinstance(extra, dict) else None
    name = workflow.get("id") if isinstance(workflow, dict) else None
    return name if isinstance(name, str) and name != NO_WORKFLOW and len(name) <= LONGEST_TEXT else ""


def _seeds_of(graph: dict[str, Any]) -> dict[str, dict[str, int | str]]:
    """Return {node: {input: seed}} of the graph that runs; the editor may have drawn new seeds since."""
    seeds: dict[str, dict[str, int | str]] = {}
    for number, node in graph.items():
        values = {name: value for name, value in node.get("inputs", {}).items() if name.endswith("seed")}
        whole = {name: value for name, value in values.items() if type(value) is int}
        if whole:
            seeds[number] = {name: value if abs(value) <= EXACT else str(value) for name, value in whole.items()}
    return seeds if len(json.dumps(seeds)) <= SEEDS_BYTES else {}

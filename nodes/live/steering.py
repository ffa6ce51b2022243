"""What people do to a video while it is made: it becomes rows of a timeline, at the chunk where it takes effect.

So the run is made by its timeline alone, and the same timeline makes the same video without a hand.
"""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...sf_core.noise import SeededNoise
from ...sf_core.session.session import Session
from ...sf_core.session.timeline import Row, Timeline, format_rows, second_of
from ..adapters import host
from ..adapters.conditioning import can_encode_in_thread, embeddings, encode, encode_in_thread
from .view import LiveView


@dataclass(frozen=True)
class _Asked:
    """A cut, or a prompt, whose embeddings are there or yet to be made."""

    prompt: str = ""
    blend: int = 1
    recache: bool = False
    embeddings: Tensor | None = None

    @property
    def action(self) -> dict[str, Any]:
        if not self.prompt:
            return {"action": "cut"}
        return {"action": "prompt", "prompt": self.prompt, "blend": self.blend, "recache": self.recache}


class Steering:
    """Of one run. `prompt` and `cut` may be called in any thread, all else in the one that runs the graph."""

    def __init__(self, clip: Any, timeline: Timeline, temporal_factor: int, fps: float, view: LiveView) -> None:
        """clip: None takes no prompts."""
        self.timeline, self.actions = timeline, list[dict[str, Any]]()
        self._clip, self._view, self._time = clip, view, (temporal_factor, fps)
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        self._encoder = ThreadPoolExecutor(1, "self-forcing-text")

    @property
    def takes_prompts(self) -> bool:
        return self._clip is not None

    def prompt(self, text: str, blend: int, recache: bool) -> None:
        """From the next chunk on, or the first after it is encoded."""
        asked = _Asked(text, blend, recache)
        if can_encode_in_thread(self._clip):
            self._encoder.submit(self._encode_in_thread, asked)
        else:
            self._asked.put(asked)

    def cut(self) -> None:
        self._asked.put(_Asked())

    def _encode_in_thread(self, asked: _Asked) -> None:
        """In the encoder's thread: no weights are moved."""
        try:
            with torch.inference_mode():
                found = embeddings(encode_in_thread(self._clip, asked.prompt))
        except Exception as error:
            self._view.say(f"The prompt was not understood: {error}")
            return
        self._asked.put(_Asked(asked.prompt, asked.blend, asked.recache, found))

    def boundary(self, session: Session) -> Session:
        """Between chunks: ``session`` with what the timeline says of its next one, and what was asked for meanwhile."""
        while not self._asked.empty():
            asked = self._asked.get()
            found = asked.embeddings
            if asked.prompt and found is None:
                found = self._encode_here(asked)
                if found is None:
                    continue
            row = Row(second_of(session, *self._time), asked.prompt, asked.blend, asked.recache, cut=not asked.prompt)
            self._take(row, found, {"chunk": session.chunks, **asked.action})
        return self.timeline.steer(session, *self._time)

    def _encode_here(self, asked: _Asked) -> Tensor | None:
        """Weights may have to move, which only this thread may do: the video waits, and says so."""
        self._view.say("Reading the new prompt: the text encoder needs the device, and the video waits for it")
        try:
            found = embeddings(encode(self._clip, asked.prompt))
        except Exception as error:
            if host.is_interrupt(error):
                raise
            self._view.say(f"The prompt was not understood: {error}")
            return None
        self._view.say("")
        return found

    def re_rolled(self, session: Session) -> None:
        """The chunks after ``session`` were taken back; it goes on with a seed of its own."""
        assert isinstance(session.noise, SeededNoise)
        seed = session.noise.seed
        row = Row(second_of(session, *self._time), seed=seed)
        self._take(row, None, {"chunk": session.chunks, "action": "reroll", "seed": str(seed)})

    def _take(self, row: Row, found: Tensor | None, action: dict[str, Any]) -> None:
        self.timeline = self.timeline.with_row(row, found)
        self.actions.append(action)
        changes: dict[str, Any] = {"actions": self.actions, "rows": self.rows, "note": ""}
        self._view.tell(**changes, **({"prompt": row.prompt} if row.prompt else {}))

    @property
    def rows(self) -> str:
        """What would make this video again, as text for Prompt Timeline."""
        return format_rows(self.timeline.rows)

    def close(self) -> None:
        self._encoder.shutdown(cancel_futures=True)

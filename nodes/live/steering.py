"""Steering of a run by hand. Every action becomes a row of the run's timeline, at the chunk where it takes effect.

The timeline alone decides what is sampled, so that the same timeline makes the same video without anybody's hand.
"""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
class _PendingAction:
    """A cut, or a prompt. embeddings: None until they are made."""

    prompt: str = ""
    blend: int = 1
    recache: bool = False
    embeddings: Tensor | None = None

    @property
    def facts(self) -> dict[str, Any]:
        if not self.prompt:
            return {"action": "cut"}
        return {"action": "prompt", "prompt": self.prompt, "blend": self.blend, "recache": self.recache}


class Steering:
    """Steering of one run. `prompt` and `cut` may be called in any thread, all else in the graph's."""

    def __init__(self, clip: Any, timeline: Timeline, temporal_factor: int, fps: float, view: LiveView) -> None:
        """Begin with a timeline.

        Args:
            clip: Encodes new prompts. None: the run takes none.
            timeline: Prompts, cuts and seeds set before the run.
            temporal_factor: Frames for each latent frame.
            fps: Frames a second.
            view: Tells viewers what took effect.
        """
        self.timeline, self.actions = timeline, list[dict[str, Any]]()
        self._clip, self._view, self._time = clip, view, (temporal_factor, fps)
        self._pending: queue.SimpleQueue[_PendingAction] = queue.SimpleQueue()
        self._encoder = ThreadPoolExecutor(1, "self-forcing-text")

    @property
    def takes_prompts(self) -> bool:
        """Whether the run has a CLIP."""
        return self._clip is not None

    def prompt(self, text: str, blend: int, recache: bool) -> None:
        """Switch to a prompt with the next chunk, or with the first one after it has been encoded."""
        action = _PendingAction(text, blend, recache)
        if can_encode_in_thread(self._clip):
            self._encoder.submit(self._encode_in_thread, action)
        else:
            self._pending.put(action)

    def cut(self) -> None:
        """Cut before the next chunk."""
        self._pending.put(_PendingAction())

    def _encode_in_thread(self, action: _PendingAction) -> None:
        """Encode a prompt in the encoder's thread, without moving weights."""
        try:
            with torch.inference_mode():
                encoded = embeddings(encode_in_thread(self._clip, action.prompt))
        except Exception as error:
            self._view.say(f"The prompt was not understood: {error}")
            return
        self._pending.put(replace(action, embeddings=encoded))

    def boundary(self, session: Session) -> Session:
        """Return ``session`` as the timeline and the actions since the last chunk have it for its next chunk."""
        while not self._pending.empty():
            action = self._pending.get()
            encoded = action.embeddings
            if action.prompt and encoded is None:
                encoded = self._encode_here(action.prompt)
                if encoded is None:
                    continue
            second = second_of(session, *self._time)
            row = Row(second, action.prompt, action.blend, action.recache, cut=not action.prompt)
            self._take(row, encoded, {"chunk": session.chunks, **action.facts})
        return self.timeline.steer(session, *self._time)

    def _encode_here(self, prompt: str) -> Tensor | None:
        """Encode a prompt in this thread, as weights may have to move. The video waits for it, and the node says so."""
        self._view.say("Encoding the new prompt: the video waits for the text encoder")
        try:
            encoded = embeddings(encode(self._clip, prompt))
        except Exception as error:
            if host.is_interrupt(error):
                raise
            self._view.say(f"The prompt was not understood: {error}")
            return None
        self._view.say("")
        return encoded

    def re_rolled(self, session: Session) -> None:
        """Record a re-roll: the chunks after ``session`` were removed, and it continues with its new seed."""
        assert isinstance(session.noise, SeededNoise)
        seed = session.noise.seed
        row = Row(second_of(session, *self._time), seed=seed)
        self._take(row, None, {"chunk": session.chunks, "action": "reroll", "seed": str(seed)})

    def _take(self, row: Row, encoded: Tensor | None, action: dict[str, Any]) -> None:
        self.timeline = self.timeline.with_row(row, encoded)
        self.actions.append(action)
        changes: dict[str, Any] = {"actions": self.actions, "rows": self.rows, "note": ""}
        self._view.tell(**changes, **({"prompt": row.prompt} if row.prompt else {}))

    @property
    def rows(self) -> str:
        """The timeline so far, as text for Prompt Timeline: it makes this video again."""
        return format_rows(self.timeline.rows)

    def close(self) -> None:
        """Stop the encoder's thread."""
        self._encoder.shutdown(cancel_futures=True)

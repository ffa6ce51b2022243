"""Steering of a run by hand. Every action becomes a row of the run's timeline, at the chunk where it takes effect.

The timeline alone decides what is sampled, so that the same timeline makes the same video without anybody's hand.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...sf_core.message import NOTHING, Message
from ...sf_core.noise import SeededNoise
from ...sf_core.session.session import Session
from ...sf_core.session.timeline import Row, Timeline, format_rows, second_of
from ..adapters import host
from ..adapters.conditioning import can_encode_in_thread, embeddings, encode, encode_in_thread
from .view import LiveView

CHARACTERS = 64_000  # in JSON, of all prompts typed in a run: each message to its viewers holds them twice


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


_CUT = _PendingAction()


class Steering:
    """Steering of one run. `prompt` and `cut` may be called in any thread, all else in the graph's."""

    def __init__(
        self,
        clip: Any,
        timeline: Timeline,
        temporal_factor: int,
        fps: float,
        view: LiveView,
        took_effect: Callable[[], None],
    ) -> None:
        """Begin with a timeline.

        Args:
            clip: Encodes new prompts. None: the run takes none.
            timeline: Prompts, cuts and seeds set before the run.
            temporal_factor: Frames for each latent frame.
            fps: Frames a second.
            view: Tells viewers what took effect.
            took_effect: Called in the graph's thread when something did.
        """
        self.timeline, self.actions = timeline, list[dict[str, Any]]()
        self._clip, self._view, self._time, self._took_effect = clip, view, (temporal_factor, fps), took_effect
        self._pending: deque[_PendingAction] = deque()
        self._encoding = 0  # prompts in the encoder's thread
        self._characters = 0  # of the prompts so far
        self._lock = threading.Lock()
        self._closed, self._prompt = False, ""  # prompt: the newest that was typed
        self._encoder = ThreadPoolExecutor(1, "self-forcing-text")
        if timeline.rows:
            view.tell(rows=self.rows)

    @property
    def waiting(self) -> int:
        """Number of actions that were accepted and wait for the next chunk."""
        with self._lock:
            return len(self._pending) + self._encoding

    @property
    def takes_prompts(self) -> bool:
        """Whether the run has a CLIP."""
        return self._clip is not None

    def prompt(self, text: str, blend: int, recache: bool) -> bool:
        """Switch to a prompt with the next chunk, or with the first one after it has been encoded.

        Returns:
            Whether it was accepted; False: the run has ended.
        """
        action = _PendingAction(text, blend, recache)
        with self._lock:
            if self._closed:
                return False
            self._characters += len(json.dumps(text))
            if can_encode_in_thread(self._clip):
                self._encoder.submit(self._encode_in_thread, action)
                self._encoding += 1
            else:
                self._pending.append(action)
        return True

    def takes(self, text: str) -> bool:
        """Whether a prompt fits into the run's record, which each message to its viewers holds."""
        return self._characters + len(json.dumps(text)) <= CHARACTERS

    def cut(self) -> bool:
        """Cut before the next chunk. Returns whether it was accepted. Two cuts before one chunk are one."""
        with self._lock:
            if not self._closed and not (self._pending and self._pending[-1] == _CUT):
                self._pending.append(_CUT)
            return not self._closed

    def _encode_in_thread(self, action: _PendingAction) -> None:
        """Encode a prompt in the encoder's thread, without moving weights."""
        encoded = None
        try:
            with torch.inference_mode():
                encoded = embeddings(encode_in_thread(self._clip, action.prompt))
        except Exception as error:
            self._refuse(action, error)
        finally:
            with self._lock:
                self._encoding -= 1
                if encoded is not None:
                    self._pending.append(replace(action, embeddings=encoded))

    def _refuse(self, action: _PendingAction, error: Exception) -> None:
        self._view.refuse(action.prompt, Message("The prompt was not understood: {error}", error=error))

    def boundary(self, session: Session) -> Session:
        """Return ``session`` as the timeline and the actions since the last chunk have it for its next chunk."""
        taken = False
        while (action := self._next()) is not None:
            encoded = action.embeddings
            if action.prompt and encoded is None:
                encoded = self._encode_here(action)
                if encoded is None:
                    continue
            second = second_of(session, *self._time)
            row = Row(second, action.prompt, action.blend, action.recache, cut=not action.prompt)
            self._take(row, encoded, {"chunk": session.chunks, **action.facts})
            taken = True
        if taken:
            self._tell()
        return self.timeline.steer(session, *self._time)

    def _next(self) -> _PendingAction | None:
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def _encode_here(self, action: _PendingAction) -> Tensor | None:
        """Encode a prompt in this thread, as weights may have to move. The video waits for it, and the node says so."""
        self._view.say(Message("Encoding the new prompt: the video waits for the text encoder"))
        try:
            encoded = embeddings(encode(self._clip, action.prompt))
        except Exception as error:
            if host.is_interrupt(error):
                raise
            self._refuse(action, error)
            return None
        self._view.say(NOTHING)
        return encoded

    def re_rolled(self, session: Session) -> None:
        """Record a re-roll: the chunks after ``session`` were removed, and it continues with its new seed."""
        assert isinstance(session.noise, SeededNoise)
        seed = session.noise.seed
        row = Row(second_of(session, *self._time), seed=seed)
        self._take(row, None, {"chunk": session.chunks, "action": "reroll", "seed": str(seed)})
        self._tell()

    def _take(self, row: Row, encoded: Tensor | None, action: dict[str, Any]) -> None:
        self.timeline = self.timeline.with_row(row, encoded)
        self.actions.append(action)
        self._prompt = row.prompt or self._prompt
        self._took_effect()

    def _tell(self) -> None:
        self._view.tell(actions=self.actions, rows=self.rows, prompt=self._prompt)

    @property
    def rows(self) -> str:
        """The timeline so far, as text for Prompt Timeline: it makes this video again."""
        return format_rows(self.timeline.rows)

    def close(self) -> None:
        """Accept nothing more, and stop the encoder's thread."""
        with self._lock:
            self._closed = True
        self._encoder.shutdown(cancel_futures=True)

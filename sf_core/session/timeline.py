"""What happens to a video when: prompts, blends, cuts and seeds, written as rows of text by the second.

    0: a red circle moving left
    2.25 blend 3: a blue square moving up
    4.5 cut:
    5.25 seed 1234:

A row takes effect with the first chunk that begins at its second or after it. What was typed into a running video is
such rows too, so that the same code makes it the first time and again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from ..noise import MAX_SEED
from .frame_counts import video_frames
from .session import Session

MAX_BLEND = 1000  # chunks
_SAME = 1e-6  # seconds; rows are written with this many digits
_OPTION = re.compile(r"(?P<name>blend|seed)\s+(?P<number>\d+)|(?P<flag>cut|recache)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """What begins at a second.

    prompt: "" leaves it as it was. blend: chunks in which the video turns to the prompt. recache: as in
    `Session.with_prompt`. cut: as `Session.with_cut`. seed: None leaves it as it was.
    """

    second: float
    prompt: str = ""
    blend: int = 1
    recache: bool = False
    cut: bool = False
    seed: int | None = None

    def __str__(self) -> str:
        options = [f"blend {self.blend}"] * (self.blend > 1) + ["recache"] * self.recache + ["cut"] * self.cut
        options += [] if self.seed is None else [f"seed {self.seed}"]
        second = f"{self.second:.6f}".rstrip("0").rstrip(".")
        return f"{' '.join([second, *options])}: {self.prompt}".rstrip()


def parse_rows(text: str) -> tuple[Row, ...]:
    """The rows of ``text``, earliest first, without empty ones and those that begin with #.

    Raises ValueError naming the row that is none and what was expected.
    """
    rows: dict[float, Row] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            row = _parse(line)
        except ValueError as error:
            raise ValueError(f"row {number} of the timeline is {line.strip()[:80]!r}; {error}") from None
        if row.second in rows:
            raise ValueError(f"the timeline has two rows at second {row.second:g}; row {number} is the second one")
        rows[row.second] = row
    if not rows:
        raise ValueError("the timeline is empty; write rows such as '0: a cat' and '2.5: a dog'")
    return tuple(rows[second] for second in sorted(rows))


def _parse(line: str) -> Row:
    head, colon, prompt = line.partition(":")
    time, _, options = head.strip().partition(" ")
    try:
        second = float(time)
    except ValueError:
        second = math.nan
    if not colon or not (second >= 0 and math.isfinite(second)):
        raise ValueError("expected 'second: prompt', as in '2.5: a cat'")
    row = Row(second, prompt.strip())
    rest = options.strip()
    while rest:
        found = _OPTION.match(rest)
        if not found or (rest[found.end() :] and not rest[found.end()].isspace()):
            raise ValueError(f"{rest!r} is no option; known are: blend CHUNKS, recache, cut, seed NUMBER")
        row = _with_option(row, (found["name"] or found["flag"]).lower(), int(found["number"] or 0))
        rest = rest[found.end() :].strip()
    if not row.prompt and not row.cut and row.seed is None:
        raise ValueError("expected a prompt after the colon, or 'cut' or 'seed NUMBER' before it")
    return row


def _with_option(row: Row, name: str, number: int) -> Row:
    if name == "blend":
        if not 1 <= number <= MAX_BLEND:
            raise ValueError(f"expected a blend of 1 to {MAX_BLEND} chunks")
        return replace(row, blend=number)
    if name == "seed":
        if number > MAX_SEED:
            raise ValueError(f"expected a seed of 0 to {MAX_SEED}")
        return replace(row, seed=number)
    return replace(row, cut=True) if name == "cut" else replace(row, recache=True)


def format_rows(rows: Iterable[Row]) -> str:
    """The text that `parse_rows` reads as ``rows``."""
    return "\n".join(map(str, rows))


@dataclass(frozen=True, eq=False)
class Timeline:
    """Rows, earliest first, and the embeddings [1, rows, text_dim] of each prompt in them. Immutable."""

    rows: tuple[Row, ...] = ()
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    def with_row(self, row: Row, embeddings: Tensor | None = None) -> Timeline:
        """With one more row; together with one at the same second that is there, of which it overrides what it says.

        embeddings: of the row's prompt, if it has one.
        """
        others = [other for other in self.rows if abs(other.second - row.second) > _SAME]
        for same in (other for other in self.rows if abs(other.second - row.second) <= _SAME):
            row = _merged(same, row)
        known = dict(self.embeddings)
        if row.prompt and embeddings is not None:
            known[row.prompt] = embeddings
        return Timeline(tuple(sorted([*others, row], key=lambda each: each.second)), known)

    def steer(self, session: Session, temporal_factor: int, fps: float) -> Session:
        """``session`` with all that its next chunk is to be made with.

        temporal_factor: frames of video for each latent frame; fps: frames a second. Given the same session it gives
        the same: a blend goes on from the prompt that the session has come to.
        """
        due = [row for row in self.rows if row.second <= second_of(session, temporal_factor, fps) + _SAME]
        for row in due:
            if _chunks_since(row, session, temporal_factor, fps, 1) == 0:
                session = session.with_cut() if row.cut else session
                session = session if row.seed is None else session.with_seed(row.seed)
        holds = next((row for row in reversed(due) if row.prompt), None)
        if holds is None:
            return session
        behind = _chunks_since(holds, session, temporal_factor, fps, holds.blend)
        target, words = self.embeddings[holds.prompt], holds.prompt
        left = holds.blend - behind  # chunks until it holds alone, this one included
        if left > 1 and session.chunks and session.head is not None:
            # from the newest chunk's prompt: after a rewind the session's own is that of the chunk that was taken back
            target = _mixed(session.head.prompt.text, target, 1 / left)
            words = f"{words} (blend, {left - 1} chunks to go)"
        switched = session.with_prompt(target, recache=holds.recache and not 0 < behind < holds.blend, words=words)
        return session if switched.prompt.digest == session.prompt.digest else switched


def second_of(session: Session, temporal_factor: int, fps: float) -> float:
    """Of the video, at which the session's next chunk begins."""
    return video_frames(session.frames, temporal_factor) / fps


def _merged(old: Row, new: Row) -> Row:
    said = new if new.prompt else old
    return Row(
        new.second,
        said.prompt,
        said.blend,
        said.recache,
        old.cut or new.cut,
        old.seed if new.seed is None else new.seed,
    )


def _chunks_since(row: Row, session: Session, temporal_factor: int, fps: float, most: int) -> int:
    """How many of the session's sampled chunks ``row`` has held for, counted up to ``most``."""
    count = 0
    for block in islice(session.head.back() if session.head else (), most):
        if block.chunk is None or video_frames(block.place.start, temporal_factor) / fps < row.second - _SAME:
            break
        count += 1
    return count


def _mixed(old: Tensor, new: Tensor, share: float) -> Tensor:
    """``share`` of the way from ``old`` to ``new``, both [B or 1, rows, text_dim], as if filled up with zeros."""
    rows = max(old.shape[1], new.shape[1])
    first, last = (torch.nn.functional.pad(text, (0, 0, 0, rows - text.shape[1])) for text in (old, new))
    return torch.lerp(first, last.to(first), share)

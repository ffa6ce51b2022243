"""Timelines: prompts, blends, cuts and seeds by the second, written as rows of text.

    0: a red circle moving left
    2.25 blend 3: a blue square moving up
    3.5 joint: a yellow square moving up
    4.5 cut:
    5.25 seed 1234:
    1:30: a green triangle

A row takes effect with the first chunk that begins at its second or later. Steering of a running video becomes such
rows too, so that the same code makes the video the first time and again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from ..files.clean_text import BYTE_ORDER_MARK, whole_characters
from ..noise import MAX_SEED
from .frame_counts import video_frames
from .session import Session

MAX_BLEND = 1000  # chunks
SHOT = "The scene transitions. "  # LongLive 2 was trained to begin a shot where a prompt begins so
_SAME = 1e-6  # seconds; rows are written with this many digits
_BLEND = " (blend, "  # begins the remark behind the words of a prompt that is blended in
_COLONS = ":\uff1a"  # and the full-width one of Chinese and Japanese keyboards
_SIXTY = r"[0-5\uff10-\uff15]\d"  # 00 to 59, in full-width digits too
_CLOCK = re.compile(rf"(?P<time>\d+(?:[{_COLONS}]{_SIXTY}){{1,2}}(?:\.\d+)?)(?=[\s{_COLONS}]|$)")  # m:ss or h:mm:ss
_LIKE_A_CLOCK = re.compile(rf"\d+(?:[{_COLONS}]\d+)+(?:,\d+|(?=[{_COLONS}]))")
_OPTION = re.compile(r"(?P<name>blend|seed)\s+(?P<number>\d+)|(?P<flag>cut|recache|joint)", re.IGNORECASE)
_OPTIONS = re.compile(r"(?:(?:cut|recache|joint|(?:blend|seed)\s+\d+)(?:\s+|$))+", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A change at a second of the video.

    Attributes:
        second: Time in the video, from its beginning.
        prompt: The new prompt; "" keeps the prompt.
        blend: Number of chunks over which the video turns to the prompt.
        recache: As in `Session.with_prompt`; ``"joint"`` is the option ``joint`` of a row.
        cut: As `Session.with_cut`.
        seed: The new seed; None keeps the seed.
    """

    second: float
    prompt: str = ""
    blend: int = 1
    recache: bool | str = False
    cut: bool = False
    seed: int | None = None

    def __str__(self) -> str:
        again = ["joint" if self.recache == "joint" else "recache"] * bool(self.recache)
        options = [f"blend {self.blend}"] * (self.blend > 1) + again + ["cut"] * self.cut
        options += [] if self.seed is None else [f"seed {self.seed}"]
        second = f"{self.second:.6f}".rstrip("0").rstrip(".")
        return f"{' '.join([second, *options])}: {self.prompt}".rstrip()


def parse_rows(text: str) -> tuple[Row, ...]:
    """Read rows from text, and sort them by time. Empty rows, and rows that begin with #, are ignored.

    Raises:
        ValueError: A row is malformed or a second is used twice; the message names the row and what was expected.
    """
    rows: dict[float, Row] = {}
    for number, line in enumerate(whole_characters(text).splitlines(), 1):
        line = line.removeprefix(BYTE_ORDER_MARK)
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
    line = line.strip()
    if (time := _LIKE_A_CLOCK.match(line)) and not _CLOCK.fullmatch(time[0]):
        raise ValueError(f"{time[0]!r} is no time; expected m:ss, h:mm:ss or m:ss.5, with 00 to 59 each")
    second, rest = _split_time(line)
    options, colon, prompt = _split_colon(rest)
    if not colon and second is not None and _CLOCK.match(line) and not _OPTIONS.fullmatch(rest.strip()):
        options, colon, prompt = "", ":", rest  # '1:30 a cat' says what is meant
    if not colon or second is None:
        raise ValueError("expected 'second: prompt', as in '2.5: a cat' or '1:30: a cat'")
    row = Row(second, prompt.strip())
    rest = options.strip()
    while rest:
        option = _OPTION.match(rest)
        if not option or (rest[option.end() :] and not rest[option.end()].isspace()):
            raise ValueError(f"{rest!r} is no option; known are: blend CHUNKS, recache, joint, cut, seed NUMBER")
        row = _with_option(row, (option["name"] or option["flag"]).lower(), int(option["number"] or 0))
        rest = rest[option.end() :].strip()
    if not row.prompt and not row.cut and row.seed is None:
        raise ValueError("expected a prompt after the colon, or 'cut' or 'seed NUMBER' before it")
    return row


def _split_time(line: str) -> tuple[float | None, str]:
    """Return the second that a row begins with, None if there is none, and the rest of the row."""
    if clock := _CLOCK.match(line):
        parts = re.split(f"[{_COLONS}]", clock["time"])
        second = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
        return second, line[clock.end() :]
    time = re.split(rf"[\s{_COLONS}]", line, maxsplit=1)[0]
    try:
        second = float(time)
    except ValueError:
        return None, line
    return (second if second >= 0 and math.isfinite(second) else None), line[len(time) :]


def _split_colon(text: str) -> tuple[str, str, str]:
    """Split at the first colon, like `str.partition`."""
    colon = re.search(f"[{_COLONS}]", text)
    return (text[: colon.start()], colon[0], text[colon.end() :]) if colon else (text, "", "")


def _with_option(row: Row, name: str, number: int) -> Row:
    if name == "blend":
        if not 1 <= number <= MAX_BLEND:
            raise ValueError(f"expected a blend of 1 to {MAX_BLEND} chunks")
        return replace(row, blend=number)
    if name == "seed":
        if number > MAX_SEED:
            raise ValueError(f"expected a seed of 0 to {MAX_SEED}")
        return replace(row, seed=number)
    return replace(row, cut=True) if name == "cut" else replace(row, recache="joint" if name == "joint" else True)


def format_rows(rows: Iterable[Row]) -> str:
    """Return the text that `parse_rows` reads as ``rows``."""
    return "\n".join(map(str, rows))


@dataclass(frozen=True, eq=False)
class Timeline:
    """Rows, earliest first, and the embeddings [1, rows, text_dim] of each prompt in them. Immutable."""

    rows: tuple[Row, ...] = ()
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    def with_row(self, row: Row, embeddings: Tensor | None = None) -> Timeline:
        """Return the timeline with one more row, merged with an existing row at that time; new values win.

        Args:
            row: The row.
            embeddings: Of the row's prompt, if it has one.
        """
        others = [other for other in self.rows if abs(other.second - row.second) > _SAME]
        for same in (other for other in self.rows if abs(other.second - row.second) <= _SAME):
            row = _merged(same, row)
        by_prompt = dict(self.embeddings)
        if row.prompt and embeddings is not None:
            by_prompt[row.prompt] = embeddings
        return Timeline(tuple(sorted([*others, row], key=lambda each: each.second)), by_prompt)

    def steer(self, session: Session, temporal_factor: int, fps: float) -> Session:
        """Return ``session`` with prompt, seed and cut of its next chunk.

        The result depends on the session alone: a blend continues from the prompt of the newest chunk. Where shots
        are pinned, a prompt that begins with "The scene transitions. " begins one, see `Session.with_shot`.

        Args:
            session: The session to be extended.
            temporal_factor: Frames of video for each latent frame.
            fps: Frames a second.
        """
        due = [row for row in self.rows if row.second <= second_of(session, temporal_factor, fps) + _SAME]
        for row in due:
            if _chunks_since(row, session, temporal_factor, fps, 1) == 0:
                session = session.with_cut() if row.cut else session
                session = session if row.seed is None else session.with_seed(row.seed)
        current = next((row for row in reversed(due) if row.prompt), None)
        if current is None:
            return session
        behind = _chunks_since(current, session, temporal_factor, fps, current.blend)
        target, words = self.embeddings[current.prompt], current.prompt
        left = current.blend - behind  # chunks of the blend to go, this one included
        if left > 1 and session.chunks and session.head is not None:
            # from the newest chunk's prompt: after a rewind, the session's own is that of the removed chunk
            target = _mixed(session.head.prompt.text, target, 1 / left)
            words = f"{words}{_BLEND}{left - 1} chunks to go)"
        if behind == 0 and current.prompt.startswith(SHOT) and session.config.pin_shots:
            return session.with_shot(self.embeddings[current.prompt], words=current.prompt)
        again = False if 0 < behind < current.blend else current.recache
        switched = session.with_prompt(target, recache=again, words=words)
        return session if switched.prompt.digest == session.prompt.digest else switched


def without_blend(words: str) -> str:
    """Return the words of a prompt without the remark that it is still blended in."""
    return words.partition(_BLEND)[0]


def second_of(session: Session, temporal_factor: int, fps: float) -> float:
    """Return the second of the video at which the session's next chunk begins."""
    return video_frames(session.frames, temporal_factor) / fps


def _merged(old: Row, new: Row) -> Row:
    prompted = new if new.prompt else old
    return Row(
        new.second,
        prompted.prompt,
        prompted.blend,
        prompted.recache,
        old.cut or new.cut,
        old.seed if new.seed is None else new.seed,
    )


def _chunks_since(row: Row, session: Session, temporal_factor: int, fps: float, most: int) -> int:
    """Count the session's sampled chunks since ``row`` took effect, up to ``most``."""
    count = 0
    for block in islice(session.head.back() if session.head else (), most):
        if block.chunk is None or video_frames(block.place.start, temporal_factor) / fps < row.second - _SAME:
            break
        count += 1
    return count


def _mixed(old: Tensor, new: Tensor, share: float) -> Tensor:
    """Interpolate from ``old`` to ``new``, both [B or 1, rows, text_dim], padded with zeros to equal length."""
    rows = max(old.shape[1], new.shape[1])
    first, last = (torch.nn.functional.pad(text, (0, 0, 0, rows - text.shape[1])) for text in (old, new))
    return torch.lerp(first, last.to(first), share)

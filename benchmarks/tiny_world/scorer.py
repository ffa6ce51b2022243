"""Scores of clips by their captions, from the pixels alone, without a learned model.

`observe` measures each frame, without the caption; `judge` compares the measurements with the caption (`Score`). What a
caption does not mention is not judged, and None. That there is exactly one object is always judged. Motion:

- track: the object's centre in the frames that have one. From one to the next it takes the shortest way, also across
  the frame's edge. At this world's 2 px a frame or less, that is wrong only after 15 frames or more without an object.
- direction: from the track's first place to its last, in any window.
- speed: the mean length of the velocity over pieces of at most 8 frames. Velocities are fitted by least squares, so
  that jitter hardly counts as motion; a standstill lowers the speed, a turn affects only its piece.

Pixels are of a frame 64 wide; other sizes are scaled. `CHANCE` has the scores of captions dealt out at random.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sf_core.tiny.words import ALIASES, PAD, VOCABULARY
from sf_core.tiny.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, wrapped

from .observe import Observation, observe

CHANCE = {  # scores of perfect clips under the captions of others; other fields do not change
    "colour": 1 / len(COLOURS),
    "shape": 1 / len(SHAPES),
    "background": 1 / len(BACKGROUNDS),
    "direction": 1 / len(DIRECTIONS),
    "speed": 1 / len(SPEEDS),
    "frames_correct": 1 / (len(COLOURS) * len(SHAPES) * len(BACKGROUNDS)),
    "all_correct": 1 / (len(COLOURS) * len(SHAPES) * len(BACKGROUNDS) * len(DIRECTIONS) * len(SPEEDS)),
}
_EDGE = 64  # pixels; lengths are given for a frame of this size
_REQUIRED_SHARE = 0.9  # of the frames that have to be right
_MAX_COLOUR_DISTANCE = 0.3  # a colour further from all of the world's is none of them
_MAX_BACKGROUND_ERROR = 0.1  # mean over channels; the world's backgrounds are 0.5 apart
_MIN_IOU = 0.7  # with the best shape; a circle and a square have 0.83
_MIN_RUN = 3  # frames
_RUN = 8  # frames of a piece of a track: enough against jitter, and few to lose by a turn
_STILL = SPEEDS["slowly"] / 4  # edges a frame; slower motion has no direction
_HALF_SECTOR = math.cos(math.pi / len(DIRECTIONS))
_RATIO = math.sqrt(SPEEDS["quickly"] / SPEEDS["slowly"])  # to the midpoint between the two speeds


@dataclass(frozen=True)
class Caption:
    """The parts of a caption; None for those that it does not mention."""

    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    speed: str | None = None
    background: str | None = None

    @staticmethod
    def read(text: str) -> Caption:
        """Parse a caption.

        Raises:
            ValueError: A word is not in the world (the message lists those that are), or two contradict each other.
        """
        words = [ALIASES.get(word, word) for word in re.findall(r"[\w<>]+", text.lower())]
        known = [word for word in VOCABULARY if word != PAD]
        if unknown := [word for word in words if word not in known]:
            raise ValueError(
                f"the caption {text!r} has {', '.join(map(repr, unknown))}, which the world does not know. "
                f"Its words: {', '.join(known)}; also {', '.join(sorted(ALIASES))}"
            )
        return Caption(
            colour=_only("colour", COLOURS, words, text),
            shape=_only("shape", SHAPES, words, text),
            direction=_only("direction", DIRECTIONS, words, text),
            speed=_only("speed", SPEEDS, words, text),
            background=_only("background", BACKGROUNDS, words, text),
        )


def _only(field: str, options: Iterable[str], words: Sequence[str], text: str) -> str | None:
    mentioned = [word for word in options if word in words]
    if len(mentioned) > 1:
        raise ValueError(f"the caption {text!r} says {' and '.join(mentioned)}; expected one {field}")
    return mentioned[0] if mentioned else None


@dataclass(frozen=True)
class Score:
    """The score of a clip, or of a window of one, by its caption.

    ``one_object`` to ``frames_correct`` are shares of the frames, 0..1.

    Args:
        frames: Number of frames; with less than 3, motion is not judged.
        motion_frames: Number of frames with an object; 0 where motion is not judged.
        one_object: There is exactly one thing, and it is an object.
        colour: The right one is the nearest of the world's colours, and within 0.3.
        shape: The right one has the highest IoU, and at least 0.7.
        background: It is within 0.1 (mean of the channels) of the right one.
        frames_correct: All of these that are judged are right in the same frame.
        direction: It is right to 45 degrees, at more than a quarter of the speed "slowly".
        speed: ``pace`` is within 1 / sqrt 2 .. sqrt 2, where the right one of the two speeds is nearer.
        all_correct: Of those that are judged, one_object, colour, shape and background are each right in at least 90 %
            of the frames, and direction and speed are right.
        iou: Mean IoU with the right shape; frames without an object count 0.
        background_error: Mean absolute distance of all pixels outside the object from the right background, 0..1.
        background_drift: The distance between the background's mean colours in the first and in the last quarter.
        net_speed: Displacement per frame from the track's first place to its last, along the right direction, divided
            by the right speed; negative for the wrong direction, 0 with an object in less than 3 frames.
        pace: Mean length of the velocity over pieces of the track, divided by the right speed; 0 with an object in
            less than 3 frames.
        jerk: Mean length of the track's second difference, in pixels; None without three consecutive frames.
    """

    frames: int
    motion_frames: int
    one_object: float
    colour: float | None
    shape: float | None
    background: float | None
    frames_correct: float
    direction: bool | None
    speed: bool | None
    all_correct: bool
    iou: float | None
    background_error: float | None
    background_drift: float
    net_speed: float | None
    pace: float | None
    jerk: float | None


def score(frames: Tensor, caption: str, start: int = 0, end: int | None = None) -> Score:
    """Score frames of a clip by a caption. For several windows or captions, call `observe` once and then `judge`.

    Args:
        frames: The clip, [T, H, W, 3] in 0..1.
        caption: Its caption.
        start: First frame of the window.
        end: The frame behind the window; None for the end of the clip.

    Raises:
        ValueError: The frames have another shape, a word is not in the world, or the window is outside the clip.
    """
    return judge(observe(frames), caption, start, end)


# Comparison with the caption ----------------------------------------------------------------------------------------


def judge(seen: Observation, caption: str, start: int = 0, end: int | None = None) -> Score:
    """Score frames start .. end - 1 (None: the last) of an observed clip; see `score`."""
    end = len(seen) if end is None else end
    if not 0 <= start < end <= len(seen):
        raise ValueError(f"frames {start} .. {end} of a clip of {len(seen)}; expected 0 <= start < end <= {len(seen)}")
    expected, seen = Caption.read(caption), seen.window(start, end)
    right = {
        "one_object": (seen.things == 1) & seen.found,
        "colour": _colour_right(seen, expected.colour),
        "shape": _shape_right(seen, expected.shape),
        "background": None,
    }
    background_error = None
    if expected.background is not None:
        errors = seen.backgrounds[:, list(BACKGROUNDS).index(expected.background)]
        right["background"] = errors <= _MAX_BACKGROUND_ERROR
        background_error = float(errors.mean())
    judged = {field: verdict for field, verdict in right.items() if verdict is not None}
    shares = {field: float(verdict.float().mean()) for field, verdict in judged.items()}
    motion = _motion(seen, expected)
    quarter = max(1, len(seen) // 4)
    drift = seen.ground[-quarter:].mean(dim=0) - seen.ground[:quarter].mean(dim=0)
    return Score(
        frames=len(seen),
        motion_frames=motion.frames,
        one_object=shares["one_object"],
        colour=shares.get("colour"),
        shape=shares.get("shape"),
        background=shares.get("background"),
        frames_correct=float(torch.stack(list(judged.values())).all(dim=0).float().mean()),
        direction=motion.direction,
        speed=motion.speed,
        all_correct=min(shares.values()) >= _REQUIRED_SHARE
        and motion.direction is not False
        and motion.speed is not False,
        iou=None if expected.shape is None else float(seen.fits[:, list(SHAPES).index(expected.shape)].mean()),
        background_error=background_error,
        background_drift=float(drift.abs().mean()),
        net_speed=motion.net_speed,
        pace=motion.pace,
        jerk=motion.jerk,
    )


def _colour_right(seen: Observation, name: str | None) -> Tensor | None:
    if name is None:
        return None
    nearest = torch.cdist(seen.colour, torch.tensor(list(COLOURS.values()))).min(dim=1)
    return seen.found & (nearest.indices == list(COLOURS).index(name)) & (nearest.values <= _MAX_COLOUR_DISTANCE)


def _shape_right(seen: Observation, name: str | None) -> Tensor | None:
    if name is None:
        return None
    best = seen.fits.max(dim=1)
    return seen.found & (best.indices == list(SHAPES).index(name)) & (best.values >= _MIN_IOU)


@dataclass(frozen=True)
class _Motion:
    """The fields of a `Score` about motion."""

    frames: int = 0
    direction: bool | None = None
    speed: bool | None = None
    net_speed: float | None = None
    pace: float | None = None
    jerk: float | None = None


def _motion(seen: Observation, expected: Caption) -> _Motion:
    if len(seen) < _MIN_RUN:
        return _Motion()
    times = seen.found.nonzero()[:, 0]
    track = _unwrapped(seen.centre[times] / seen.size)
    heading, length = [0.0, 0.0], 0.0  # in edges a frame
    if len(times) >= _MIN_RUN:
        heading = ((track[-1] - track[0]) / (times[-1] - times[0])).tolist()
        length = _mean_speed(times, track)
    direction = speed = net = pace = None
    if expected.direction is not None:
        way = DIRECTIONS[expected.direction]
        along = heading[0] * way[0] + heading[1] * way[1]
        direction = along >= _HALF_SECTOR * math.hypot(*heading) and math.hypot(*heading) > _STILL
        net = along / SPEEDS[expected.speed] if expected.speed is not None else None
    if expected.speed is not None:
        pace = length / SPEEDS[expected.speed]
        speed = 1 / _RATIO <= pace <= _RATIO
    return _Motion(len(times), direction, speed, net, pace, _jerk(times, track))


def _unwrapped(places: Tensor) -> Tensor:
    """Connect places by the shortest ways, in edges: [N, 2]."""
    return torch.cat([places[:1], places[:1] + wrapped(places.diff(dim=0), 1).cumsum(dim=0)])


def _mean_speed(times: Tensor, track: Tensor) -> float:
    """Average the length of the velocity over pieces of the track by their lengths, in edges a frame."""
    pieces = [piece for piece in torch.arange(len(times)).split(_RUN) if len(piece) >= _MIN_RUN]
    lengths = [len(piece) * _velocity(times[piece], track[piece]) for piece in pieces]
    return sum(lengths) / sum(map(len, pieces))


def _velocity(times: Tensor, track: Tensor) -> float:
    """Fit a line to the track, and return the length of its slope, in edges a frame."""
    since = (times - times.float().mean())[:, None]
    return float(((since * track).sum(dim=0) / since.square().sum()).norm())


def _jerk(times: Tensor, track: Tensor) -> float | None:
    if len(times) < _MIN_RUN:
        return None
    consecutive = times[2:] - times[:-2] == 2
    bends = track.diff(n=2, dim=0).norm(dim=1)[consecutive]
    return float(bends.mean()) * _EDGE if len(bends) else None


def summarize(scores: Sequence[Score]) -> dict[str, float]:
    """Average scores over clips, each field over the clips in which it was judged.

    Returns:
        The means by field, without fields that were never judged. ``<name>_se`` is the standard error, for fields that
        were judged in two or more clips; ``<name>_low`` the lower end of Wilson's 95 % interval, for fields that are
        right or wrong; ``clips`` the number of clips.

    Raises:
        ValueError: There are no scores.
    """
    if not scores:
        raise ValueError("there are no scores to summarize; score one clip or more")
    summary = {"clips": float(len(scores))}
    for field in fields(Score):
        values = [value for one in scores if (value := getattr(one, field.name)) is not None]
        if not values:
            continue
        mean = sum(values) / len(values)
        summary[field.name] = mean
        if len(values) > 1:
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            summary[f"{field.name}_se"] = math.sqrt(variance / len(values))
        if isinstance(values[0], bool):
            summary[f"{field.name}_low"] = _wilson_low(mean, len(values))
    return summary


def _wilson_low(share: float, count: int, z: float = 1.96) -> float:
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, (middle - half) / (1 + z**2 / count))

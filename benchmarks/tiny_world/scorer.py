"""Does a clip show what its caption says? Measured from the pixels alone, without a learned model.

What is seen in each frame, `observe` tells; the caption plays no part in it.

Judged by the caption (`Score`). What a caption does not say is not judged and None; that there is exactly one object is
the law of the world and always judged. Of motion:

- The track: the object's centre in the frames in which it is found. From one to the next it goes the shortest way,
  also across the frame's edge. At this world's 2 px a frame or less, no other can be meant unless it is lost for 15
  frames or more.
- direction: of the way from the track's first place to its last, with its sign, in any window, however late.
- speed: the mean length of the velocity over pieces of at most 8 frames. Velocities are fitted by least squares, so
  that jitter is hardly motion; a standstill lowers the speed, a turn only spoils its piece.

Pixels are of a frame 64 wide; other sizes are scaled. Chance, for captions dealt out at random, is in `CHANCE`.
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

CHANCE = {  # what a perfect clip scores under the caption of another; its other figures do not change
    "colour": 1 / len(COLOURS),
    "shape": 1 / len(SHAPES),
    "background": 1 / len(BACKGROUNDS),
    "direction": 1 / len(DIRECTIONS),
    "speed": 1 / len(SPEEDS),
    "frames_correct": 1 / (len(COLOURS) * len(SHAPES) * len(BACKGROUNDS)),
    "all_correct": 1 / (len(COLOURS) * len(SHAPES) * len(BACKGROUNDS) * len(DIRECTIONS) * len(SPEEDS)),
}
_EDGE = 64  # pixels; lengths are given for a frame of this size
_MOST = 0.9  # the share of frames that has to be right
_COLOUR_REACH = 0.3  # a colour further than this from all of the world's is none of them
_BACKGROUND_REACH = 0.1  # mean over channels; the world's backgrounds are 0.5 apart
_LEAST_IOU = 0.7  # a thing that fits its best shape less well has none; a circle is a square to 0.83
_LEAST_RUN = 3  # frames
_RUN = 8  # frames of a track that are measured at once: enough against jitter, and few to lose by a turn
_STILL = SPEEDS["slowly"] / 4  # edges a frame; what is slower has no direction
_HALF_SECTOR = math.cos(math.pi / len(DIRECTIONS))
_RATIO = math.sqrt(SPEEDS["quickly"] / SPEEDS["slowly"])  # to where the one speed is as near as the other


@dataclass(frozen=True)
class Caption:
    """What a caption says; None for what it does not say."""

    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    speed: str | None = None
    background: str | None = None

    @staticmethod
    def read(text: str) -> Caption:
        """Raises ValueError for a word that the world does not have (it lists them) and for two where one can be."""
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


def _only(what: str, known: Iterable[str], words: Sequence[str], text: str) -> str | None:
    said = [word for word in known if word in words]
    if len(said) > 1:
        raise ValueError(f"the caption {text!r} says {' and '.join(said)}; expected one {what}")
    return said[0] if said else None


@dataclass(frozen=True)
class Score:
    """How a clip, or a window of one, fares by its caption.

    Shares of its frames in which that is right (0..1):
      one_object: exactly one thing, and that an object.
      colour: of the world's colours the right one is nearest, and within 0.3.
      shape: the right shape fits best, and to an IoU of 0.7 or more.
      background: within 0.1 (mean of the channels) of the right one.
      frames_correct: all of these that are judged, in the same frame.
    direction: right to 45 degrees, and faster than a quarter of "slowly". speed: pace within 1 / sqrt 2 .. sqrt 2,
      where the right one of the two speeds is nearer.
    all_correct: one_object, colour, shape and background in at least 90 % of frames each, direction and speed right;
      of all these, those that are judged.
    iou: mean, with the right shape; 0 where there is no object. background_error: mean absolute distance from the
      right background of all that is not object, 0..1. background_drift: the same between the background's mean
      colours in the first and in the last quarter.
    net_speed: the way from the track's first place to its last, along the right direction and a frame, over the right
      speed; below 0 it goes the wrong way. pace: the mean length of the velocity over pieces of the track, over the
      right speed. Both are 0 where the object is found in less than 3 frames.
    jerk: mean length of the track's second difference, in pixels; None where there are no three frames in a row to
      tell it from.
    frames: how many there are; in less than 3 motion is not judged. motion_frames: in how many the object is found,
      and 0 where motion is not judged.
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
    """Judge frames start .. end - 1 (None: the last) of ``frames`` [T, H, W, 3] in 0..1 by ``caption``.

    To judge several windows of a long video, or several captions, `observe` once and `judge`.
    Raises ValueError for other frames, for words that the world does not have, and for a window outside the clip.
    """
    return judge(observe(frames), caption, start, end)


# What was said --------------------------------------------------------------------------------------------------------


def judge(seen: Observation, caption: str, start: int = 0, end: int | None = None) -> Score:
    """The score of frames start .. end - 1 (None: the last) of what was seen. Raises ValueError as `score` does."""
    end = len(seen) if end is None else end
    if not 0 <= start < end <= len(seen):
        raise ValueError(f"frames {start} .. {end} of a clip of {len(seen)}; expected 0 <= start < end <= {len(seen)}")
    said, seen = Caption.read(caption), seen.window(start, end)
    right = {
        "one_object": (seen.things == 1) & seen.found,
        "colour": _colour_right(seen, said.colour),
        "shape": _shape_right(seen, said.shape),
        "background": None,
    }
    background_error = None
    if said.background is not None:
        errors = seen.backgrounds[:, list(BACKGROUNDS).index(said.background)]
        right["background"] = errors <= _BACKGROUND_REACH
        background_error = float(errors.mean())
    judged = {what: verdict for what, verdict in right.items() if verdict is not None}
    shares = {what: float(verdict.float().mean()) for what, verdict in judged.items()}
    motion = _motion(seen, said)
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
        all_correct=min(shares.values()) >= _MOST and motion.direction is not False and motion.speed is not False,
        iou=None if said.shape is None else float(seen.fits[:, list(SHAPES).index(said.shape)].mean()),
        background_error=background_error,
        background_drift=float(drift.abs().mean()),
        net_speed=motion.net_speed,
        pace=motion.pace,
        jerk=motion.jerk,
    )


def _colour_right(seen: Observation, said: str | None) -> Tensor | None:
    if said is None:
        return None
    nearest = torch.cdist(seen.colour, torch.tensor(list(COLOURS.values()))).min(dim=1)
    return seen.found & (nearest.indices == list(COLOURS).index(said)) & (nearest.values <= _COLOUR_REACH)


def _shape_right(seen: Observation, said: str | None) -> Tensor | None:
    if said is None:
        return None
    best = seen.fits.max(dim=1)
    return seen.found & (best.indices == list(SHAPES).index(said)) & (best.values >= _LEAST_IOU)


@dataclass(frozen=True)
class _Motion:
    """The part of a `Score` that is about motion."""

    frames: int = 0
    direction: bool | None = None
    speed: bool | None = None
    net_speed: float | None = None
    pace: float | None = None
    jerk: float | None = None


def _motion(seen: Observation, said: Caption) -> _Motion:
    if len(seen) < _LEAST_RUN:
        return _Motion()
    times = seen.found.nonzero()[:, 0]
    track = _unwrapped(seen.centre[times] / seen.size)
    heading, length = [0.0, 0.0], 0.0  # in edges a frame
    if len(times) >= _LEAST_RUN:
        heading = ((track[-1] - track[0]) / (times[-1] - times[0])).tolist()
        length = _mean_speed(times, track)
    direction = speed = net = pace = None
    if said.direction is not None:
        way = DIRECTIONS[said.direction]
        along = heading[0] * way[0] + heading[1] * way[1]
        direction = along >= _HALF_SECTOR * math.hypot(*heading) and math.hypot(*heading) > _STILL
        net = along / SPEEDS[said.speed] if said.speed is not None else None
    if said.speed is not None:
        pace = length / SPEEDS[said.speed]
        speed = 1 / _RATIO <= pace <= _RATIO
    return _Motion(len(times), direction, speed, net, pace, _jerk(times, track))


def _unwrapped(places: Tensor) -> Tensor:
    """The track through these places by the shortest ways, in edges: [N, 2]."""
    return torch.cat([places[:1], places[:1] + wrapped(places.diff(dim=0), 1).cumsum(dim=0)])


def _mean_speed(times: Tensor, track: Tensor) -> float:
    """The mean length of the velocity over pieces of the track, each weighted by its length, in edges a frame."""
    pieces = [piece for piece in torch.arange(len(times)).split(_RUN) if len(piece) >= _LEAST_RUN]
    lengths = [len(piece) * _velocity(times[piece], track[piece]) for piece in pieces]
    return sum(lengths) / sum(map(len, pieces))


def _velocity(times: Tensor, track: Tensor) -> float:
    """The length of the slope of the line nearest to the track, in edges a frame."""
    since = (times - times.float().mean())[:, None]
    return float(((since * track).sum(dim=0) / since.square().sum()).norm())


def _jerk(times: Tensor, track: Tensor) -> float | None:
    if len(times) < _LEAST_RUN:
        return None
    in_a_row = times[2:] - times[:-2] == 2
    bends = track.diff(n=2, dim=0).norm(dim=1)[in_a_row]
    return float(bends.mean()) * _EDGE if len(bends) else None


def summarize(scores: Sequence[Score]) -> dict[str, float]:
    """Means over clips, each over those in which it was judged; what none was judged in is left out.

    Beside each, where two or more were judged, ``<name>_se``: its standard error; for what is right or wrong
    also ``<name>_low``: the lower end of Wilson's 95 % interval. ``clips``: how many. Raises ValueError for none.
    """
    if not scores:
        raise ValueError("there are no scores to summarize; score one clip or more")
    summary = {"clips": float(len(scores))}
    for field in fields(Score):
        found = [value for one in scores if (value := getattr(one, field.name)) is not None]
        if not found:
            continue
        mean = sum(found) / len(found)
        summary[field.name] = mean
        if len(found) > 1:
            variance = sum((value - mean) ** 2 for value in found) / (len(found) - 1)
            summary[f"{field.name}_se"] = math.sqrt(variance / len(found))
        if isinstance(found[0], bool):
            summary[f"{field.name}_low"] = _wilson_low(mean, len(found))
    return summary


def _wilson_low(share: float, count: int, z: float = 1.96) -> float:
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, (middle - half) / (1 + z**2 / count))

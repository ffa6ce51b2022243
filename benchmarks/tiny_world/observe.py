"""Measurements on the frames of a clip, from the pixels alone: background, things, colour, place, shape.

As the world wraps around, pixels at opposite edges of a frame are neighbours everywhere in this module.

- background: the median colour of the frame, from a quarter of its pixels; no shape of the world covers a fifth of it.
- things: connected areas that differ from the background by more than 0.15 in some channel and have at least an eighth
  of the area of the world's smallest shape. The object is the largest thing; there is none if that has less than half
  the area of the smallest shape or more than twice that of the largest.
- the object's colour (median), area and centre (each pixel is weighted by its position between background and that
  colour, 0..1), and its intersection over union (IoU) with each of the three shapes, drawn at that centre and area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sf_core.tiny.world import BACKGROUNDS, RADII, SHAPES, coverage, wrapped

_MIN_SIZE = 32  # pixels; at 16 a square of 6 x 6 is a circle as well
_VISIBLE = 0.15  # a pixel that differs more from the background in one channel belongs to a thing
_AREAS = {  # of a shape of radius 1
    "circle": math.pi,
    "square": 2 * SHAPES["square"][0] * sum(SHAPES["square"][1:]),
    "triangle": SHAPES["triangle"][0] * sum(SHAPES["triangle"][1:]),
}
_AREA = (
    RADII[0] ** 2 * min(_AREAS.values()),
    RADII[1] ** 2 * max(_AREAS.values()),
)  # smallest and largest of the world, in areas of a frame


@dataclass(frozen=True)
class Observation:
    """Measurements on each of T frames; lengths are in pixels of these frames.

    Those of the object are zero in frames without one.

    Args:
        size: Height and width of a frame.
        ground: The background's colour [T, 3].
        backgrounds: Mean absolute distance of all pixels outside the object to each of ``BACKGROUNDS`` [T, 3].
        things: Number of things [T].
        found: Whether there is an object [T].
        colour: Of the object [T, 3].
        centre: Of the object, (x, y) [T, 2].
        area: Of the object [T].
        fits: IoU of the object with each of ``SHAPES`` [T, 3].
    """

    size: int
    ground: Tensor
    backgrounds: Tensor
    things: Tensor
    found: Tensor
    colour: Tensor
    centre: Tensor
    area: Tensor
    fits: Tensor

    def __len__(self) -> int:
        return len(self.found)

    def window(self, start: int, end: int) -> Observation:
        """Return the observation of frames start .. end - 1."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Observation(**{name: part if name == "size" else part[start:end] for name, part in parts.items()})


@torch.no_grad()
def observe(frames: Tensor) -> Observation:
    """Measure square frames, [T, H, W, 3] in 0..1.

    Raises:
        ValueError: The frames are something else.
    """
    frames = _checked(frames)
    size = frames.shape[1]
    ground = frames[:, ::2, ::2].flatten(1, 2).median(dim=1).values
    difference = frames - ground[:, None, None]
    things, mask = _things(difference.abs().amax(dim=-1) > _VISIBLE)
    found = mask.any(dim=2).any(dim=1)
    inside = [frame[part] for frame, part in zip(frames, mask, strict=True)]
    colour = torch.stack([pixels.median(dim=0).values if len(pixels) else torch.zeros(3) for pixels in inside])
    share = _share(difference, colour - ground, mask)
    area = share.sum(dim=(1, 2))
    centre = _centre(share)
    return Observation(
        size=size,
        ground=ground,
        backgrounds=_distances(frames, ~mask),
        things=things,
        found=found,
        colour=colour,
        centre=centre,
        area=area,
        fits=_fits(share, centre, area),
    )


def _checked(frames: Tensor) -> Tensor:
    shape = tuple(frames.shape)
    if frames.ndim != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[0] < 1 or shape[1] < _MIN_SIZE:
        raise ValueError(
            f"the frames have shape {list(shape)}; expected [T, H, W, 3] with T from 1 on and H = W from {_MIN_SIZE} on"
        )
    if not frames.is_floating_point():
        raise ValueError(f"the frames are {frames.dtype}; expected floating point in 0..1")
    frames = frames.detach().float().cpu()
    low, high = (float(bound) for bound in torch.aminmax(frames))
    if not (low >= -0.01 and high <= 1.01):  # also NaN
        raise ValueError(f"the frames have values from {low:.3g} to {high:.3g}; expected 0..1")
    return frames


def _things(visible: Tensor) -> tuple[Tensor, Tensor]:
    """Count the things [T], and mark the pixels of the object [T, H, W], among those that are ``visible``."""
    labels = _components(visible.numpy())
    frames, pixels, numbers = len(labels), labels[0].size, int(labels.max()) + 1
    offsets = numbers * np.arange(frames)[:, None, None]
    sizes = np.bincount((labels + offsets).ravel(), minlength=frames * numbers).reshape(frames, numbers)
    sizes[:, 0] = 0
    smallest, largest = (area * pixels for area in _AREA)
    is_object = (sizes.max(axis=1) >= smallest / 2) & (sizes.max(axis=1) <= 2 * largest)
    mask = (labels == sizes.argmax(axis=1)[:, None, None]) & is_object[:, None, None]
    return torch.from_numpy((sizes >= smallest / 8).sum(axis=1)), torch.from_numpy(mask)


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Label connected areas, by pixels that share a side: numbers from 1 on in each frame, and 0 outside.

    Every unbroken run of pixels in a row starts with its own number; runs that touch, in the next row or across the
    frame's edge, take the lowest of their numbers until nothing changes.
    """
    starts = _starts(mask)
    runs = np.cumsum(starts, dtype=np.intp).reshape(mask.shape)
    below = _starts(mask & np.roll(mask, 1, axis=1))  # where two runs touch, once for both
    across = mask[:, :, 0] & mask[:, :, -1]
    one = np.concatenate([runs[below], runs[:, :, 0][across]])
    other = np.concatenate([np.roll(runs, 1, axis=1)[below], runs[:, :, -1][across]])
    least = np.arange(runs.max() + 1)
    while not np.array_equal(least[one], least[other]):
        low, high = np.sort([least[one], least[other]], axis=0)
        np.minimum.at(least, high, low)
        while not np.array_equal(least, further := least[least]):
            least = further
    counts = starts.sum(axis=(1, 2))
    before = np.cumsum(counts) - counts
    return np.where(mask, least[runs] - before[:, None, None], 0)


def _starts(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the first pixel of each unbroken run in a row."""
    starts = mask.copy()
    starts[:, :, 1:] &= ~mask[:, :, :-1]
    return starts


def _share(difference: Tensor, paint: Tensor, mask: Tensor) -> Tensor:
    """Compute the position of each pixel in and next to ``mask`` between background and object, 0..1: [T, H, W]."""
    near = F.max_pool2d(F.pad(mask[:, None].float(), (1,) * 4, "circular"), 3, stride=1)[:, 0]
    length = paint.square().sum(dim=1).clamp(min=_VISIBLE**2)
    along = (difference.flatten(1, 2) @ paint[:, :, None]).view_as(near) / length[:, None, None]
    return along.clamp(0, 1) * near


def _centre(share: Tensor) -> Tensor:
    """Compute the centre of gravity, (x, y) in pixels [T, 2], relative to the circular mean, which is close to it."""
    size = share.shape[1]
    pixels = torch.arange(size) + 0.5
    weights = torch.stack([share.sum(dim=1), share.sum(dim=2)], dim=1)  # [T, 2, size]
    angles = pixels * (2 * math.pi / size)
    near = torch.atan2(weights @ angles.sin(), weights @ angles.cos()) * (size / (2 * math.pi))
    ways = (weights * wrapped(pixels - near[..., None], size)).sum(dim=2) / share.sum(dim=(1, 2)).clamp(min=1)[:, None]
    return (near + ways) % size


def _distances(frames: Tensor, outside: Tensor) -> Tensor:
    """Compute the mean absolute distance of the pixels ``outside`` to each of the world's backgrounds: [T, 3]."""
    weight = outside.flatten(1).float() / outside.sum(dim=(1, 2)).clamp(min=1)[:, None]
    pixels = frames.flatten(1, 2)
    means = [weight[:, None] @ (pixels - torch.tensor(ground)).abs_() for ground in BACKGROUNDS.values()]  # [T, 1, 3]
    return torch.cat(means, dim=1).mean(dim=2)


def _fits(share: Tensor, centre: Tensor, area: Tensor) -> Tensor:
    """Compute the IoU of ``share`` with each of the world's shapes at that centre and area: [T, 3]."""
    size = share.shape[1]
    right, down = wrapped(torch.arange(size) + 0.5 - centre[..., None], size).unbind(dim=1)
    fits = []
    for shape, unit in _AREAS.items():
        radii = (area / unit).sqrt().tolist()
        templates = torch.stack(
            [coverage(shape, right[t][None], down[t][:, None], radius) for t, radius in enumerate(radii)]
        )
        union = torch.maximum(share, templates).sum(dim=(1, 2))
        fits.append(torch.minimum(share, templates).sum(dim=(1, 2)) / union.clamp(min=1))
    return torch.stack(fits, dim=1)

"""What is to be seen in a clip of the world, from the pixels alone: background, things, colour, place, shape.

- background: the median colour of a ring along the frame's edge.
- things: connected areas that differ from the background by more than 0.15 in some channel and are at least an eighth
  of the world's smallest shape; specks do not count. The object is the largest, and no object if it is less than half
  the smallest shape or more than twice the largest.
- the object's colour (median), centre and area (each pixel counts by how far it is from background to that colour,
  0..1), and how well it fits each of the three shapes, drawn at that centre with that area: the intersection over the
  union (IoU).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .world import BACKGROUNDS, RADII, SHAPES, coverage

_LEAST_SIZE = 32  # pixels; at 16 a square of 6 x 6 is a circle as well
_VISIBLE = 0.15  # the difference to the background, in one channel, from which a pixel belongs to a thing
AREAS = {  # of a shape of radius 1
    "circle": math.pi,
    "square": 2 * SHAPES["square"][0] * sum(SHAPES["square"][1:]),
    "triangle": SHAPES["triangle"][0] * sum(SHAPES["triangle"][1:]),
}
_AREA = (RADII[0] ** 2 * min(AREAS.values()), RADII[1] ** 2 * max(AREAS.values()))  # the world's, in frames


@dataclass(frozen=True)
class Observation:
    """What is to be seen in each of T frames; lengths in pixels of the frames themselves.

    backgrounds: mean absolute distance of what is not object to each of ``BACKGROUNDS`` [T, 3]; ground: the
    background's colour [T, 3]. things: how many [T]. Of the object: found [T], colour [T, 3], centre (x, y) [T, 2],
    area [T], fits: IoU with each of ``SHAPES`` [T, 3]; all zero where none is found. size: of a frame.
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
        """Frames start .. end - 1."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Observation(**{name: part if name == "size" else part[start:end] for name, part in parts.items()})


@torch.no_grad()
def observe(frames: Tensor) -> Observation:
    """See the module's text. ``frames``: [T, H, W, 3] in 0..1, square. Raises ValueError for anything else."""
    frames = _checked(frames)
    size = frames.shape[1]
    ground = _ring(frames).median(dim=1).values
    difference = frames - ground[:, None, None]
    things, mask = _things(difference.abs().amax(dim=-1) > _VISIBLE)
    found = mask.any(dim=2).any(dim=1)
    inside = [frame[part] for frame, part in zip(frames, mask, strict=True)]
    colour = torch.stack([pixels.median(dim=0).values if len(pixels) else torch.zeros(3) for pixels in inside])
    share = _share(difference, colour - ground, mask)
    area = share.sum(dim=(1, 2))
    pixels = torch.arange(size) + 0.5
    moments = torch.stack([share.sum(dim=1) @ pixels, share.sum(dim=2) @ pixels], dim=1)
    centre = moments / area.clamp(min=1)[:, None]
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
    if frames.ndim != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[0] < 1 or shape[1] < _LEAST_SIZE:
        raise ValueError(
            f"the frames have shape {list(shape)}; expected [T, H, W, 3] with T from 1 on and "
            f"H = W from {_LEAST_SIZE} on"
        )
    if not frames.is_floating_point():
        raise ValueError(f"the frames are {frames.dtype}; expected floating point in 0..1")
    frames = frames.detach().float().cpu()
    low, high = (float(bound) for bound in torch.aminmax(frames))
    if not (low >= -0.01 and high <= 1.01):  # also NaN
        raise ValueError(f"the frames have values from {low:.3g} to {high:.3g}; expected 0..1")
    return frames


def _ring(frames: Tensor) -> Tensor:
    """The pixels within two of the edge: [T, pixels, 3]. No shape of the world covers half of them."""
    inner = frames[:, 2:-2]
    parts = frames[:, :2], frames[:, -2:], inner[:, :, :2], inner[:, :, -2:]
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def _things(visible: Tensor) -> tuple[Tensor, Tensor]:
    """How many things there are [T], and where the object is [T, H, W], of the pixels that are ``visible``."""
    labels = _components(visible.numpy())
    frames, pixels = len(labels), labels[0].size
    offsets = (pixels + 1) * np.arange(frames)[:, None]
    sizes = np.bincount((labels.reshape(frames, -1) + offsets).ravel(), minlength=frames * (pixels + 1))
    sizes = sizes.reshape(frames, -1)
    sizes[:, 0] = 0
    smallest, largest = (area * pixels for area in _AREA)
    is_object = (sizes.max(axis=1) >= smallest / 2) & (sizes.max(axis=1) <= 2 * largest)
    mask = (labels == sizes.argmax(axis=1)[:, None, None]) & is_object[:, None, None]
    return torch.from_numpy((sizes >= smallest / 8).sum(axis=1)), torch.from_numpy(mask)


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Connected areas, by pixels that share a side: in each frame a number from 1 on for each, and 0 outside.

    Every pixel starts with a number of its own; the largest in an unbroken row goes to all of it, then in a column, and
    so on until nothing changes: a few rounds, as the areas of this world are hardly ever winding.
    """
    pixels = mask[0].size
    labels = np.where(mask, np.arange(1, pixels + 1, dtype=np.int32).reshape(mask.shape[1:]), np.int32(0))
    steps = np.where(mask, np.int32(0), np.int32(pixels + 1))
    levels = {axis: (_rising(steps, axis), np.flip(_rising(np.flip(steps, axis), axis), axis)) for axis in (1, 2)}
    labels = _spread(labels, 2, *levels[2])
    for axis in itertools.cycle((1, 2)):
        before, labels = labels, _spread(labels, axis, *levels[axis])
        if np.array_equal(labels, before):
            break
    return labels


def _rising(steps: npt.NDArray[np.int32], axis: int) -> npt.NDArray[np.int32]:
    """A level that rises by more than any label at every pixel outside: no maximum gets past one."""
    return np.cumsum(steps, axis=axis, dtype=np.int32)


def _spread(
    labels: npt.NDArray[np.int32], axis: int, ahead: npt.NDArray[np.int32], back: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """The largest label of each unbroken run along ``axis``, in all of it; ahead, back: levels that rise that way."""
    labels = np.maximum.accumulate(labels + ahead, axis=axis) - ahead
    return np.flip(np.maximum.accumulate(np.flip(labels + back, axis), axis=axis), axis) - back


def _share(difference: Tensor, paint: Tensor, mask: Tensor) -> Tensor:
    """How far each pixel in and next to ``mask`` is on the way from background to object, 0..1: [T, H, W]."""
    near = F.max_pool2d(mask.float(), 3, stride=1, padding=1)
    length = paint.square().sum(dim=1).clamp(min=_VISIBLE**2)
    along = (difference.flatten(1, 2) @ paint[:, :, None]).view_as(near) / length[:, None, None]
    return along.clamp(0, 1) * near


def _distances(frames: Tensor, outside: Tensor) -> Tensor:
    """Mean absolute distance to each of the world's backgrounds over the pixels that are ``outside``: [T, 3]."""
    weight = outside.flatten(1).float() / outside.sum(dim=(1, 2)).clamp(min=1)[:, None]
    pixels = frames.flatten(1, 2)
    means = [weight[:, None] @ (pixels - torch.tensor(ground)).abs_() for ground in BACKGROUNDS.values()]  # [T, 1, 3]
    return torch.cat(means, dim=1).mean(dim=2)


def _fits(share: Tensor, centre: Tensor, area: Tensor) -> Tensor:
    """IoU of ``share`` with each of the world's shapes at that centre and area: [T, 3]."""
    right, down = (torch.arange(share.shape[1]) + 0.5 - centre[..., None]).unbind(dim=1)
    fits = []
    for shape, unit in AREAS.items():
        radii = (area / unit).sqrt().tolist()
        templates = torch.stack(
            [coverage(shape, right[t][None], down[t][:, None], radius) for t, radius in enumerate(radii)]
        )
        union = torch.maximum(share, templates).sum(dim=(1, 2))
        fits.append(torch.minimum(share, templates).sum(dim=(1, 2)) / union.clamp(min=1))
    return torch.stack(fits, dim=1)

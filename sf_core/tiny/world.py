"""The world that the tiny model learns: one coloured shape that moves over a plain background, as its caption says.

The world wraps around: a shape that leaves a frame at one edge enters at the opposite one, so a caption holds however
long a video is. Lengths are in units of the frame's edge, so that the world looks and moves the same at any size;
figures in pixels are for 64.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import MAX_SEED, noise_key

COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.98, 0.88, 0.10),
    "purple": (0.58, 0.15, 0.75),
    "orange": (1.00, 0.55, 0.05),
}
BACKGROUNDS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "gray": (0.5, 0.5, 0.5)}
# Extent of a shape from its centre, in radii: to either side, up, down. Square and triangle (which points up) are
# sized to look as large as the circle.
SHAPES = {"circle": (1.0, 1.0, 1.0), "square": (0.9, 0.9, 0.9), "triangle": (1.3 * math.sqrt(0.75), 1.3, 0.65)}
DIRECTIONS = {  # right and down, in units of the speed
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
SPEEDS = {"slowly": 1 / 64, "quickly": 2 / 64}  # edges a frame
RADII = (11 / 64, 14 / 64)  # the smallest and the largest, in edges
DROPPED = 0.1  # the probability that a clause of a caption is left out, and that the whole caption is

# Purposes of the random numbers of an address (seed, index)
_SCENE, _CAPTION, _PROMPTS = range(3)


@dataclass(frozen=True)
class Scene:
    """One shape and its motion.

    Args:
        colour: One of ``COLOURS``.
        shape: One of ``SHAPES``.
        direction: One of ``DIRECTIONS``.
        speed: One of ``SPEEDS``.
        background: One of ``BACKGROUNDS``.
        start: Centre in frame 0, (x, y) in pixels from the top left corner.
        radius: In pixels.
        size: Height and width of a frame.

    Raises:
        ValueError: A word is not in the world.
    """

    colour: str
    shape: str
    direction: str
    speed: str
    background: str
    start: tuple[float, float]
    radius: float
    size: int = 64

    def __post_init__(self) -> None:
        for field, words in _CHOICES.items():
            if (word := getattr(self, field)) not in words:
                raise ValueError(f"the world has no {field} {word!r}; it has {', '.join(words)}")

    @property
    def clauses(self) -> tuple[str, str, str]:
        """The clauses of the caption: the shape, its motion, the background."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return (
            f"{article} {self.colour} {self.shape}",
            f"moving {self.direction} {self.speed}",
            f"on a {self.background} background",
        )

    @property
    def caption(self) -> str:
        """The whole caption."""
        return " ".join(self.clauses)

    @property
    def velocity(self) -> tuple[float, float]:
        """Pixels per frame to the right and down."""
        right, down = DIRECTIONS[self.direction]
        speed = SPEEDS[self.speed] * self.size
        return right * speed, down * speed

    def centres(self, frames: int) -> Tensor:
        """Compute the shape's centre in each frame, (x, y) in pixels, 0 <= x, y < size: [T, 2], float64."""
        time = torch.arange(frames, dtype=torch.float64)[:, None]
        start, velocity = (torch.tensor(pair, dtype=torch.float64) for pair in (self.start, self.velocity))
        return (start + velocity * time) % self.size

    def render(self, frames: int) -> Tensor:
        """Render the first ``frames`` frames, [T, H, W, 3] in 0..1, float32, edges smoothed over about a pixel."""
        pixels = torch.arange(self.size, dtype=torch.float64) + 0.5
        offsets = wrapped(pixels - self.centres(frames)[..., None], self.size)
        right, down = offsets.float().unbind(dim=1)  # [T, W], [T, H]
        inside = coverage(self.shape, right[:, None, :], down[:, :, None], self.radius)[..., None]
        return torch.lerp(torch.tensor(BACKGROUNDS[self.background]), torch.tensor(COLOURS[self.colour]), inside)


_CHOICES: dict[str, list[str]] = {  # the fields of a scene that are words
    "colour": list(COLOURS),
    "shape": list(SHAPES),
    "direction": list(DIRECTIONS),
    "speed": list(SPEEDS),
    "background": list(BACKGROUNDS),
}


def wrapped(offset: Tensor, size: float) -> Tensor:
    """Return the shortest equivalent offset in a world of this size, which wraps around: -size/2 <= offset < size/2."""
    return (offset + size / 2) % size - size / 2


def coverage(shape: str, right: Tensor, down: Tensor, radius: float) -> Tensor:
    """Compute the part of each pixel inside the shape, 0..1, from its offsets to the right of and below the centre."""
    if shape == "circle":
        return (radius + 0.5 - torch.hypot(right, down)).clamp(0, 1)
    side, _, below = (reach * radius for reach in SHAPES[shape])
    if shape == "square":
        return (side + 0.5 - right.abs()).clamp(0, 1) * (below + 0.5 - down.abs()).clamp(0, 1)
    slope = right.abs() * math.sqrt(0.75) - down * 0.5  # distance from the centre along a slanting side's normal
    return (below + 0.5 - torch.maximum(slope, down)).clamp(0, 1)


class World:
    """A fixed set of clips; each is rendered on request, and determined by (seed, index).

    Args:
        size: Height and width in pixels.
        frames: Of a clip.
        clips: Number of clips.
        seed: Another seed gives other clips.

    Raises:
        ValueError: The numbers make no clip.
    """

    def __init__(self, size: int = 64, frames: int = 33, clips: int = 1280, seed: int = 0) -> None:
        if size < 16 or frames < 1 or clips < 1:
            raise ValueError(
                f"a world of {clips} clips of {frames} frames of {size} pixels; expected at least 1, 1 and 16"
            )
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
        self.size = size
        self.frames = frames
        self.clips = clips
        self.seed = seed

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Return clip ``index``: its frames [T, H, W, 3] in 0..1 and its caption.

        Some captions lack clauses, so that a model also learns the unconditional distribution, which guidance needs.
        """
        scene = self.scene(index)
        any_clause, *keeps = (draw >= DROPPED for draw in _draws(self.seed, index, _CAPTION, 4))
        clauses = [clause for clause, keep in zip(scene.clauses, keeps, strict=True) if any_clause and keep]
        return scene.render(self.frames), " ".join(clauses)

    def scene(self, index: int) -> Scene:
        """Return the scene of clip ``index``.

        Raises:
            IndexError: There is no such clip.
        """
        if not 0 <= index < self.clips:
            raise IndexError(f"clip {index} of a world of {self.clips}")
        *choices, radius, x, y = _draws(self.seed, index, _SCENE, len(_CHOICES) + 3)
        words = {
            field: options[int(draw * len(options))]
            for (field, options), draw in zip(_CHOICES.items(), choices, strict=True)
        }
        radius = self.size * (RADII[0] + radius * (RADII[1] - RADII[0]))
        side, up, down = (reach * radius for reach in SHAPES[words["shape"]])
        # inside the first frame as a whole; moving along one axis, it never crosses the edges along the other
        start = side + x * (self.size - 2 * side), up + y * (self.size - up - down)
        return Scene(**words, start=start, radius=radius, size=self.size)


def _draws(seed: int, index: int, purpose: int, count: int) -> list[float]:
    """Draw numbers in 0..1, 1 excluded."""
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, index, purpose, 0))
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def prompts(count: int, seed: int) -> list[str]:
    """Draw ``count`` full captions, all different up to the number that exists; fewer are the first of more."""
    words = itertools.product(COLOURS, SHAPES, DIRECTIONS, SPEEDS, BACKGROUNDS)
    captions = [Scene(*choice, (0, 0), 1).caption for choice in words]
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, _PROMPTS, 0))
    order = torch.randperm(len(captions), generator=generator).tolist()
    return [captions[order[number % len(order)]] for number in range(count)]

"""The world that the tiny model learns: one coloured shape that moves over a plain background, as its caption says.

The world has no walls: what leaves a frame at one edge comes in at the opposite one, so a caption holds as long as a
video lasts. It is measured in units of its edge, so that it looks and moves the same at any size; figures in pixels
are for 64.
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
# How far a shape reaches from its centre, in radii: to either side, up, down. Square and triangle (which points up)
# are sized to look as large as the circle.
SHAPES = {"circle": (1.0, 1.0, 1.0), "square": (0.9, 0.9, 0.9), "triangle": (1.3 * math.sqrt(0.75), 1.3, 0.65)}
DIRECTIONS = {  # right and down, in units of the speed
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
SPEEDS = {"slowly": 1 / 64, "quickly": 2 / 64}  # edges a frame
RADII = (11 / 64, 14 / 64)  # the smallest and the largest, in edges
DROPPED = 0.1  # the probability that a clause of a clip's caption is left out, and that all of it is

# What is drawn for an address (seed, index)
_SCENE, _CAPTION, _PROMPTS = range(3)


@dataclass(frozen=True)
class Scene:
    """One shape and how it moves.

    start: its centre in frame 0, (x, y) in pixels from the top left corner. radius: in pixels. size: height and width
    of a frame. Raises ValueError for what is not in the world.
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
        for what, known in _CHOICES.items():
            if (given := getattr(self, what)) not in known:
                raise ValueError(f"the world has no {what} {given!r}; it has {', '.join(known)}")

    @property
    def clauses(self) -> tuple[str, str, str]:
        """What the caption says of the shape, of its motion and of the background."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return (
            f"{article} {self.colour} {self.shape}",
            f"moving {self.direction} {self.speed}",
            f"on a {self.background} background",
        )

    @property
    def caption(self) -> str:
        return " ".join(self.clauses)

    @property
    def velocity(self) -> tuple[float, float]:
        """Pixels a frame to the right and down."""
        right, down = DIRECTIONS[self.direction]
        speed = SPEEDS[self.speed] * self.size
        return right * speed, down * speed

    def centres(self, frames: int) -> Tensor:
        """Where the shape's centre is in each frame, (x, y) in pixels, 0 <= x, y < size: [T, 2], float64."""
        time = torch.arange(frames, dtype=torch.float64)[:, None]
        start, velocity = (torch.tensor(pair, dtype=torch.float64) for pair in (self.start, self.velocity))
        return (start + velocity * time) % self.size

    def render(self, frames: int) -> Tensor:
        """The first ``frames`` frames, [T, H, W, 3] in 0..1, float32, edges smoothed over about a pixel."""
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
    """The shortest way that leads as far in a world of this size, which has no walls: -size / 2 <= way < size / 2."""
    return (offset + size / 2) % size - size / 2


def coverage(shape: str, right: Tensor, down: Tensor, radius: float) -> Tensor:
    """How much of each pixel lies inside the shape, 0..1, given how far it lies right of and below the centre."""
    if shape == "circle":
        return (radius + 0.5 - torch.hypot(right, down)).clamp(0, 1)
    side, _, below = (reach * radius for reach in SHAPES[shape])
    if shape == "square":
        return (side + 0.5 - right.abs()).clamp(0, 1) * (below + 0.5 - down.abs()).clamp(0, 1)
    slope = right.abs() * math.sqrt(0.75) - down * 0.5  # distance from the centre along a slanting side's normal
    return (below + 0.5 - torch.maximum(slope, down)).clamp(0, 1)


class World:
    """A fixed set of clips, each made when it is asked for, from nothing but (seed, index)."""

    def __init__(self, size: int = 64, frames: int = 33, clips: int = 1280, seed: int = 0) -> None:
        """size: height and width in pixels. Raises ValueError for numbers that make no clip."""
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
        """Clip ``index``: its frames [T, H, W, 3] in 0..1 and what is left of its caption.

        Clauses are left out so that a model also learns what is not asked for, as guidance needs it.
        """
        scene = self.scene(index)
        whole, *kept = (draw >= DROPPED for draw in _draws(self.seed, index, _CAPTION, 4))
        clauses = [clause for clause, keep in zip(scene.clauses, kept, strict=True) if whole and keep]
        return scene.render(self.frames), " ".join(clauses)

    def scene(self, index: int) -> Scene:
        """What clip ``index`` shows. Raises IndexError beyond the last clip."""
        if not 0 <= index < self.clips:
            raise IndexError(f"clip {index} of a world of {self.clips}")
        *choices, radius, x, y = _draws(self.seed, index, _SCENE, len(_CHOICES) + 3)
        words = {
            what: known[int(draw * len(known))] for (what, known), draw in zip(_CHOICES.items(), choices, strict=True)
        }
        radius = self.size * (RADII[0] + radius * (RADII[1] - RADII[0]))
        side, up, down = (reach * radius for reach in SHAPES[words["shape"]])
        # whole in the first frame; and as it moves along one axis, it never crosses the edges along the other
        start = side + x * (self.size - 2 * side), up + y * (self.size - up - down)
        return Scene(**words, start=start, radius=radius, size=self.size)


def _draws(seed: int, index: int, what: int, count: int) -> list[float]:
    """Numbers in 0..1, 1 excluded."""
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, index, what, 0))
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def prompts(count: int, seed: int) -> list[str]:
    """``count`` full captions, all different as long as there are that many; fewer are the first of more."""
    words = itertools.product(COLOURS, SHAPES, DIRECTIONS, SPEEDS, BACKGROUNDS)
    everything = [Scene(*those, (0, 0), 1).caption for those in words]
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, _PROMPTS, 0))
    order = torch.randperm(len(everything), generator=generator).tolist()
    return [everything[order[number % len(order)]] for number in range(count)]

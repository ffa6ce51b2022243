"""What the templates image_to_video and extend_video begin with: `python -m tools.assets.boat_picture` draws both.

A drawn sunset over the sea, so that the pack ships no photo and no clip of somebody else.
"""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tools.comfyui.checkout import ROOT

TARGET = ROOT / "workflows" / "input" / "sailing_boat.jpg"
CLIP = TARGET.with_suffix(".mp4")
FRAMES, FPS = 33, 16  # of the clip: 9 latent frames
SPEED = 2.0  # pixels a frame that the boat sails to the right
WIDTH, HEIGHT, SCALE = 832, 480, 2  # drawn larger by SCALE, for smooth edges
HORIZON = 300
SUN = (250, 262)
SKY = ((36, 52, 96), (116, 92, 132), (238, 140, 96), (255, 206, 132))  # from the top to the horizon
SEA = ((226, 132, 96), (98, 86, 122), (28, 42, 78))  # from the horizon to the bottom
QUALITY = 93

Colour = tuple[int, int, int]
Point = tuple[float, float]


def gradient(colours: tuple[Colour, ...], rows: int) -> NDArray[np.float64]:
    """Colours [rows, 1, 3], blended from the first to the last."""
    at, stops = np.linspace(0, len(colours) - 1, rows), np.arange(len(colours))
    channels = [np.interp(at, stops, [colour[channel] for colour in colours]) for channel in range(3)]
    return np.stack(channels, axis=-1)[:, None]


def sky_and_sea(phase: float = 0.0) -> Image.Image:
    """The background: two gradients, the sun and its glow, its reflection in the waves at a phase in radians."""
    height, width = HEIGHT * SCALE, WIDTH * SCALE
    horizon = HORIZON * SCALE
    picture = np.concatenate([gradient(SKY, horizon), gradient(SEA, height - horizon)]).repeat(width, axis=1)
    y, x = np.mgrid[:height, :width] / SCALE
    distance = np.hypot(x - SUN[0], y - SUN[1])
    glow = np.where(y < HORIZON, 120 * np.exp(-distance / 70), 0)
    depth = np.clip((y - HORIZON) / (HEIGHT - HORIZON), 0, 1)
    waves = np.sin(y * (1.9 - 1.3 * depth) + 1.5 * np.sin(x / 37)) * np.sin(x / (9 + 26 * depth) + y / 3 + phase)
    path = np.exp(-(((x - SUN[0]) / (14 + 60 * depth)) ** 2))
    shine = np.where(y >= HORIZON, 150 * path * (waves > 0) + 9 * waves, 0)
    picture += (glow + shine)[..., None] * np.array([1.0, 0.72, 0.42])
    picture[(distance < 24) & (y < HORIZON)] = (255, 244, 214)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def shape(draw: ImageDraw.ImageDraw, points: list[Point], colour: Colour) -> None:
    draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)


def hills(draw: ImageDraw.ImageDraw) -> None:
    """Two dark ridges at the right of the horizon."""
    for first, height, colour in ((430, 58, (96, 76, 112)), (590, 34, (58, 52, 90))):
        ridge = [
            (float(x), HORIZON - height * np.sin(np.pi * (x - first) / 700) * (0.8 + 0.2 * np.sin(x / 31)))
            for x in range(first, WIDTH + 5, 4)
        ]
        shape(draw, [(first, HORIZON), *ridge, (WIDTH + 4, HORIZON)], colour)


def boat(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """A small boat with two sails; (x, y) is the middle of its deck."""
    shape(draw, [(x - 62, y), (x + 72, y - 4), (x + 44, y + 24), (x - 44, y + 24)], (86, 44, 40))
    shape(draw, [(x - 62, y), (x + 72, y - 4), (x + 68, y + 2), (x - 59, y + 6)], (196, 112, 78))
    shape(draw, [(x - 2, y - 152), (x + 2, y - 152), (x + 2, y), (x - 2, y)], (66, 42, 40))
    shape(draw, [(x + 6, y - 148), (x + 66, y - 18), (x + 6, y - 12)], (252, 240, 222))
    shape(draw, [(x - 6, y - 132), (x - 52, y - 16), (x - 6, y - 12)], (232, 206, 190))


def draw(x: float = 420, phase: float = 0.0) -> Image.Image:
    """The boat at ``x`` pixels from the left, as one picture."""
    picture = sky_and_sea(phase)
    pen = ImageDraw.Draw(picture)
    hills(pen)
    reflection = Image.new("RGB", picture.size)
    mask = Image.new("L", picture.size)
    boat(ImageDraw.Draw(reflection), x, 340)
    mask.paste(90, (0, 0, *picture.size), reflection.convert("L").point(lambda value: 255 if value else 0))
    middle = 2 * 364 * SCALE  # rows mirrored at the waterline
    mirror = (1, 0, 0, 0, -1, middle)
    reflection, mask = (image.transform(picture.size, Image.Transform.AFFINE, mirror) for image in (reflection, mask))
    blur = ImageFilter.GaussianBlur(2 * SCALE)
    picture.paste(reflection.filter(blur), (0, 0), mask.filter(blur))
    boat(pen, x, 340)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def write_clip() -> None:
    """The boat sails to the right, and the sea glitters."""
    with av.open(str(CLIP), "w") as video:
        stream = video.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = draw(420 + SPEED * (number - FRAMES + 1), number * np.pi / 10)
            video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())


def main() -> None:
    """Draw the picture and the clip."""
    draw().save(TARGET, quality=QUALITY, subsampling=0, optimize=True)
    write_clip()
    for path in (TARGET, CLIP):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

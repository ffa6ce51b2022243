"""Drift of the embedded model over an hour of video: with a prompt, without one, and without one but matched.

With a prompt, the caption holds every chunk. Without one, nothing but the video's own past says what it shows, so
errors add up: colours and shapes wander. `Session.with_match`, before every chunk or above a threshold, holds them.

Each video is measured chunk by chunk (`DriftMeter`). Of every ``--look``-th chunk the frames are decoded, and the share
of them is counted whose object still has the colour of the first chunks, and how saturated they are. The plot goes to
docs/drift.webp.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sf_core import Session, tiny
from sf_core.session.drift import ANCHOR_CHUNKS, THRESHOLD, saturation_of
from sf_core.session.drift_guard import DriftGuard
from sf_core.session.streaming import history_for
from sf_core.vae.video_vae import VideoVAE

from .measure import Report
from .tiny_world.observe import observe

FPS, FRAMES = 16, 12  # of a chunk
PLOT = Path(__file__).parents[1] / "docs" / "drift.webp"
NEAR = 0.3  # of two colours, the largest distance of a channel: yellow and orange are 0.45 apart
POINTS = 60  # of a line
LOW = 0.3  # a threshold that no chunk with a prompt passes


@dataclass
class Video:
    """A video, and what was measured of it.

    Attributes:
        name: For the plot.
        session: It so far.
        guard: Measures it, and acts.
        drift: Of each chunk.
        right: Of each chunk that was looked at, the share of frames whose object has its first colour.
        saturation: Of each such chunk.
    """

    name: str
    session: Session
    guard: DriftGuard
    drift: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    saturation: list[float] = field(default_factory=list)
    colour: Tensor | None = None

    def extend(self, vae: VideoVAE, look: bool) -> None:
        """Make a chunk and measure it."""
        self.session, latents = self.guard.boundary(self.session).next_chunk()
        self.guard.measure(self.session)
        assert self.guard.newest is not None
        self.drift.append(self.guard.newest.drift)
        if look:
            decoder, at = vae.stream_decoder(), self.session.frames - latents.shape[2]
            self._look(decoder(latents, at=at, history=history_for(decoder, self.session, at)))

    def _look(self, frames: Tensor) -> None:
        seen = observe(frames[0])
        if self.colour is None:
            self.colour = seen.colour[seen.found].median(dim=0).values
        near = seen.found & ((seen.colour - self.colour).abs().amax(dim=1) < NEAR)
        self.right.append(float(near.float().mean()))
        self.saturation.append(saturation_of(frames))


def videos(seed: int) -> Iterator[Video]:
    """The four videos, empty."""
    model, words = tiny.load_transformer(), tiny.load_text()
    prompted = Session.start(model, words.encode(tiny.PROMPT), seed=seed)
    alone = Session.start(model, torch.zeros(1, 1, model.arch.text_dim), seed=seed)
    config = alone.config
    yield Video("with a prompt", prompted, DriftGuard(config))
    yield Video("without a prompt", alone, DriftGuard(config))
    yield Video(f"without, matched above {LOW:g}", alone, DriftGuard(config, "match", LOW))
    yield Video("without, matched before every chunk", alone, DriftGuard(config, "match", 0.0))


def plot(made: list[Video], look: int) -> None:
    """Draw drift, colour and saturation by minute."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    titles = ("drift", "share of frames in the first colour", "saturation")
    for axes, title, name in zip(figure.subplots(3, 1), titles, ("drift", "right", "saturation"), strict=True):
        for video in made:
            values = getattr(video, name)
            size = max(1, len(values) // POINTS)
            means = [mean(values[at : at + size]) for at in range(0, len(values), size)]
            minutes = size * (1 if name == "drift" else look) * FRAMES / FPS / 60
            axes.plot([(place + 0.5) * minutes for place in range(len(means))], means, label=video.name)
        if name == "drift":
            axes.axhline(THRESHOLD, linestyle="--", color="grey", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    axes.set_xlabel("minutes")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    part = PLOT.with_suffix(".png")
    figure.savefig(part, dpi=90)
    Image.open(part).save(PLOT, quality=90)
    part.unlink()


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="length of each video; default: %(default)s")
    parser.add_argument(
        "--look", type=int, default=10, help="chunks between two that are decoded; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report, vae, made = Report("drift", args), tiny.load_vae(), []
    for video in videos(args.seed):
        for chunk in range(round(args.minutes * 60 * FPS / FRAMES)):
            video.extend(vae, look=chunk % args.look == 0 or chunk < ANCHOR_CHUNKS)
        late = len(video.right) // 6
        report.row(f"{video.name}: drift", video.drift[ANCHOR_CHUNKS:], "")
        report.row(f"{video.name}: in the first colour, last sixth", video.right[-late:], "")
        report.row(f"{video.name}: saturation, last sixth", video.saturation[-late:], "")
        made.append(video)
    plot(made, args.look)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

"""How well a VAE of the tiny world rebuilds its frames, and whether its latents or its decoder set the limit.

The first table is of clips of the training length that no training saw. *Edges* are the pixels within two of a change.
*Blur* and *move* are the shares of the squared error that a blur of the whole frame (its Laplacian) and a shift of the
shape explain; the rest are outlines that are wrong in themselves.
The second table says what the latents hold: the precision to which place and radius could be read from one latent
frame at the noise that the VAE was trained with (the Cramer-Rao bound), and the PSNR of frames that are drawn so.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sf_core import tiny
from sf_core.tiny.world import Scene, World
from sf_core.training.losses.autoencoder import encode_moments
from sf_core.vae.loading import load_vae
from sf_core.vae.wan_vae import WanVAE

from .tiny_world.evaluate import frames_of
from .tiny_world.observe import observe
from .tiny_world.scorer import judge, summarize

LENGTH = 9  # latent frames of a clip
SEED = 606  # of scenes that are not those of the training
STEP = 0.1  # pixels of a numeric derivative
LATENT = 4  # the latent frame that is read: the decoder has seen those before it


def decibel(error: Tensor) -> float:
    """Return the PSNR of a mean squared error of frames in 0..1."""
    return float(-10 * error.log10())


def neighbours(scene: Scene, frames: int) -> Tensor:
    """Render the scene a ``STEP`` to the right, left, down, up, larger and smaller: [6, T, H, W, 3]."""
    x, y = scene.start
    moved = [replace(scene, start=(x + way, y)) for way in (STEP, -STEP)]
    moved += [replace(scene, start=(x, y + way)) for way in (STEP, -STEP)]
    moved += [replace(scene, radius=scene.radius + way) for way in (STEP, -STEP)]
    return torch.stack([one.render(frames) for one in moved])


def derivatives(pairs: Tensor) -> Tensor:
    """Return the derivatives by x, y and radius from what `neighbours` gives: [3, ...]."""
    return (pairs[0::2] - pairs[1::2]) / (2 * STEP)


def explained(error: Tensor, causes: list[Tensor]) -> Tensor:
    """Return the squares of ``error`` [T, H, W, 3] that the best mixture of ``causes`` explains, frame by frame."""
    basis = torch.stack([cause.flatten(1) for cause in causes], dim=2).double()
    shared = basis.mT @ error.flatten(1)[..., None].double()
    return (shared * torch.linalg.solve(basis.mT @ basis, shared)).sum()


def near_change(frames: Tensor) -> Tensor:
    """Return which pixels are within two of a change: [T, H, W]."""
    pixels = frames.movedim(-1, 1)
    spread = F.max_pool2d(pixels, 5, 1, 2) + F.max_pool2d(-pixels, 5, 1, 2)
    return spread.amax(dim=1) > 0.02


def laplacian(frames: Tensor) -> Tensor:
    """Return the Laplacian of frames [T, H, W, 3] of a world that wraps around."""
    return sum((frames.roll(step, dims=dim) for dim in (1, 2) for step in (1, -1)), -4 * frames)


def precision(vae: WanVAE, scene: Scene) -> tuple[Tensor, Tensor]:
    """Return the bounds for x, y and radius [3] in pixels, and the squared error of frames that are wrong by them."""
    frames = frames_of(LATENT + 1)
    views = neighbours(scene, frames)
    _, log_variance = encode_moments(vae, scene.render(frames)[None])
    means, _ = encode_moments(vae, views)
    spread = (log_variance[0, :, LATENT] / 2).exp()
    change = (derivatives(means[:, :, LATENT]) / spread).flatten(1)
    bounds = (change @ change.T).inverse().diagonal().sqrt()
    drawn = derivatives(views)[:, -vae.temporal_factor :].square().mean(dim=(1, 2, 3, 4))
    return bounds, (drawn * bounds.square()).sum()


@torch.no_grad()
def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--vae", help="another VAE of the world (.safetensors)")
    given = parser.parse_args()
    vae = tiny.load_vae() if given.vae is None else load_vae(given.vae)
    world = World(frames=frames_of(LENGTH), clips=given.clips, seed=SEED)
    whole, edge, sharp, blur, move, scores, bounds, drawn = [], [], [], [], [], [], [], []
    for scene in map(world.scene, range(len(world))):
        frames = scene.render(world.frames)
        rebuilt = vae.decode(vae.encode(frames[None]))[0]
        error = rebuilt - frames
        pixels, edges = error.square().mean(dim=-1), near_change(frames)
        whole.append(pixels.mean())
        edge.append(pixels[edges])
        sharp.append(pixels[~edges])
        blur.append(explained(error, [laplacian(frames)]) / error.square().sum())
        move.append(explained(error, list(derivatives(neighbours(scene, world.frames))[:2])) / error.square().sum())
        scores.append(judge(observe(rebuilt), scene.caption))
        bound, squares = precision(vae, scene)
        bounds.append(bound)
        drawn.append(squares)
    mean = summarize(scores)
    errors = [decibel(torch.stack(whole).mean()), decibel(torch.cat(edge).mean()), decibel(torch.cat(sharp).mean())]
    cells = [f"{value:.1f} dB" for value in errors] + [f"{torch.stack(part).mean():.2f}" for part in (blur, move)]
    cells += [f"{mean['iou']:.3f}", f"{mean['background_error']:.4f}"]
    print("| PSNR | of edges | elsewhere | blur | move | IoU | background error |\n" + "|---" * 7 + "|")
    print("| " + " | ".join(cells) + " |")
    cells = [f"{value:.3f} px" for value in torch.stack(bounds).mean(dim=0).tolist()]
    print("\n| x | y | radius | PSNR |\n" + "|---" * 4 + "|")
    print("| " + " | ".join([*cells, f"{decibel(torch.stack(drawn).mean()):.1f} dB"]) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Training of a small Wan 2.1 VAE: its first weights, its loss and the scale of its latents.

Example::

    vae = new_vae(dim=8, seed=0)
    AutoencoderLoss().loss(vae, frames, rng=generator).value.backward()  # in each step, with an optimizer
    measure_latents(vae, clips)
    vae.state_dict()  # the format that `sf_core.load_vae` reads
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...noise import noise_key
from ...vae.layers import StreamState, run
from ...vae.loading import load_vae
from ...vae.wan_vae import WanVAE, WanVAEConfig
from .loss import Loss

# First weights ------------------------------------------------------------------------------------------------------

_LOG_VARIANCE = -4.0  # of a new VAE's latents: with much noise the decoder would learn to ignore them


def new_vae(
    dim: int,
    z_dim: int = 16,
    dim_mult: Sequence[int] = (1, 2, 4, 4),
    res_blocks: int = 1,
    temporal_downsample: Sequence[bool] = (False, True, True),
    seed: int = 0,
) -> WanVAE:
    """Build an untrained Wan 2.1 VAE in float32 on the CPU: an image VAE "inflated" to video, as Wan's was.

    At first each frame is processed alone, and frames are dropped or repeated in time, so training on images goes
    far. The latents' mean is 0 and their standard deviation 1 until `measure_latents` sets them.

    Args:
        dim: See `WanVAEConfig`, also for the next four.
        z_dim: Latent channels.
        dim_mult: Factors of the channels.
        res_blocks: Residual blocks per level of the encoder.
        temporal_downsample: Steps that halve the frames.
        seed: Seed of the weights; the same seed gives the same weights.

    Raises:
        ValueError: As `WanVAEConfig`.
    """
    config = WanVAEConfig(dim, z_dim, tuple(dim_mult), res_blocks, tuple(temporal_downsample))
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, 0, 0))
    state = {name: _first_value(name, shape, generator) for name, shape in config.shapes.items()}
    state["conv1.bias"][z_dim:] = _LOG_VARIANCE
    vae = load_vae(state | {"mean": torch.zeros(z_dim), "std": torch.ones(z_dim)})
    vae.requires_grad_(True)
    return vae


def _first_value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    layer, kind = name.rsplit(".", 1)
    if kind == "gamma":
        return torch.ones(shape)
    value = torch.zeros(shape)
    if layer.endswith("time_conv"):
        if kind == "weight":
            # Wan's taps: the encoder keeps the middle frame of three, the decoder repeats the newest
            tap = 1 if layer.startswith("encoder") else 2
            value[:, :, tap, 0, 0] = torch.eye(shape[1]).repeat(shape[0] // shape[1], 1)
        return value
    if kind == "bias":
        # not zero: a gray pixel is zero, and where all channels are zero, the gradient of a norm is infinite
        return _uniform(shape, 0.1, generator)
    newest = value[:, :, -1] if value.ndim == 5 else value
    # variance 1 / inputs; PyTorch's default, a third of that, learns much more slowly
    newest.copy_(_uniform(newest.shape, math.sqrt(3 / newest[0].numel()), generator))
    return value


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 * bound - bound


# Loss ---------------------------------------------------------------------------------------------------------------


def encode_moments(vae: WanVAE, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and log-variances of the latents, before normalisation, with gradient.

    Args:
        vae: The VAE, whose encoder is used.
        frames: [B, T, H, W, 3] in 0..1.

    Returns:
        Two tensors [B, C, F, H, W], float32.

    Raises:
        ValueError: If the VAE cannot encode frames of this shape.
    """
    vae.check_frames(frames)
    pixels = vae.at_weights(vae.fold((frames.float() * 2 - 1).movedim(-1, 1)))
    mean, log_variance = run([*vae.encoder.layers(), vae.conv1], pixels, StreamState()).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)  # the exponential stays finite


def decode_pixels(vae: WanVAE, latents: Tensor) -> Tensor:
    """Decode latents without normalisation to pixels [B, T, H, W, 3], about -1..1 without clamping, with gradient."""
    folded = run([vae.conv2, *vae.decoder.layers()], vae.at_weights(latents), StreamState())
    return vae.unfold(folded).movedim(1, -1).float()


@dataclass(frozen=True)
class AutoencoderLoss:
    """L1 + weighted MSE + 0.5 L1 of the spatial gradients, all on pixels in -1..1, + weighted KL divergence.

    Each term is a mean over elements.

    Attributes:
        kl_weight: Weight of the KL divergence of the latents from a standard normal; it changes no gradient where
            only the decoder is trained.
        mse_weight: Weight of the MSE. The larger it is, the more the few pixels count whose error is large: the edges.
        clipped: A pixel beyond -1..1 is no error where the target is at that end, because a viewer clips it.
    """

    kl_weight: float = 1e-3
    mse_weight: float = 2.0
    clipped: bool = False

    def loss(
        self,
        vae: WanVAE,
        frames: Tensor,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        moments: tuple[Tensor, Tensor] | None = None,
    ) -> Loss:
        """Return the loss of frames that are encoded, sampled and decoded again.

        Args:
            vae: The VAE to train.
            frames: [B, T, H, W, 3] in 0..1.
            noise: Standard normal noise of the latents' shape [B, C, F, H, W]; None draws it from ``rng``.
            rng: CPU generator. Without noise and generator, the latents' means are decoded.
            moments: What `encode_moments` gives for the frames; None computes it, with gradient.

        Returns:
            The loss; its logs are the terms, and ``psnr`` in dB.

        Raises:
            ValueError: If the VAE cannot encode the frames, or the noise has another shape than the latents.
        """
        mean, log_variance = encode_moments(vae, frames) if moments is None else moments
        if noise is None and rng is not None:
            noise = torch.randn(mean.shape, generator=rng)
        latents = mean if noise is None else mean + (log_variance / 2).exp() * _like(mean, noise)
        pixels = decode_pixels(vae, latents)
        target = (frames.float() * 2 - 1).to(pixels.device)
        if self.clipped:
            pixels = torch.where((target.abs() >= 1) & (pixels * target >= 1), target, pixels)
        terms = {
            "l1": F.l1_loss(pixels, target),
            "mse": F.mse_loss(pixels, target),
            "gradient": _step_error(pixels, target, 2) + _step_error(pixels, target, 3),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        value = terms["l1"] + self.mse_weight * terms["mse"] + 0.5 * terms["gradient"]
        value = value + self.kl_weight * terms["kl"]
        logs = {name: term.detach() for name, term in terms.items()}
        return Loss(value, logs | {"psnr": -10 * (logs["mse"] / 4).log10()})


def _step_error(pixels: Tensor, target: Tensor, dim: int) -> Tensor:
    """Return the L1 distance of the differences between neighbouring pixels along ``dim``."""
    return F.l1_loss(pixels.diff(dim=dim), target.diff(dim=dim))


def _like(mean: Tensor, noise: Tensor) -> Tensor:
    if noise.shape != mean.shape:
        raise ValueError(f"noise has the shape {list(noise.shape)}; the latents have {list(mean.shape)}")
    return noise.to(mean)


# Scale of the latents -----------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_latents(vae: WanVAE, clips: Iterable[Tensor]) -> None:
    """Set ``vae.mean`` and ``vae.std`` per channel from the latents of ``clips``, so that `encode` normalises.

    The standard deviation includes the sampling noise that the decoder was trained with. So a channel that carries
    little signal keeps small values, instead of being scaled up to the level of the others.

    Args:
        vae: The VAE, changed in place.
        clips: Batches of frames [B, T, H, W, 3] in 0..1.

    Raises:
        ValueError: If there are no clips, or a channel is not finite; the VAE is unchanged then.
    """
    count, total, squares = 0, torch.zeros_like(vae.mean).double(), torch.zeros_like(vae.mean).double()
    for frames in clips:
        moments = (part.movedim(1, -1).flatten(0, -2).double() for part in encode_moments(vae, frames))
        means, log_variances = moments
        count += len(means)
        total += means.sum(dim=0)
        squares += (means.square() + log_variances.exp()).sum(dim=0)
    if not count:
        raise ValueError("there are no clips to measure latents with; give at least one")
    mean = total / count
    variance = squares / count - mean.square()
    if not bool(variance.isfinite().all()):
        raise ValueError(
            f"the latents of {count} places have variances {[f'{v:.3g}' for v in variance.tolist()]}; each must be "
            "finite. Are the clips, and the VAE's weights?"
        )
    vae.mean.copy_(mean)
    vae.std.copy_(variance.sqrt())

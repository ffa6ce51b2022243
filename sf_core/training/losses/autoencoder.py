"""Training of a small Wan 2.1 VAE: its shapes, its first weights, its loss and the scale of its latents.

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
from ...vae.layers import Memory, run
from ...vae.wan_vae import WanVAE, load_vae
from .loss import Loss

Shape = tuple[int, ...]

# Shapes -------------------------------------------------------------------------------------------------------------


def wan_vae_shapes(
    dim: int,
    z_dim: int = 16,
    dim_mult: Sequence[int] = (1, 2, 4, 4),
    res_blocks: int = 1,
    temporal_downsample: Sequence[bool] = (False, True, True),
) -> dict[str, Shape]:
    """Return the shapes of a Wan 2.1 VAE's weights by their original names.

    The published VAE has ``dim`` 96 and 2 residual blocks.

    Args:
        dim: Channels at full resolution.
        z_dim: Latent channels.
        dim_mult: Factor of the channels at each level; each level has half the height and width of the one before.
        res_blocks: Residual blocks at each level of the encoder; the decoder has one more.
        temporal_downsample: For each step between two levels, whether it also halves the frames.

    Raises:
        ValueError: If ``temporal_downsample`` does not have one entry per step.
    """
    if len(temporal_downsample) != len(dim_mult) - 1:
        raise ValueError(
            f"temporal_downsample has {len(temporal_downsample)} entries; expected {len(dim_mult) - 1}: one for each "
            f"step between the {len(dim_mult)} levels of dim_mult"
        )
    widths = [dim * factor for factor in dim_mult]
    return {
        **_encoder("encoder", dim, widths, 2 * z_dim, res_blocks, temporal_downsample),
        **_conv("conv1", 2 * z_dim, 2 * z_dim, 1, 1, 1),
        **_conv("conv2", z_dim, z_dim, 1, 1, 1),
        **_decoder("decoder", z_dim, widths[::-1], res_blocks + 1, temporal_downsample[::-1]),
    }


def _encoder(
    name: str, dim: int, widths: list[int], outputs: int, res_blocks: int, temporal: Sequence[bool]
) -> dict[str, Shape]:
    shapes = _conv(f"{name}.conv1", 3, dim, 3, 3, 3)
    size, index = dim, 0
    for level, width in enumerate(widths):
        for _ in range(res_blocks):
            shapes |= _residual(f"{name}.downsamples.{index}", size, width)
            size, index = width, index + 1
        if level < len(temporal):
            shapes |= _conv(f"{name}.downsamples.{index}.resample.1", size, size, 3, 3)
            if temporal[level]:
                shapes |= _conv(f"{name}.downsamples.{index}.time_conv", size, size, 3, 1, 1)
            index += 1
    return shapes | _middle(f"{name}.middle", size) | _head(f"{name}.head", size, outputs)


def _decoder(name: str, inputs: int, widths: list[int], res_blocks: int, temporal: Sequence[bool]) -> dict[str, Shape]:
    size, index = widths[0], 0
    shapes = _conv(f"{name}.conv1", inputs, size, 3, 3, 3) | _middle(f"{name}.middle", size)
    for level, width in enumerate(widths):
        for _ in range(res_blocks):
            shapes |= _residual(f"{name}.upsamples.{index}", size, width)
            size, index = width, index + 1
        if level < len(temporal):
            shapes |= _conv(f"{name}.upsamples.{index}.resample.1", size, size // 2, 3, 3)
            if temporal[level]:
                shapes |= _conv(f"{name}.upsamples.{index}.time_conv", size, 2 * size, 3, 1, 1)
            size, index = size // 2, index + 1
    return shapes | _head(f"{name}.head", size, 3)


def _conv(name: str, inputs: int, outputs: int, *kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def _residual(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {
        f"{name}.residual.0.gamma": (inputs, 1, 1, 1),
        **_conv(f"{name}.residual.2", inputs, outputs, 3, 3, 3),
        f"{name}.residual.3.gamma": (outputs, 1, 1, 1),
        **_conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3),
        **(_conv(f"{name}.shortcut", inputs, outputs, 1, 1, 1) if inputs != outputs else {}),
    }


def _middle(name: str, size: int) -> dict[str, Shape]:
    return {
        **_residual(f"{name}.0", size, size),
        f"{name}.1.norm.gamma": (size, 1, 1),
        **_conv(f"{name}.1.to_qkv", size, 3 * size, 1, 1),
        **_conv(f"{name}.1.proj", size, size, 1, 1),
        **_residual(f"{name}.2", size, size),
    }


def _head(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.0.gamma": (inputs, 1, 1, 1), **_conv(f"{name}.2", inputs, outputs, 3, 3, 3)}


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
        dim: See `wan_vae_shapes`, also for the next four.
        z_dim: Latent channels.
        dim_mult: Factors of the channels.
        res_blocks: Residual blocks per level of the encoder.
        temporal_downsample: Steps that halve the frames.
        seed: Seed of the weights; the same seed gives the same weights.

    Raises:
        ValueError: As `wan_vae_shapes`.
    """
    shapes = wan_vae_shapes(dim, z_dim, dim_mult, res_blocks, temporal_downsample)
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, 0, 0))
    state = {name: _first_value(name, shape, generator) for name, shape in shapes.items()}
    state["conv1.bias"][z_dim:] = _LOG_VARIANCE
    vae = load_vae(state | {"mean": torch.zeros(z_dim), "std": torch.ones(z_dim)})
    vae.requires_grad_(True)
    return vae


def _first_value(name: str, shape: Shape, generator: torch.Generator) -> Tensor:
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


def _uniform(shape: Shape, bound: float, generator: torch.Generator) -> Tensor:
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
    pixels = vae.at_weights((frames.float() * 2 - 1).movedim(-1, 1))
    mean, log_variance = run([*vae.encoder.layers(), vae.conv1], pixels, Memory()).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)  # the exponential stays finite


def decode_pixels(vae: WanVAE, latents: Tensor) -> Tensor:
    """Decode latents without normalisation to pixels [B, T, H, W, 3], about -1..1 without clamping, with gradient."""
    return run([vae.conv2, *vae.decoder.layers()], vae.at_weights(latents), Memory()).movedim(1, -1).float()


@dataclass(frozen=True)
class AutoencoderLoss:
    """L1 + 2 MSE + 0.5 L1 of the spatial gradients, all on pixels in -1..1, + ``kl_weight`` times the KL divergence.

    Each term is a mean over elements.

    Attributes:
        kl_weight: Weight of the KL divergence of the latents from a standard normal; it changes no gradient where
            only the decoder is trained.
    """

    kl_weight: float = 1e-3

    def loss(
        self, vae: WanVAE, frames: Tensor, noise: Tensor | None = None, rng: torch.Generator | None = None
    ) -> Loss:
        """Return the loss of frames that are encoded, sampled and decoded again.

        Args:
            vae: The VAE to train.
            frames: [B, T, H, W, 3] in 0..1.
            noise: Standard normal noise of the latents' shape [B, C, F, H, W]; None draws it from ``rng``.
            rng: CPU generator. Without noise and generator, the latents' means are decoded.

        Returns:
            The loss; its logs are the terms, and ``psnr`` in dB.

        Raises:
            ValueError: If the VAE cannot encode the frames, or the noise has another shape than the latents.
        """
        mean, log_variance = encode_moments(vae, frames)
        if noise is None and rng is not None:
            noise = torch.randn(mean.shape, generator=rng)
        latents = mean if noise is None else mean + (log_variance / 2).exp() * _like(mean, noise)
        pixels = decode_pixels(vae, latents)
        target = (frames.float() * 2 - 1).to(pixels.device)
        terms = {
            "l1": F.l1_loss(pixels, target),
            "mse": F.mse_loss(pixels, target),
            "gradient": _step_error(pixels, target, 2) + _step_error(pixels, target, 3),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        value = terms["l1"] + 2 * terms["mse"] + 0.5 * terms["gradient"] + self.kl_weight * terms["kl"]
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

"""Training of a small Wan 2.1 VAE: its shapes, its first weights, its loss and the scale of its latents.

vae = new_vae(dim=8, seed=0)
AutoencoderLoss().loss(vae, frames, rng=generator).value.backward()   # and so on
measure_latents(vae, clips)
vae.state_dict()                                                      # what `sf_core.load_vae` reads
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
    """The shapes of a Wan 2.1 VAE's weights by their original names; Wan's own has dim 96 and 2 residual blocks.

    dim: channels at full resolution; dim_mult: times as many at each level, the next of half the height and width.
    res_blocks: at each level of the encoder; the decoder has one more. temporal_downsample: whether the step from a
    level to the next also halves the frames. Raises ValueError for steps that do not go with the levels.
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

_LOG_VARIANCE = -4.0  # of a new VAE's latents: little noise, or the decoder learns to ignore them


def new_vae(
    dim: int,
    z_dim: int = 16,
    dim_mult: Sequence[int] = (1, 2, 4, 4),
    res_blocks: int = 1,
    temporal_downsample: Sequence[bool] = (False, True, True),
    seed: int = 0,
) -> WanVAE:
    """A Wan 2.1 VAE to be trained, on the CPU in float32: an image VAE that is "inflated" to video, as Wan's was.

    Each frame passes by itself and frames are dropped or repeated in time, so that images alone train it a long way.
    The same ``seed`` gives the same weights. Latents have mean 0 and standard deviation 1 until `measure_latents`.
    Sizes and errors are those of `wan_vae_shapes`.
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
        # not zero: a gray pixel is, and where all channels are zero, the gradient of a norm is infinite
        return _uniform(shape, 0.1, generator)
    newest = value[:, :, -1] if value.ndim == 5 else value
    # variance 1 / inputs: a third of that, PyTorch's default, learns much more slowly
    newest.copy_(_uniform(newest.shape, math.sqrt(3 / newest[0].numel()), generator))
    return value


def _uniform(shape: Shape, bound: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 * bound - bound


# Loss ---------------------------------------------------------------------------------------------------------------


def encode_moments(vae: WanVAE, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log-variances of the latents of ``frames``, not normalised: each [B, C, F, H, W], with gradient.

    frames: [B, T, H, W, 3] in 0..1. Raises ValueError for frames that cannot be encoded.
    """
    vae.check_frames(frames)
    pixels = vae.at_weights((frames.float() * 2 - 1).movedim(-1, 1))
    mean, log_variance = run([*vae.encoder.layers(), vae.conv1], pixels, Memory()).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)  # whose exponential is finite


def decode_pixels(vae: WanVAE, latents: Tensor) -> Tensor:
    """Pixels [B, T, H, W, 3], about -1..1 and not cut there, of latents that are not normalised; with gradient."""
    return run([vae.conv2, *vae.decoder.layers()], vae.at_weights(latents), Memory()).movedim(1, -1).float()


@dataclass(frozen=True)
class AutoencoderLoss:
    """L1 + 2 MSE + 0.5 L1 of the gradients in space, all on pixels in -1..1, + ``kl_weight`` times the KL divergence.

    Each is a mean over elements. Where only the decoder is trained, ``kl_weight`` changes no gradient.
    """

    kl_weight: float = 1e-3

    def loss(
        self, vae: WanVAE, frames: Tensor, noise: Tensor | None = None, rng: torch.Generator | None = None
    ) -> Loss:
        """The loss of ``frames`` [B, T, H, W, 3] in 0..1, encoded, sampled and decoded again.

        noise: standard normal, of the latents' shape [B, C, F, H, W]. Without it, it is drawn from ``rng``, a CPU
        generator; without either, the latents' means are decoded. Logs: each part, and ``psnr`` in dB.
        Raises ValueError for frames that cannot be encoded, and for noise of another shape.
        """
        mean, log_variance = encode_moments(vae, frames)
        if noise is None and rng is not None:
            noise = torch.randn(mean.shape, generator=rng)
        latents = mean if noise is None else mean + (log_variance / 2).exp() * _like(mean, noise)
        pixels = decode_pixels(vae, latents)
        target = (frames.float() * 2 - 1).to(pixels.device)
        parts = {
            "l1": F.l1_loss(pixels, target),
            "mse": F.mse_loss(pixels, target),
            "gradient": _step_error(pixels, target, 2) + _step_error(pixels, target, 3),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        value = parts["l1"] + 2 * parts["mse"] + 0.5 * parts["gradient"] + self.kl_weight * parts["kl"]
        logs = {name: part.detach() for name, part in parts.items()}
        return Loss(value, logs | {"psnr": -10 * (logs["mse"] / 4).log10()})


def _step_error(pixels: Tensor, target: Tensor, dim: int) -> Tensor:
    """L1 between the steps from each pixel to the next along ``dim``."""
    return F.l1_loss(pixels.diff(dim=dim), target.diff(dim=dim))


def _like(mean: Tensor, noise: Tensor) -> Tensor:
    if noise.shape != mean.shape:
        raise ValueError(f"noise has the shape {list(noise.shape)}; the latents have {list(mean.shape)}")
    return noise.to(mean)


# Scale of the latents -----------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_latents(vae: WanVAE, clips: Iterable[Tensor]) -> None:
    """Set ``vae.mean`` and ``vae.std`` to those of the latents of ``clips``, per channel, so that `encode` normalises.

    The spread is that of the latents as the decoder was trained on them, noise included: a channel that says little,
    all noise to the decoder, stays small instead of being blown up to as much as the others.
    clips: frames [B, T, H, W, 3] in 0..1 each. Raises ValueError if there are none, or if a channel is not finite; the
    VAE is then as it was.
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

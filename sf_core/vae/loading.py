"""Loading of the Wan VAEs: `load_vae`."""

from __future__ import annotations

import torch

from ..files.checkpoint import Source
from .video_vae import Shapes, load_into, vae_weights
from .wan22_vae import WAN22_MEAN, WAN22_STD, Wan22VAE, Wan22VAEConfig
from .wan_vae import WAN_MEAN, WAN_STD, WanVAE, WanVAEConfig


def load_vae(source: Source, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> WanVAE:
    """Load a Wan VAE in Wan's original names: that of Wan 2.1, or that of Wan 2.2's 5B model.

    Args:
        source: A .safetensors, .pt or .pth file, or a state dict. Kind and sizes are detected from its names and
            shapes. Its tensors ``mean`` and ``std``, if it has them, replace Wan's normalisation of the latents.
        device: Device of the weights.
        dtype: Of the weights, and of the computation.

    Raises:
        ValueError: The source is no such VAE; the message says what it is instead.
    """
    weights = vae_weights(source, "decoder.conv1.weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    newer = any(name.startswith("decoder.upsamples.0.upsamples.") for name in shapes)
    kind, mean, std = ("Wan 2.2", WAN22_MEAN, WAN22_STD) if newer else ("Wan 2.1", WAN_MEAN, WAN_STD)
    _check_is_wan(shapes, kind)
    try:
        with torch.device("meta"):
            vae = Wan22VAE(Wan22VAEConfig.of(shapes)) if newer else WanVAE(WanVAEConfig.of(shapes))
    except (ArithmeticError, RuntimeError) as error:
        raise ValueError(f"no Wan VAE has weights of such shapes ({error})") from error
    if "mean" not in weights and "std" not in weights:
        if vae.channels != len(mean):
            raise ValueError(
                f"this VAE has {vae.channels} latent channels, {kind}'s {len(mean)}; for another the weights must "
                "hold its normalisation, as tensors mean and std"
            )
        weights |= {"mean": torch.tensor(mean), "std": torch.tensor(std)}
    load_into(vae, weights, device, dtype, f"a whole {kind} VAE")
    return vae


def _check_is_wan(shapes: Shapes, kind: str) -> None:
    sample = ", ".join(sorted(shapes)[:3]) or "nothing"
    if "decoder.conv_in.weight" in shapes or "decoder.mid_block.resnets.0.conv1.weight" in shapes:
        raise ValueError(
            "these are weights in the names of diffusers (AutoencoderKLWan, or another of its VAEs); give the file in "
            "Wan's original names: Wan2.1_VAE.pth or Wan2.2_VAE.pth, or ComfyUI's wan_2.1_vae.safetensors or "
            "wan2.2_vae.safetensors"
        )
    for name in ("decoder.conv1", "decoder.head.2", "encoder.conv1", "encoder.head.2", "conv1", "conv2"):
        shape = shapes.get(f"{name}.weight")
        if shape is None or len(shape) != 5:
            detail = f"it has {sample} ..." if shape is None else f"it has the shape {list(shape)}"
            raise ValueError(f"this is not a {kind} VAE: it has no 3-D convolution {name}.weight ({detail})")

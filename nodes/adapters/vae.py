"""ComfyUI's VAE as a decoder of `sf_core`: its weights, in our network, which decodes chunk by chunk."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ...sf_core.cancellation import Cancellation
from ...sf_core.vae.layers import StreamState
from ...sf_core.vae.loading import load_vae
from ...sf_core.vae.taehv import load_taehv
from ...sf_core.vae.video_vae import VideoVAE
from ...sf_core.vae.wan_vae import WAN_MEAN, WAN_STD
from . import host
from .model import HostedWan


class _CancellableState(StreamState):
    """Polls a cancellation at every layer. Each network has a subclass, with the cancellation of the run it is in."""

    cancellation: Cancellation

    def prepend(self, layer: nn.Module, x: Tensor, frames: int) -> Tensor:
        self.cancellation.raise_if_asked()
        return super().prepend(layer, x, frames)


class _InVaeSpace(VideoVAE):
    """A TAEHV that was trained on the VAE's latents, not on the normalised ones of the transformer (lighttaew2_1)."""

    mean: Tensor
    std: Tensor

    def __init__(self, inner: VideoVAE) -> None:
        super().__init__()
        self.inner = inner
        self.channels, self.history, self.lookahead = inner.channels, inner.history, inner.lookahead
        self.spatial_factor, self.temporal_factor = inner.spatial_factor, inner.temporal_factor
        self.register_buffer("mean", torch.tensor(WAN_MEAN).view(-1, 1, 1, 1))
        self.register_buffer("std", torch.tensor(WAN_STD).view(-1, 1, 1, 1))

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        z = latents * self.std.to(latents) + self.mean.to(latents)
        return self.inner.decode_next(z, state)

    @property
    def has_encoder(self) -> bool:
        return self.inner.has_encoder

    def encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        z = self.inner.encode_next(frames, state)
        return (z - self.mean.to(z)) / self.std.to(z)


def open_vae(vae: Any, cancellation: Cancellation | None = None) -> VideoVAE:
    """Return our network with the weights of a core VAE. Its copy of the weights is freed with its last user.

    Args:
        vae: Wan 2.1's or Wan 2.2's VAE, a TAEHV, or the tiny demo's.
        cancellation: Polled at every layer from now on. None: ComfyUI's Cancel button.

    Raises:
        ValueError: The VAE belongs to another model.
    """
    net = getattr(vae, "first_stage_model", None)
    if net is None:
        raise ValueError("this VAE is empty; load Wan 2.1's (wan_2.1_vae) or Wan 2.2's (wan2.2_vae) with Load VAE")
    reference = getattr(net, "_sf_vae", None)
    ours: VideoVAE | None = reference() if reference else None
    if ours is None:
        with host.normal_tensors():
            ours = _with_weights(net, vae.device, vae.vae_dtype)
        ours.state_type = type("CancellableState", (_CancellableState,), {})
        net._sf_vae = weakref.ref(ours)
    assert issubclass(ours.state_type, _CancellableState)
    ours.state_type.cancellation = cancellation or host.HostCancellation()
    return ours


def _with_weights(net: nn.Module, device: torch.device, dtype: torch.dtype) -> VideoVAE:
    state = net.state_dict()
    try:
        if "decoder.3.conv.0.weight" not in state:
            return load_vae(state, device, dtype)
        small = load_taehv(state, device, dtype)
    except ValueError as error:
        raise ValueError(
            f"the VAE does not fit: {error}. Load Wan's VAE (wan_2.1_vae or wan2.2_vae), or a TAEHV"
        ) from error
    # the two kinds of TAEHV differ in dtype only; ComfyUI detects the kind by it, and sets latent_format for one
    return small if getattr(net, "latent_format", None) is not None else _InVaeSpace(small).to(device)


def check_fits(vae: VideoVAE, wan: HostedWan) -> None:
    """Raise ValueError unless ``vae`` decodes the latents of the model."""
    channels = wan.arch.in_dim
    if vae.channels != channels:
        raise ValueError(
            f"this VAE decodes latents of {vae.channels} channels and the model makes {channels}: it belongs to "
            "another model. Wire in the VAE that belongs to this one"
        )
    if not torch.allclose(_mean(vae), wan.latents_mean, rtol=0, atol=0.02):
        raise ValueError(
            "this VAE normalises latents as the model does not: it belongs to another model. The three of Load Tiny "
            "Demo go together, as do those of Wan 2.1"
        )


def _mean(vae: VideoVAE) -> Tensor:
    """Return the mean of the latents by channel. A TAEHV stores none; its latents are Wan's."""
    mean = getattr(vae, "mean", None)
    return torch.tensor(WAN_MEAN) if mean is None else mean.flatten().float().cpu()

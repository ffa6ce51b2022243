"""Memory needs of a session, as sentences that a user can act on."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...sf_core.byte_units import format_bytes
from ...sf_core.config import RolloutConfig
from ...sf_core.session.session import Session
from . import host
from .model import comfy_model


def memory_in_words(session: Session, extra_bytes: int = 0) -> str:
    """Compare cache, weights, activations and ``extra_bytes`` (of a decoder) with the memory of the device."""
    wan, window = comfy_model(session), session.config.window_frames
    cache, weights, work = wan.session_bytes(session), wan.weight_bytes(), wan.working_bytes(session)
    reach = f"at window {window}" if window else f"with {session.frames} frames and no window"
    parts = [
        f"cache {format_bytes(cache)} {reach}",
        f"weights {format_bytes(weights)}",
        f"a chunk {format_bytes(work)}",
    ]
    parts += [f"decoder {format_bytes(extra_bytes)}"] if extra_bytes else []
    total = host.total_memory(wan.device)
    takes, of_device = ", ".join(parts), f"the {format_bytes(total)} of your {device_name(wan.device)}"
    if cache + weights + work + extra_bytes <= total:
        return f"Fits {of_device}: {takes}"
    return f"Too much for {of_device}: {takes}. {what_would_fit(session, total - work - extra_bytes)}"


def device_name(device: torch.device) -> str:
    """Return "GPU" or "CPU", as people write it."""
    return "CPU" if device.type == "cpu" else "GPU"


def what_would_fit(session: Session, room: int) -> str:
    """Name the one setting that brings the cache down to ``room`` bytes, with the weights offloaded."""
    wan, config = comfy_model(session), session.config
    least = config.chunk_frames + config.sink_frames
    for window in range((config.window_frames or session.frames + least) - 1, least - 1, -1):
        smaller = _with_window(config, window)
        nbytes = 0 if smaller is None else wan.cache_bytes(smaller, session.latent_size, session.batch)
        if smaller is not None and nbytes <= room:
            return (
                f"A window of {window} latent frames would fit: its cache is {format_bytes(nbytes)} (Rollout Settings)"
            )
    rows, columns = (size * wan.spatial_factor for size in session.latent_size)
    return f"No window fits at {columns} x {rows}: make the video smaller (Self Forcing Session)"


def _with_window(config: RolloutConfig, window: int) -> RolloutConfig | None:
    try:
        return replace(config, window_frames=window)
    except ValueError:
        return None

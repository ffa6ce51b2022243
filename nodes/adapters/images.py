"""Scaling and JPEG compression of IMAGE tensors."""

from __future__ import annotations

import io

import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...sf_core.files.clips import CROP
from ...sf_core.files.pixels import to_bytes


def fit_pictures(images: Tensor, width: int, height: int, fit: str = CROP) -> Tensor:
    """Scale IMAGE [T, H, W, C] to ``width`` x ``height`` pixels, in three channels.

    ``crop`` fills them, cropped at the centre; ``pad`` shows all of each picture, between black edges. Grey pictures
    (of one channel, or two with alpha) become grey ones of three; alpha is dropped. What is darker than black or
    brighter than white is cut off.

    Raises:
        ValueError: A picture holds NaN or Inf.
    """
    if not torch.isfinite(images).all():
        raise ValueError("the images hold NaN or Inf: check the node that made them, such as a VAE Decode in fp16")
    images = images[..., :3] if images.shape[-1] > 2 else images[..., :1].expand(-1, -1, -1, 3)
    images = images.clamp(0, 1)
    if images.shape[1:3] == (height, width):
        return images
    channels_first = images.movedim(-1, 1)
    if fit == CROP:
        return comfy.utils.common_upscale(channels_first, width, height, "lanczos", "center").movedim(1, -1)
    scale = min(width / images.shape[2], height / images.shape[1])
    inside = max(1, round(images.shape[2] * scale)), max(1, round(images.shape[1] * scale))
    whole = comfy.utils.common_upscale(channels_first, *inside, "lanczos", "disabled").movedim(1, -1)
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    edges = (0, 0, left, width - inside[0] - left, top, height - inside[1] - top)
    return torch.nn.functional.pad(whole, edges)


def jpegs_of(frames: Tensor, longest_edge: int, quality: int = 80) -> list[bytes]:
    """Compress frames [T, H, W, 3], float in 0..1 or 8-bit, reduced to at most ``longest_edge`` pixels."""
    return [_jpeg(Image.fromarray(one), longest_edge, quality) for one in to_bytes(frames).numpy()]


def _jpeg(picture: Image.Image, longest_edge: int, quality: int) -> bytes:
    picture.thumbnail((longest_edge, longest_edge))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

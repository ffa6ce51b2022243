"""Scaling and JPEG compression of IMAGE tensors."""

from __future__ import annotations

import io

import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...sf_core.files.pixels import to_bytes


def fit_pictures(images: Tensor, width: int, height: int) -> Tensor:
    """Scale IMAGE [T, H, W, C] to fill ``width`` x ``height`` pixels, cropped at the centre, in three channels.

    Grey pictures (of one channel, or two with alpha) become grey ones of three; alpha is dropped. What is darker than
    black or brighter than white is cut off.

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
    return comfy.utils.common_upscale(channels_first, width, height, "lanczos", "center").movedim(1, -1)


def jpegs_of(frames: Tensor, longest_edge: int, quality: int = 80) -> list[bytes]:
    """Compress frames [T, H, W, 3], float in 0..1 or 8-bit, reduced to at most ``longest_edge`` pixels."""
    return [_jpeg(Image.fromarray(one), longest_edge, quality) for one in to_bytes(frames).numpy()]


def _jpeg(picture: Image.Image, longest_edge: int, quality: int) -> bytes:
    picture.thumbnail((longest_edge, longest_edge))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

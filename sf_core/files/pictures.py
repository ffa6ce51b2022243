"""The reader of picture files: as ComfyUI's Load Image shows them, upright and in 8-bit RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_WHITES = (1.0, 255.0, 65535.0)  # what white is in files of numbers: floats, 8 bits, 16 bits
_HIGHLIGHT = 16.0  # floats up to it are brighter than a white of 1; of 255 they would be black


def read_picture(path: Path) -> Image.Image:
    """Read a picture: turned upright by its EXIF orientation, in RGB, without its alpha channel.

    The first picture of an animation is read. Grey values of more than 8 bits are scaled to 8.

    Raises:
        ValueError: The file is no picture, is damaged, or is too large; the message names it.
        OSError: The file cannot be read.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a picture in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about large pictures and odd metadata
            with Image.open(path) as picture:
                return _in_rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read; expected PNG, JPEG, WebP or the like") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"{path} has more than {limit:,} pixels: scale the picture down first") from error
    except Exception as error:  # damaged bytes can make a decoder fail in any way
        if isinstance(error, OSError) and error.errno is not None:  # the disk's errors name the file
            raise
        raise ValueError(f"{path} is a damaged picture, or one of an unusual kind: {error}") from error


def _in_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow would clip these to 8 bits
        return _scaled(np.asarray(picture).astype(np.float64), picture.mode).convert("RGB")
    return picture.convert("RGB")


def _scaled(grey: np.ndarray, mode: str) -> Image.Image:
    """Scale numbers [H, W] so that white is 255: the smallest usual white that is not below the brightest pixel.

    Floats may be somewhat brighter than a white of 1; that is cut off.
    """
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(grey.max(initial=0.0))
    whites = _WHITES if mode == "F" else _WHITES[2:]
    white = next((white for white in whites if white >= brightest), brightest)
    white = whites[0] if mode == "F" and brightest <= _HIGHLIGHT else white
    return Image.fromarray((grey.clip(0, white) * (255 / white)).round().astype(np.uint8))

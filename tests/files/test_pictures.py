"""Every picture that people have is read as ComfyUI's Load Image shows it, or refused in a sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sf_core.files.pictures import read_picture


def scene() -> Image.Image:
    """A red square at the top left of a black ground, 96 x 64."""
    picture = Image.new("RGB", (96, 64))
    ImageDraw.Draw(picture).rectangle([15, 6, 36, 27], fill=(255, 0, 0))
    return picture


def ramp(dtype: type, white: float) -> Image.Image:
    """Grey from black to white, left to right."""
    return Image.fromarray((np.linspace(0, white, 64)[None].repeat(8, 0)).astype(dtype))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phones_picture_is_upright(orientation: int, tmp_path: Path) -> None:
    turns = Image.Transpose
    stored_as = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270,
    }  # fmt: skip
    stored = scene().transpose(stored_as[orientation]) if orientation > 1 else scene()
    facts = Image.Exif()
    facts[0x0112] = orientation
    stored.save(tmp_path / "p.jpg", exif=facts, quality=95)
    found = np.asarray(read_picture(tmp_path / "p.jpg")).astype(int)
    assert found.shape == (64, 96, 3)
    assert np.abs(found - np.asarray(scene())).mean() < 2


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("8 bits.png", lambda: ramp(np.uint8, 255)),
        ("16 bits.png", lambda: ramp(np.uint16, 65535)),
        ("16 bits.tiff", lambda: ramp(np.uint16, 65535)),
        ("32 bits.tiff", lambda: ramp(np.int32, 65535)),
        ("all 32 bits.tiff", lambda: ramp(np.int32, 2**31 - 1000)),
        ("float.tiff", lambda: ramp(np.float32, 1)),
        ("float to 255.tiff", lambda: ramp(np.float32, 255)),
    ],
)
def test_grey_of_any_depth_goes_from_black_to_white(
    name: str, picture: Callable[[], Image.Image], tmp_path: Path
) -> None:
    picture().save(tmp_path / name)
    found = np.asarray(read_picture(tmp_path / name)).astype(int)
    assert np.abs(found - np.linspace(0, 255, 64)[None, :, None]).max() <= 1


@pytest.mark.parametrize("highlight", [1.2, 16.0])
def test_a_highlight_brighter_than_white_does_not_darken_the_rest(highlight: float, tmp_path: Path) -> None:
    numbers = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(4, axis=0)
    numbers[0, 0] = highlight
    Image.fromarray(numbers).save(tmp_path / "p.tiff")
    found = np.asarray(read_picture(tmp_path / "p.tiff")).astype(int)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[1:] - np.linspace(0, 255, 64)[None, :, None]).max() <= 1


def test_numbers_that_are_none_are_black(tmp_path: Path) -> None:
    Image.fromarray(np.array([[np.nan, np.inf, -1, 1]], np.float32)).save(tmp_path / "p.tiff")
    assert np.asarray(read_picture(tmp_path / "p.tiff"))[0, :, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("name", ["rgba.png", "palette.png", "transparent palette.png", "cmyk.jpg", "la.png"])
def test_other_modes_show_their_colours_with_alpha_dropped(name: str, tmp_path: Path) -> None:
    mode = name.partition(".")[0]
    kinds: dict[str, Callable[[Image.Image], Image.Image]] = {
        "rgba": lambda p: Image.merge("RGBA", (*p.split(), Image.new("L", p.size, 0))),
        "palette": lambda p: p.quantize(4),
        "transparent palette": lambda p: p.quantize(4),
        "cmyk": lambda p: p.convert("CMYK"),
        "la": lambda p: p.convert("LA"),
    }
    picture = kinds[mode](scene())
    if mode == "transparent palette":
        picture.info["transparency"] = 0
    picture.save(tmp_path / name)
    expected = scene().convert("L").convert("RGB") if mode == "la" else scene()
    found = np.asarray(read_picture(tmp_path / name)).astype(int)
    assert np.abs(found - np.asarray(expected)).mean() < 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) * 2 // 3], "is a damaged picture"),
        (lambda data: b"not a picture", "is not a picture that can be read"),
        (lambda data: b"", "is not a picture that can be read"),
        (lambda data: data[:40], "picture"),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_what_is_no_whole_picture_is_named(
    spoil: Callable[[bytes], bytes], words: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"p.{ending}"
    Image.effect_noise((96, 64), 60).convert("RGB").save(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value) or "picture" in str(caught.value)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene().save(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"p\.png has more than 2,000 pixels: scale the picture down first"):
        read_picture(tmp_path / "p.png")


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is a folder; name a picture in it"):
        read_picture(tmp_path)

"""The kind of a file by its first bytes: downloads that went wrong, and formats that are not read here."""

from __future__ import annotations

import codecs
import struct
from pathlib import Path

TORCH_ENDINGS = (".pt", ".pth", ".ckpt", ".bin")
_LOOKED_AT = 2**16  # bytes
_AGAIN = "Download it again"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_TAR = (257, b"ustar")  # where its magic number is
_MEDIA = {
    (0, b"\x89PNG"): "a picture (PNG)",
    (0, b"\xff\xd8\xff"): "a picture (JPEG)",
    (0, b"GIF8"): "a picture (GIF)",
    (8, b"WEBP"): "a picture (WebP)",
    (4, b"ftyp"): "a video (MP4, MOV)",
    (0, b"\x1a\x45\xdf\xa3"): "a video (WebM, MKV)",
    (8, b"AVI "): "a video (AVI)",
    (0, b"%PDF"): "a document (PDF)",
    (0, b"\x89HDF"): "an HDF5 file, as of Keras",
    (0, b"\x93NUMPY"): "an array of NumPy",
}


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, as those of `torch.save` are."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def other_kind(path: Path) -> str | None:
    """Say what a file is that holds no tensors, and what to do. None if it may be safetensors or is unknown."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    text = start[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not size:
        return f"is empty (0 bytes): its download failed. {_AGAIN}"
    if text.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, the address of a model in place of the model: fetch the file with 'git lfs pull', "
            "or download it from the model's page"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page (HTML), not a model: use the download link of the page, and log in if it asks you to"
    if start.startswith(b"GGUF"):
        return (
            "is a GGUF file, which is not read here: in ComfyUI, load it with a GGUF loader and Self Forcing From "
            "Model; else take the model as safetensors"
        )
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            return f"is a compressed archive ({name}): unpack it first"
    if start.startswith(_TAR[1], _TAR[0]):
        return "is an archive (tar): unpack it first"
    for (at, magic), name in _MEDIA.items():
        if start.startswith(magic, at):
            return f"is {name}: name a model, or a session, in its place"
    if not start.strip(b"\0"):
        return f"begins with {len(start):,} bytes of zeros: its download was broken off. {_AGAIN}"
    if _is_text(start):
        return f"is text, not a model ({_beginning(start)!r} ...). {_AGAIN}"
    return None


def _beginning(text: bytes) -> str:
    """Return the first letters of a text."""
    kind = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return text[:80].decode(kind, errors="ignore").strip()[:40]


def looks_like_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object that fits into the file, and its brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size


def _is_text(start: bytes) -> bool:
    """Whether these are the first bytes of a text in UTF-8, or in UTF-16 with its mark."""
    first, kind = start[:512], "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(kind)().decode(first)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)

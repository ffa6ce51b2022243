"""A file that is no model is said for what it is; a model under another ending is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import sf_core
from sf_core.__main__ import main
from sf_core.cli.info import describe
from sf_core.files.convert import convert
from sf_core.text.encoders import load_text_encoder
from tests.helpers import random_model

STATE = dict(random_model(layers=1).state_dict())
KINDS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5676070424\n",
    "web page": b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "is empty": b"",
    "zeros": bytes(5000),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(100),
    "unpack": b"\x1f\x8b\x08" + bytes(50),
    "is a video": bytes([0, 0, 0, 32]) + b"ftypisom" + bytes(100),
    "is a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "is text": b'{"error": "Invalid username or password."}',
    "is text, not a model .'Zugriff verweigert: Anmeldung n": "Zugriff verweigert: Anmeldung nötig".encode(),
    "is text, not a model .'\u8bf7\u5148\u767b\u5f55": "\u8bf7\u5148\u767b\u5f55".encode(),
    "is text, not a model .'Not found": "Not found".encode("utf-16"),
    r"\(xz\): unpack": b"\xfd7zXZ\0" + bytes(50),
    r"\(tar\): unpack": b"model.safetensors" + bytes(240) + b"ustar\x0000" + bytes(300),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
}


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "ckpt", "bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_download_that_went_wrong_is_said(kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{ending}"
    path.write_bytes(KINDS[kind])
    for read in (sf_core.load_model, describe, sf_core.load_vae, sf_core.load_taehv, load_text_encoder):
        with pytest.raises(ValueError, match=rf"m\.{ending} .*{kind}") as caught:
            read(path)
        assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("ending", ["pt", "ckpt", "bin", "safetensors"])
def test_a_model_is_read_whatever_its_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{ending}"
    if ending == "safetensors":
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    model = sf_core.load_model(path, num_heads=2, text_len=6)
    assert all(torch.equal(value, STATE[name]) for name, value in model.state_dict().items())


def test_safetensors_cut_short_say_so_under_any_ending(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(save(STATE)[:-10])
    with pytest.raises(ValueError, match="is cut short"):
        sf_core.load_model(tmp_path / "m.pt")


@pytest.mark.parametrize("name", ["clean.pt", "clean.ckpt", "clean.bin", "clean.gguf"])
def test_convert_writes_safetensors_under_their_own_ending_only(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"convert writes safetensors; let the name end in \.safetensors"):
        convert(STATE, tmp_path / name, num_heads=2, text_len=6)
    save_file(STATE, tmp_path / "m.safetensors")
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / name)]) == 1
    assert "let the name end in .safetensors" in capsys.readouterr().err
    assert not (tmp_path / name).exists()

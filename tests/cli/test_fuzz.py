"""Whatever is typed, the command line works or ends in a sentence: never in a traceback, never in silence."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from sf_core import tiny
from sf_core.__main__ import main
from sf_core.files.video import VideoWriter
from sf_core.session.session import Session

NUMBERS = ["0", "-1", "1", "2", "0.5", "nan", "inf", "-inf", "1e308", "99999999999999999999", "x", ""]
SIZES = ["0", "-16", "1", "16", "63", "64", "100", "999999999", "x"]
TEXTS = ["", " ", "a red circle", "a pink elephant", "\ud83d", "\ufeffa red circle", "画", "a " * 3000, "\0", "--seed"]
NAMES = [
    "", ".", "..", "nowhere", "no/where.mp4", "a.mp4", "a.webm", "12:30.mp4", "x" * 300, "b\0.mp4", "\udcff.mp4",
    "empty.mp4", "page.safetensors", "pointer.pt", "zeros.ckpt", "model.gguf", "session", "cut.session", "deep.png",
    "cut.png", "clip.mp4", "one.mp4", "cut.mp4", "tiny.safetensors", "vae.safetensors", "words.safetensors",
    "odd.safetensors", "text.json", "folder", "recipe.toml", "bytes.toml", "tiny-world!",
]  # fmt: skip
OPTIONS: dict[str, dict[str, list[list[str]]]] = {
    "generate": {
        **{f"--{name}": [NAMES] for name in ("image", "video", "out", "save-session", "session", "fork-to")},
        **{f"--{name}": [NAMES] for name in ("model", "lora", "vae", "text-encoder")},
        **{f"--{name}": [NUMBERS] for name in ("seed", "fps", "rewind", "lora-strength", "threads")},
        "--prompt": [TEXTS],
        "--size": [SIZES, SIZES],
        "--device": [["cpu", "gpu", "cuda:99", "meta", "", "mps", "\0"]],
        "--dtype": [["float32", "bfloat16", "int8"]],
        "--webm": [],
        "--recache": [],
    },
    "info": {"": [NAMES]},
    "convert": {
        "": [NAMES, NAMES],
        "--dtype": [["float16", "int8"]],
        "--lora": [NAMES],
        "--lora-strength": [NUMBERS],
        "--member": [TEXTS],
        "--num-heads": [NUMBERS],
    },
    "train": {"--recipe": [[*NAMES[:5], *NAMES[11:31]]], "--out": [NAMES], "--resume": [], "--threads": [NUMBERS]},
    "bench": {
        **{"--chunks": [["0", "1", "-1", "x"]], "--json": [NAMES], "--threads": [NUMBERS], "--model": [NAMES]},
        **{"--vae": [NAMES], "--size": [NUMBERS, NUMBERS]},
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files in `NAMES`, which is the current one."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "folder").mkdir()
    model = tiny.load_transformer()
    Session.start(model, tiny.load_text().encode(tiny.PROMPT)).next_chunk()[0].save(folder / "session")
    (folder / "cut.session").write_bytes((folder / "session").read_bytes()[:-9])
    Image.effect_noise((64, 64), 50).save(folder / "deep.png")
    (folder / "cut.png").write_bytes((folder / "deep.png").read_bytes()[:900])
    for name, frames in (("clip.mp4", 9), ("one.mp4", 1)):
        with VideoWriter(folder / name, 16) as writer:
            writer.write(torch.zeros(frames, 64, 64, 3))
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:500])
    for name, source in (("tiny", "transformer"), ("vae", "vae")):
        (folder / f"{name}.safetensors").write_bytes((tiny.FOLDER / f"{source}.safetensors").read_bytes())
    save_file({"prompt": torch.zeros(3, 64)}, folder / "words.safetensors")
    save_file({"shared.weight": torch.zeros(3), "x": torch.zeros(1)}, folder / "odd.safetensors")
    for name, data in {
        "empty.mp4": b"", "page.safetensors": b"<html>", "pointer.pt": b"version https://git-lfs.github.com/spec/v1\n",
        "zeros.ckpt": bytes(99), "model.gguf": b"GGUF" + bytes(9), "text.json": b"{", "recipe.toml": b"a = [",
        "bytes.toml": b"\xff\xfe\0",
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    return folder


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(sorted(OPTIONS)))
    options, made = OPTIONS[command], [command]
    for option in draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=5)):
        values = [draw(st.sampled_from(choices)) for choices in options[option]]
        made += [f"{option}={values[0]}"] if option and len(values) == 1 else [option] * bool(option) + values
    return [*made, "--seconds=0.01"] if command == "generate" else made


@given(made=arguments())
def test_any_arguments_work_or_are_answered_in_a_sentence(
    made: list[str], files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    for file in files.iterdir():
        (folder / file.name).symlink_to(file, target_is_directory=file.is_dir())
    before, threads, said, printed = Path.cwd(), torch.get_num_threads(), StringIO(), StringIO()
    os.chdir(folder)
    try:
        with redirect_stderr(said), redirect_stdout(printed):
            status = main(made)
    except SystemExit as refused:  # by argparse
        status = int(refused.code or 0)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    assert status in (0, 1, 2)
    text = said.getvalue()
    assert "Traceback" not in text
    assert "a fault of this program" not in text
    if status:
        assert len(text.rpartition("error: ")[2].strip()) > 15, made

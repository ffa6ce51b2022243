"""No option of the command line is ignored, and no number out of range gets in."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import sf_core
from sf_core import tiny
from sf_core.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("generate --lora nowhere.safetensors", "--lora without --model. --vae, --text-encoder, --lora and --dtype go"),
        ("generate --dtype float16", "go with --model"),
        ("generate --lora-strength 0.5", "--lora-strength goes with --lora"),
        ("generate --model m --lora-strength 0.5", "--lora-strength goes with --lora"),
        ("generate --session s --kv-dtype int8", "--kv-dtype begins a video, and a session has begun already"),
        ("generate --session s --size 64 64", "--size begins a video, and a session has begun already"),
        ("generate --session s --size 64 64 --image i", "--image and --size begin a video, and a session has begun"),
        ("generate --fork-to f", "--fork-to without --session. --rewind, --fork-to and --recache go with --session"),
        ("generate --session s --recache", "--recache goes with --prompt"),
        ("generate --session s --fork-to a --save-session b", "give --fork-to or --save-session, not both"),
        ("generate --webm --out a.mp4", "leave --webm out, or let the name end in .webm"),
        ("generate --size 100 64", "width is 100 pixels; this model makes multiples of 16. The nearest are 96 and 112"),
        ("generate --size 64 56", "height is 56 pixels; this model makes multiples of 16. The nearest are 48 and 64"),
        ("generate --size 64 0", "the height of --size is 0; expected a whole number from 16 to 8192"),
        ("generate --size 64 99999999", "the height of --size is 99999999; expected"),
        ("generate --fps 0.0001", "--fps is 0.0001; expected more than 0: 1 to 240 frames per second"),
        ("generate --fps nan", "--fps is nan; expected"),
        ("generate --fps 1e9", "--fps is 1,000,000,000; expected more than 0: 1 to 240 frames per second"),
        ("generate --seconds nan", "--seconds is nan; expected more than 0"),
        ("generate --seconds 1e308", "--seconds is 1e+308; expected more than 0, and at most 31,536,000"),
        ("generate --session s --rewind -1", "--rewind is -1; expected a whole number from 0"),
        ("generate --seed -1", "seed is -1; expected a whole number from 0"),
        ("generate --model m --lora l --lora-strength nan", "--lora-strength is nan; expected"),
        ("generate --threads 0", "--threads is 0; expected a whole number from 1 to 1024"),
        ("bench --threads 99999999999", "--threads is 99999999999; expected"),
        ("generate --device gpu", "--device is 'gpu', which this torch cannot use here. Available: cpu"),
        ("generate --device meta", "--device is 'meta', which this torch cannot use"),
        ("generate --device ", "--device is '', which this torch cannot use"),
        ("generate --save-session v --out v.mp4 --video v.mp4", "--video and --out both name v.mp4"),
        ("generate --save-session v.mp4 --out v.mp4", "--out and --save-session both name v.mp4"),
        ("generate --session .", ". is a folder"),
        ("bench --chunks 99999999999", "--chunks is 99999999999; expected 2 or more, and at most 1,000,000"),
        ("train --plan --smoke", "--out, --resume and --smoke go with --recipe: --plan trains nothing"),
        ("convert a.pt b.safetensors --lora-strength 2", "--lora-strength goes with --lora"),
    ],
)
def test_what_would_be_ignored_is_refused_before_the_work(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split(" ")) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["video", "text-encoder"])
def test_no_output_replaces_an_input_that_a_link_names(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder/given.mp4").write_bytes(b"given")
    Path("link.mp4").symlink_to(Path("folder", "given.mp4"))
    others = ["--model", "m", "--vae", "v"] if option == "text-encoder" else []
    for out in ("link.mp4", "folder/../folder/given.mp4"):
        assert main(["generate", f"--{option}", "folder/given.mp4", "--out", out, *others]) == 1
        assert f"--{option} and --out both name" in capsys.readouterr().err
    assert Path("folder/given.mp4").read_bytes() == b"given"


def test_an_empty_prompt_is_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("sf_core.tiny.TinyText.encode", lambda _, prompt: given.append(prompt))
    monkeypatch.setattr("sf_core.cli.generate.Session.start", lambda *_, **__: 1 / 0)
    main(["generate", "--prompt", "", "--out", str(tmp_path / "a.mp4")])
    assert given == [""]


def test_a_session_keeps_the_format_and_the_place_of_its_cache(tmp_path: Path) -> None:
    saved = tmp_path / "a.session"
    made = ["generate", "--seconds", "0.1", "--out", str(tmp_path / "a.mp4"), "--save-session", str(saved)]
    assert main([*made, "--kv-dtype", "int4", "--kv-offload"]) == 0
    config = sf_core.Session.load(saved, tiny.load_transformer()).config
    assert (config.kv_dtype, config.kv_offload) == ("int4", True)


def test_sigterm_ends_any_command_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    monkeypatch.setattr("sf_core.cli.parser.environment_report", lambda: signal.raise_signal(signal.SIGTERM))
    try:
        assert main(["info"]) == 130
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # as it was before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "interrupted\n"


def test_a_fault_of_the_program_shows_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sf_core.cli.parser.environment_report", lambda: dict[str, str]()["x"])
    assert main(["info"]) == 1
    assert "a fault of this program, KeyError: 'x'. Please report it" in capsys.readouterr().err
    monkeypatch.setenv("SF_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["info"])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_too_little_memory_is_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> str:
        raise error

    monkeypatch.setattr("sf_core.cli.parser.environment_report", fails)
    assert main(["info"]) == 1
    assert "the memory is not enough. Lower --size" in capsys.readouterr().err

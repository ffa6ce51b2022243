"""The command line makes, continues, switches, forks and re-rolls videos of what was asked for."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tiny_world.scorer import score
from sf_core import PublishedNoise, Session, tiny
from sf_core.__main__ import main
from sf_core.files import file_names
from sf_core.files.video import VideoWriter, read_record

ROOT = Path(__file__).parents[2]
RED = "a red circle moving left quickly on a black background"
BLUE = "a blue square moving up on a white background"


def frames_of(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shown(path: Path) -> torch.Tensor:
    """As the scorer wants it."""
    return torch.from_numpy(frames_of(path) / np.float32(255))


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments)])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a video of 2 seconds, a.mp4, and its session, s."""
    assert generate("--prompt", RED, "--seconds", 2, "--out", tmp_path / "a.mp4", "--save-session", tmp_path / "s") == 0
    return tmp_path


def loaded(path: Path) -> Session:
    return Session.load(path, tiny.load_transformer())


def test_the_video_shows_what_the_prompt_says(made: Path) -> None:
    video = frames_of(made / "a.mp4")
    assert video.shape == (33, 64, 64, 3)  # 32 frames are 2 s; the first chunk has 9, the others 12
    found = score(shown(made / "a.mp4"), RED)
    assert found.all_correct, found


def test_a_fast_run_compiles_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("compile", "record"):
        monkeypatch.setattr(f"sf_core.model.wan.CausalWan.{name}", lambda _, name=name: done.append(name))
    assert generate("--fast", "--seconds", 0.1, "--out", tmp_path / "a.mp4") == 0
    assert done == ["compile", "record"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert generate("--fast", "--out", tmp_path / "a.mp4") != 0


def test_going_on_keeps_the_past_and_adds_to_it(made: Path) -> None:
    before = loaded(made / "s")
    assert generate("--session", made / "s", "--seconds", 1, "--out", made / "b.mp4") == 0
    after = loaded(made / "s")
    assert (before.chunks, after.chunks) == (3, 5)
    assert torch.equal(after.latents[:, :, : before.frames], before.latents)
    assert len(frames_of(made / "b.mp4")) == 57


def test_a_session_that_goes_on_gives_the_video_of_one_go(made: Path) -> None:
    generate("--session", made / "s", "--seconds", 1, "--out", made / "b.mp4")
    generate("--prompt", RED, "--seconds", 3.5625, "--out", made / "c.mp4")
    assert np.array_equal(frames_of(made / "b.mp4"), frames_of(made / "c.mp4"))
    assert "prompt" not in read_record(made / "b.mp4")  # the session knows its embeddings, nobody its words


def test_a_fork_switches_the_prompt_and_leaves_the_old_session_alone(made: Path) -> None:
    old = (made / "s").read_bytes()
    assert (
        generate(
            "--session", made / "s", "--prompt", BLUE, "--seconds", 3, "--fork-to", made / "f", "--out", made / "b.mp4"
        )
        == 0
    )
    assert (made / "s").read_bytes() == old
    assert torch.equal(loaded(made / "f").latents[:, :, :9], loaded(made / "s").latents)
    last = score(shown(made / "b.mp4")[-12:], BLUE)
    assert last.frames_correct >= 0.9, last


def test_noise_as_published_is_of_a_clip_as_long_as_the_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The session keeps it: rewound it makes the same chunks again, its end is refused, another seed goes on."""
    start = ("--prompt", RED, "--seed", 3, "--out", tmp_path / "a.mp4", "--save-session", tmp_path / "s")
    assert generate(*start, "--seconds", 2, "--noise", "as published") == 0
    whole = loaded(tmp_path / "s")
    by_library = Session.start(tiny.load_transformer(), tiny.load_text().encode(RED))
    by_library = by_library.with_noise(PublishedNoise.of(by_library, 3, 9))
    for _ in range(3):
        by_library, _ = by_library.next_chunk()
    assert torch.equal(whole.latents, by_library.latents)
    assert main(["info", str(tmp_path / "s")]) == 0
    assert "3 as published (9 latent frames, drawn by cpu)" in capsys.readouterr().out
    assert read_record(tmp_path / "a.mp4")["seeds"][0]["order"] == "self-forcing"
    going_on = ("--session", tmp_path / "s", "--out", tmp_path / "b.mp4")
    assert generate(*going_on, "--rewind", 2) == 0
    assert torch.equal(loaded(tmp_path / "s").latents, whole.latents)
    assert generate(*going_on, "--seconds", 1) != 0
    assert "drawn for a video of 9 latent frames, which is at its end" in capsys.readouterr().err
    assert generate(*going_on, "--noise", "as published") != 0
    assert "--noise begins a video, and a session has begun already" in capsys.readouterr().err
    assert generate(*going_on, "--seconds", 1, "--seed", 5) == 0
    assert loaded(tmp_path / "s").chunks == 5


@pytest.mark.parametrize("chunks", [2, 3])
def test_a_re_roll_changes_the_newest_chunks_and_keeps_a_copy(made: Path, chunks: int) -> None:
    old = loaded(made / "s").latents
    assert generate("--session", made / "s", "--rewind", chunks, "--seed", 9, "--out", made / "b.mp4") == 0
    new = loaded(made / "s").latents
    kept = old.shape[2] - 3 * chunks
    assert old.shape == new.shape
    assert torch.equal(old[:, :, :kept], new[:, :, :kept])
    assert not torch.equal(old[:, :, kept:], new[:, :, kept:])
    assert torch.equal(loaded(made / "s.bak").latents, old)


def test_info_tells_sessions_and_checkpoints(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("--session", made / "s", "--prompt", BLUE, "--seed", 4, "--seconds", 1, "--out", made / "b.mp4")
    capsys.readouterr()
    assert main(["info", str(made / "s")]) == 0
    said = capsys.readouterr().out
    assert "5 sampled" in said
    assert "prompt, seed at chunk 3" in said
    assert main(["info", str(tiny.FOLDER / "transformer.safetensors")]) == 0
    assert "1.24 million" in capsys.readouterr().out


def test_bench_writes_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--chunks", "3", "--json", str(tmp_path / "b.json")]) == 0
    numbers = json.loads((tmp_path / "b.json").read_text())
    assert numbers["chunks measured"] == 3
    assert "frames per second, end to end" in capsys.readouterr().out


def test_bench_measures_another_model_without_its_text_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--model", str(tiny.FOLDER / "transformer.safetensors"), "--vae", str(tiny.FOLDER / "vae.safetensors"))
    options = ("--size", "32", "48", "--kv-dtype", "int8", "--chunks", "3", "--json", str(tmp_path / "b.json"))
    assert main(["bench", *files, *options]) == 0
    numbers = json.loads((tmp_path / "b.json").read_text())
    assert numbers["size"] == "32 x 48"
    assert "int8" in numbers["settings"]
    assert numbers["model"] == "1 million parameters, 4 layers"
    assert numbers["frames per second of the video"] == 16
    assert numbers["time to first frame, s (cold)"] > 0
    assert str(tmp_path) not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--prompt", "a pink elephant"], "does not know 'pink', 'elephant'. Its words: a, moving"),
        (["generate", "--rewind", "1"], "go with --session"),
        (["generate", "--session", "nowhere"], "nowhere: no such file"),
        (["info", "nowhere"], "nowhere: no such file"),
        (["bench", "--chunks", "1"], "--chunks is 1; expected 2 or more"),
        (["bench", "--model", "a.pt"], "--model needs --vae"),
        (["bench", "--vae", "a.pt"], "--vae without --model"),
        (["bench", "--size", "0", "64"], "the width of --size is 0"),
        (["generate", "--seconds", "0"], "--seconds is 0; expected more than 0"),
        (["generate", "--image", "a.png", "--video", "a.mp4"], "give --image or --video, not both"),
        (["generate", "--strength", "0.5"], "--strength without --source"),
        (["generate", "--source", "a.mp4", "--strength", "2"], "--strength is 2"),
        (["generate", "--image", "nowhere.png"], "No such file"),
        (["generate", "--vae", "v.safetensors"], "go with --model"),
        (["generate", "--out", "v.avi"], "videos are written as .mp4 or .webm"),
        (["generate", "--out", "."], ". is a folder; name a file in it"),
        (["convert", "a.pt", "no/b.safetensors"], "there is no folder no"),
        (["bench", "--json", "no/b.json"], "there is no folder no"),
        (["generate", "--fps", "0"], "--fps is 0; expected more than 0"),
    ],
)
def test_mistakes_are_said_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_name_that_windows_cannot_store_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file_names, "WINDOWS", True)
    monkeypatch.setattr("sf_core.cli.generate.LoadedModels", None)  # not reached
    monkeypatch.chdir(tmp_path)
    for arguments in (["--out", "take:2.mp4"], ["--save-session", "nul.sf"], ["--fork-to", "v.", "--session", "s"]):
        assert generate(*arguments) == 1
        assert "Windows" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_plan_of_a_training_needs_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--plan"]) == 0
    assert "| generator and critic | teacher |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--plan", "--recipe", "tiny-world"])


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert [name for name in ("generate", "convert", "train", "info", "bench") if f"    {name}" not in text] == []


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 0), (FloatingPointError("chunk 3 holds NaN"), 1)])
def test_what_was_made_before_an_interrupt_or_error_is_kept(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Session.next_chunk

    def fails(session: Session, *progress: object) -> object:
        if session.chunks == 2:
            raise error
        return whole(session, *progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "next_chunk", fails)
    assert generate("--seconds", 2, "--out", tmp_path / "a.mp4", "--save-session", tmp_path / "s") == code
    assert len(frames_of(tmp_path / "a.mp4")) == 21
    assert loaded(tmp_path / "s").chunks == 2


def test_the_folders_of_outputs_are_made(made: Path) -> None:
    session, video = made / "sessions" / "s", made / "videos" / "v.mp4"
    assert generate("--seconds", 0.5, "--out", video, "--save-session", session) == 0
    fork = made / "forks" / "f"
    assert generate("--session", session, "--seconds", 0.5, "--out", video, "--fork-to", fork) == 0
    assert loaded(fork).chunks > loaded(session).chunks


@pytest.mark.parametrize("option", ["--out", "--save-session", "--fork-to"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    option: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sf_core.cli.generate.LoadedModels", None)  # not reached
    monkeypatch.chdir(made)
    assert generate("--session", made / "s", option, made / "a.mp4" / "deep" / "x.mp4") == 1
    assert "a.mp4 is a file, not a folder" in capsys.readouterr().err
    assert sorted(path.name for path in made.iterdir()) == ["a.mp4", "s"]


def test_outputs_that_do_not_fit_the_disk_are_refused_before_the_work(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "next_chunk", None)  # not reached
    older = (made / "a.mp4").read_bytes()
    for out, session in (("a.mp4", "t"), ("c.mp4", "s")):
        assert generate("--seconds", 3e7, "--fps", 240, "--out", made / out, "--save-session", made / session) == 1
        said = capsys.readouterr().err
        assert f"{out} and" in said
        assert "TiB" in said or "GiB, and the disk has" in said
    assert (made / "a.mp4").read_bytes() == older
    assert sorted(path.name for path in made.iterdir()) == ["a.mp4", "s"]


def test_a_run_that_fails_at_once_leaves_the_older_video(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = {path.name: path.read_bytes() for path in made.iterdir()}
    monkeypatch.setattr(Session, "next_chunk", Mock(side_effect=FloatingPointError("chunk 0 holds NaN")))
    assert generate("--seconds", 1, "--out", made / "a.mp4", "--save-session", made / "s") == 1
    assert {path.name: path.read_bytes() for path in made.iterdir()} == older


def test_a_session_that_cannot_be_saved_is_kept_in_a_place_that_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, older = Session.save, (made / "s").read_bytes()

    def full(session: Session, path: Path) -> None:
        if path in refused or path.parent in refused:
            raise OSError(28, f"cannot write {path}: No space left on device. The session is intact")
        save(session, path)

    monkeypatch.setattr(Session, "save", full)
    monkeypatch.setattr(tempfile, "tempdir", str(made / "temp"))
    (made / "temp").mkdir()
    for refused in ({made / "s"}, {made}):
        assert generate("--session", made / "s", "--rewind", 1, "--out", made / "b.mp4") == 1
        said = capsys.readouterr().err
        kept = Path(said.strip().partition("The session is intact. It is kept in ")[2])
        assert loaded(kept).chunks == 3
        assert (kept.parent == made / "temp") == (made in refused)
    assert (made / "s").read_bytes() == older


def test_a_picture_begins_the_video(tmp_path: Path) -> None:
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[20:60, 40:80] = (230, 40, 40)
    Image.fromarray(picture).save(tmp_path / "p.png")
    assert (
        generate(
            "--image", tmp_path / "p.png", "--seconds", 1, "--out", tmp_path / "a.mp4", "--save-session", tmp_path / "s"
        )
        == 0
    )
    session = loaded(tmp_path / "s")
    assert (session.frames, session.config.first_chunk_frames) == (7, 1)
    first = frames_of(tmp_path / "a.mp4")[0]
    red, green, _ = first[24:40, 24:40].mean(axis=(0, 1))
    assert red > 150 > 100 > green


def test_a_clip_is_gone_on_from(made: Path) -> None:
    assert (
        generate("--video", made / "a.mp4", "--seconds", 1, "--out", made / "b.webm", "--save-session", made / "t") == 0
    )
    session = loaded(made / "t")
    assert (session.frames, session.chunks) == (15, 2)
    begun, clip = frames_of(made / "b.webm")[:33].astype(int), frames_of(made / "a.mp4").astype(int)
    assert np.abs(begun - clip).mean() < 12


def test_a_clip_at_another_rate_keeps_its_speed(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "c.mp4", 32) as writer:
        writer.write(torch.zeros(66, 64, 64, 3))  # 2 seconds
    out, saved = tmp_path / "b.mp4", tmp_path / "s"
    assert generate("--video", tmp_path / "c.mp4", "--seconds", 0.1, "--out", out, "--save-session", saved) == 0
    assert loaded(saved).frames - 3 * loaded(saved).chunks == 9  # 33 frames at 16 per second


def test_a_clip_is_the_source_of_a_video_that_ends_with_it(tmp_path: Path) -> None:
    """And a session goes on in the clip where it is."""
    clip = ROOT / "workflows" / "input" / "red_circle.mp4"
    given = ("--source", clip, "--prompt", "a blue square")
    assert generate(*given, "--out", tmp_path / "a.mp4", "--save-session", tmp_path / "s") == 0
    assert score(shown(tmp_path / "a.mp4"), "a blue square on a white background").frames_correct >= 0.9
    assert loaded(tmp_path / "s").chunks == 3
    parts = ("--out", tmp_path / "b.mp4")
    assert generate(*given, "--seconds", 0.5, *parts, "--save-session", tmp_path / "t") == 0
    assert generate("--session", tmp_path / "t", "--source", clip, *parts) == 0
    assert torch.equal(loaded(tmp_path / "t").latents, loaded(tmp_path / "s").latents)


def test_a_source_that_is_over_is_refused_before_the_video(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = ROOT / "workflows" / "input" / "red_circle.mp4"
    assert generate("--session", made / "s", "--source", clip, "--out", made / "b.mp4") == 1
    assert "the source is too short" in capsys.readouterr().err
    assert not (made / "b.mp4").exists()


def test_a_clip_of_one_frame_begins_the_video_as_a_picture(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "c.mp4", 16) as writer:
        writer.write(torch.zeros(1, 64, 64, 3))
    assert generate("--video", tmp_path / "c.mp4", "--seconds", 0.1, "--out", tmp_path / "b.mp4") == 0
    assert len(frames_of(tmp_path / "b.mp4")) == 13


@pytest.mark.parametrize("name", ["12:30.mp4", "concat:x.mp4", "crypto:a.webm"])
def test_a_video_may_be_named_like_a_protocol(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate("--seconds", 0.1, "--out", name) == 0
    assert read_record(Path(name))["chunks"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_video_says_how_it_was_made(made: Path) -> None:
    record = read_record(made / "a.mp4")
    assert (record["prompt"], record["seed"], record["chunks"]) == (RED, 0, 3)
    head = loaded(made / "s").head
    assert head is not None
    assert record["session"] == head.lineage.hex()
    generate("--session", made / "s", "--prompt", BLUE, "--seed", 4, "--seconds", 1, "--out", made / "b.mp4")
    continued = read_record(made / "b.mp4")
    assert (continued["seeds"], continued["timeline"]) == ([0, 4], "prompt, seed at chunk 3")

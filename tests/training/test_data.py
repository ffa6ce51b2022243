"""Training data: the order is addressed by number, videos become clips, latents survive being killed."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
import textwrap
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sf_core import tiny
from sf_core.files.safetensors_file import StoredTensor
from sf_core.files.video import VideoWriter
from sf_core.training.data.latent_store import LatentStore, encode_clips
from sf_core.training.data.prompts import Prompts
from sf_core.training.data.shuffled import Shuffled
from sf_core.training.data.video_folder import VideoFolder
from tests.training.clips import Average, Clips

ROOT = Path(__file__).parents[2]
SEEDS = st.integers(0, 2**64 - 1)

# The order ----------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 50), seed=SEEDS, epoch=st.integers(0, 20))
def test_every_epoch_holds_every_thing_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(Shuffled(count, seed).indices(epoch * count, count)) == list(range(count))


@given(count=st.integers(1, 20), seed=SEEDS, size=st.integers(1, 70), at=st.lists(st.integers(0, 30), max_size=6))
def test_a_batch_is_the_same_at_any_time(count: int, seed: int, size: int, at: list[int]) -> None:
    whole = Shuffled(count, seed).indices(0, 31 * size)
    asked = Shuffled(count, seed)
    for index in at:
        assert asked.batch(index, size) == whole[index * size : (index + 1) * size]


def test_epochs_and_seeds_differ() -> None:
    orders = [Shuffled(100, seed).indices(epoch * 100, 100) for seed in (0, 1, 2**32) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_the_order_is_the_one_that_older_runs_had() -> None:
    assert Shuffled(8, 5).indices(4, 10) == [2, 0, 4, 3, 3, 1, 6, 4, 5, 7]


def test_the_order_leaves_torchs_random_state_alone() -> None:
    before = torch.get_rng_state()
    Shuffled(10, 0).indices(0, 25)
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_is_shuffled_once_however_many_batches_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    made, shuffle = [], torch.randperm

    def counted(count: int, generator: torch.Generator) -> Tensor:
        made.append(count)
        return shuffle(count, generator=generator)

    monkeypatch.setattr(torch, "randperm", counted)
    prompts = Prompts([str(i) for i in range(250_000)], seed=0)
    for index in range(300):
        prompts.batch(index, 1000)  # 300,000 in all
    assert made == [250_000, 250_000]


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (3, -1), (3, 2**64)])
def test_what_has_no_order_is_refused(count: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"expected|needed"):
        Shuffled(count, seed)


@pytest.mark.parametrize(("index", "size"), [(-1, 2), (0, 0)])
def test_a_batch_that_cannot_be_is_refused(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        Prompts(["a", "b"], seed=0).batch(index, size)


# Prompts ------------------------------------------------------------------------------------------------------------


def test_prompts_are_the_lines_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red circle\r\n\r\n   \n  ein grünes Quadrat \nline\u2028separator".encode())
    prompts = Prompts.read(path, seed=3)
    assert prompts.prompts == ("a red circle", "ein grünes Quadrat", "line\u2028separator")
    assert len(prompts) == 3
    assert Counter(prompts.batch(0, 6)) == dict.fromkeys(prompts.prompts, 2)
    assert prompts.batch(1, 2) + prompts.batch(2, 2) == prompts.batch(0, 6)[2:]


def test_prompts_in_another_encoding_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a circle\nein gr\xfcnes Quadrat\n")
    with pytest.raises(ValueError, match=r"prompts\.txt, line 2: byte 7 .*UTF-8"):
        Prompts.read(path, seed=0)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_prompts_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"prompts\.txt has no prompts"):
        Prompts.read(path, seed=0)
    with pytest.raises(ValueError, match="empty"):
        Prompts([], seed=0)


# Videos -------------------------------------------------------------------------------------------------------------


def shades(frames: int, height: int = 36, width: int = 48) -> Tensor:
    """Frame i is plain, as bright as i says: `numbers` reads it back."""
    return (20 + 10 * torch.arange(frames)).div(255)[:, None, None, None].expand(-1, height, width, 3)


def numbers(frames: Tensor) -> list[int]:
    return ((frames.mean((1, 2, 3)) * 255 - 20) / 10).round().int().tolist()


def video(path: Path, frames: Tensor, fps: float, caption: str | None = "a clip") -> Path:
    with VideoWriter(path, fps) as writer:
        writer.write(frames)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def encoded(path: Path, times: list[int], codec: str, base: int, options: dict[str, str] | None = None) -> None:
    """A video of `shades`, frame i shown at ``times[i] / base`` seconds."""
    path.with_suffix(".txt").write_text("a clip")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=base, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 48, 36, "rgb8" if codec == "gif" else "yuv420p"
        for picture, time in zip(shades(len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray((picture * 255).round().byte().numpy(), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("ending", ["mp4", "webm"])
@pytest.mark.parametrize(
    ("file_fps", "fps", "expected"),
    [
        (16, 16, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (24, 12, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (24, 16, [0, 1, 3, 4, 6, 7, 9, 10, 12]),
        (10, 30, [0, 0, 1, 1, 1, 2, 2, 2, 3]),
        (29.97, 29.97, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_a_clip_shows_what_the_file_shows_nearest_to_its_times(
    ending: str, file_fps: float, fps: float, expected: list[int], tmp_path: Path
) -> None:
    video(tmp_path / f"v.{ending}", shades(17), file_fps, "a  grey\nwall ")
    folder = VideoFolder(tmp_path, 9, (36, 48), fps)
    folder.check()
    frames, caption = folder[0]
    assert frames.shape == (9, 36, 48, 3)
    assert frames.dtype == torch.float32
    found = numbers(frames)
    if file_fps == 24 and fps == 16:  # 1.5 frames on: a WebM rounds times to milliseconds, either side is as near
        assert all(abs(got - 1.5 * k) <= 0.5 for k, got in enumerate(found))
    else:
        assert found == expected
    assert caption == "a grey wall"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_frames_of_unequal_length_are_taken_by_their_times(ending: str, tmp_path: Path) -> None:
    encoded(tmp_path / f"v.{ending}", [0, 3, 4, 10, 11, 30, 40], "libx264", 100)
    folder = VideoFolder(tmp_path, 5, (36, 48), 10)
    folder.check()
    assert numbers(folder[0][0]) == [0, 3, 4, 5, 6]  # at 0, .1, .2, .3, .4 s; .2 is nearer to .11 than to .3


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.avi", "libx264", {"bf": "2"}),  # stored in another order than shown, and no times in the file
        ("v.avi", "mpeg4", {"bf": "2", "qmax": "2"}),
        ("v.mkv", "libx264", {"bf": "2"}),
        ("V.GIF", "gif", {}),
    ],
)
def test_other_kinds_of_file_are_read(name: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    encoded(tmp_path / name, list(range(20)), codec, 20, options)
    folder = VideoFolder(tmp_path, 9, (36, 48), 10)
    folder.check()
    found = numbers(folder[0][0])
    assert np.abs(np.array(found) - np.arange(0, 18, 2)).max() <= (1 if codec == "gif" else 0)  # 256 colours


@pytest.mark.parametrize("size", [(36, 48), (37, 61), (16, 64), (64, 16), (19, 27)])
def test_pictures_are_scaled_and_cropped_round_their_centre(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = 45, 61
    y, x = torch.meshgrid(torch.arange(height) - 22.0, torch.arange(width) - 30.0, indexing="ij")
    disc = (x**2 + y**2 < 15**2).float()[None, :, :, None].expand(2, -1, -1, 3)
    video(tmp_path / "v.mp4", disc, 16)
    frames, _ = VideoFolder(tmp_path, 2, size, 16)[0]
    assert frames.shape == (2, *size, 3)
    scale = max(size[0] / height, size[1] / width)
    y, x = torch.meshgrid(*((torch.arange(n) - (n - 1) / 2) / scale for n in size), indexing="ij")
    assert ((x**2 + y**2 < 15**2).float() - frames[0].mean(-1)).abs().mean() < 0.06


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    upright = torch.zeros(2, 48, 32, 3)
    upright[:, :8] = 1  # bright on top
    path = video(tmp_path / "v.mp4", upright.rot90(1, (1, 2)).contiguous(), 16)  # stored lying, turned to the left
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 + (12 if data[at] else 0)  # version 1 has longer times
    quarter_to_the_right = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")  # not turned so far
    data[at : at + 36] = quarter_to_the_right
    path.write_bytes(data)
    frames, _ = VideoFolder(tmp_path, 2, (48, 32), 16)[0]
    assert (frames - upright).abs().mean() < 0.05


def test_videos_are_found_in_folders_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "a.webm", "b/10.mp4"):
        video(tmp_path / name, shades(2), 16, caption=name)
    (tmp_path / "._a.mp4").write_bytes(b"what another system left")
    folder = VideoFolder(tmp_path, 2, (36, 48), 16)
    assert folder.captions == ["a.webm", "b/10.mp4", "b/2.mp4"]
    assert len(folder) == 3
    assert folder[2][1] == "b/2.mp4"


def test_missing_captions_name_a_few_of_the_videos(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.mp4").touch()
    (tmp_path / "3.txt").write_text("a clip")
    with pytest.raises(ValueError, match="7 of 8 videos have no caption") as error:
        VideoFolder(tmp_path, 2, (36, 48), 16)
    assert "4.mp4" in str(error.value)
    assert "3.mp4" not in str(error.value)
    assert "7.mp4" not in str(error.value)


@pytest.mark.parametrize("caption", [b" \n", b"gr\xfcn"])
def test_a_caption_that_says_nothing_is_an_error(caption: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    (tmp_path / "v.txt").write_bytes(caption)
    with pytest.raises(ValueError, match=r"v\.txt.*(empty|UTF-8)"):
        VideoFolder(tmp_path, 2, (36, 48), 16)


def test_check_names_every_video_that_cannot_be_used_at_once(tmp_path: Path) -> None:
    video(tmp_path / "fine.mp4", shades(21), 16)
    video(tmp_path / "short.mp4", shades(8), 16)
    video(tmp_path / "short.webm", shades(12), 16)
    for name in ("noise.mp4", "nothing.mkv"):
        (tmp_path / name).with_suffix(".txt").write_text("a clip")
        (tmp_path / name).write_bytes(b"no video" * 50 * (name == "noise.mp4"))
    folder = VideoFolder(tmp_path, 21, (36, 48), 16)
    with pytest.raises(ValueError, match="4 of the 5 videos") as error:
        folder.check()
    text = str(error.value)
    assert "short.mp4 is too short: 0.50 s, which is 8 frames at 16 a second; a clip has 21, 1.31 s" in text
    assert "short.webm is too short: 0.75 s, which is 12 frames" in text
    assert "noise.mp4 cannot be decoded" in text
    assert "nothing.mkv" in text
    assert "fine.mp4" not in text


@pytest.mark.parametrize("ending", ["mp4", "webm"])
@pytest.mark.parametrize(
    ("length", "frames", "fps"), [(8, 8, 16), (8, 9, 16), (8, 12, 24), (8, 13, 24), (8, 4, 7), (8, 5, 7)]
)
def test_check_and_decoding_agree_on_what_is_long_enough(
    ending: str, length: int, frames: int, fps: int, tmp_path: Path
) -> None:
    video(tmp_path / f"v.{ending}", shades(length), 16)
    folder = VideoFolder(tmp_path, frames, (36, 48), fps)
    if frames <= math.floor(length / 16 * fps + 0.5):
        folder.check()
        assert len(folder[0][0]) == frames
    else:
        for call in (folder.check, lambda: folder[0]):
            with pytest.raises(ValueError, match=f"v.{ending} is too short"):
                call()


def test_settings_that_make_no_clip_are_refused(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", shades(2), 16)
    for frames, size, fps in ((0, (8, 8), 16.0), (1, (0, 8), 16.0), (1, (8, 8), 0.0), (1, (8, 8), float("nan"))):
        with pytest.raises(ValueError, match="above 0"):
            VideoFolder(tmp_path, frames, size, fps)
    with pytest.raises(ValueError, match="not a folder"):
        VideoFolder(tmp_path / "other", 1, (8, 8), 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no videos in"):
        VideoFolder(tmp_path / "empty", 1, (8, 8), 16)


def test_the_fingerprint_tells_clips_apart(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4", shades(3), 16)
    prints = [VideoFolder(tmp_path, 2, (36, 48), 16).fingerprint() for _ in range(2)]
    prints += [
        VideoFolder(tmp_path, 3, (36, 48), 16).fingerprint(),
        VideoFolder(tmp_path, 2, (36, 48), 8).fingerprint(),
    ]
    path.with_suffix(".txt").write_text("another caption")
    prints.append(VideoFolder(tmp_path, 2, (36, 48), 16).fingerprint())
    video(path, shades(2), 16, None)
    prints.append(VideoFolder(tmp_path, 2, (36, 48), 16).fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5


# Latents ------------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def store(folder: Path, count: int = 10) -> LatentStore:
    return encode_clips(Clips(count), Average(), folder, "key", shard_clips=4)


def test_a_store_gives_back_every_clip(tmp_path: Path) -> None:
    made = store(tmp_path / "new/folder")
    opened = LatentStore.open(tmp_path / "new/folder")
    assert made.shape == opened.shape == (3, 3, 2, 2)
    assert len(made) == len(opened) == 10
    assert opened.key == "key"
    assert sorted(files(tmp_path / "new/folder")) == [
        *(f"latents-0000{i}.safetensors" for i in range(3)),
        "manifest.json",
    ]
    for index in range(10):
        frames, caption = Clips(10)[index]
        latents, stored_caption = opened[index]
        assert torch.equal(latents, Average().encode(frames[None])[0])
        assert stored_caption == caption
    with pytest.raises(IndexError):
        opened[10]


@given(index=st.integers(0, 20), size=st.integers(1, 25), seed=SEEDS)
def test_batches_follow_the_shuffled_order(
    index: int, size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "shared-store"
    opened = LatentStore.open(folder) if folder.exists() else store(folder)
    latents, captions = opened.batch(index, size, seed)
    order = Shuffled(10, seed).batch(index, size)
    assert captions == [Clips(10)[i][1] for i in order]
    assert torch.equal(latents, torch.stack([opened[i][0] for i in order]))
    assert latents.dtype == torch.float32


@pytest.mark.parametrize("stop", [0, 3, 4, 9])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(stop: int, tmp_path: Path) -> None:
    store(tmp_path / "whole")
    killed = Clips(10, stop)
    with pytest.raises(KeyboardInterrupt):
        encode_clips(killed, Average(), tmp_path / "killed", "key", shard_clips=4)
    before = files(tmp_path / "killed")
    assert len(before) == 1 + stop // 4
    resumed, progress = Clips(10), []
    encode_clips(resumed, Average(), tmp_path / "killed", "key", 4, lambda done, of: progress.append((done, of)))
    assert resumed.asked == list(range(stop // 4 * 4, 10))
    assert progress == sorted(progress)
    assert progress[-1] == (10, 10)
    assert len(progress) == len(resumed.asked) + stop // 4
    after = files(tmp_path / "killed")
    assert after == files(tmp_path / "whole")
    assert before.items() <= after.items()


def test_a_kill_that_asks_nobody_leaves_only_whole_shards(tmp_path: Path) -> None:
    code = """
        import os, signal, sys, torch
        from pathlib import Path
        torch.set_num_threads(1)
        from sf_core.training.data.latent_store import encode_clips
        from tests.training.clips import Average, Clips
        def progress(done, of):
            if done == 7:
                os.kill(os.getpid(), signal.SIGKILL)
        encode_clips(Clips(10), Average(), Path(sys.argv[1]), "key", 4, progress)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "killed")], cwd=ROOT, check=False
    )
    assert done.returncode == -9
    store(tmp_path / "whole")
    store(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_store_that_is_not_complete_says_how_much_is_there(tmp_path: Path) -> None:
    store(tmp_path)
    whole = files(tmp_path)
    (tmp_path / "latents-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2 of 3 shards are there.*Encode the same clips again.*latents-00001"):
        LatentStore.open(tmp_path)
    store(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("damage", ["short", "long", "header", "empty", "another"])
def test_a_damaged_shard_is_named_and_made_again(damage: str, tmp_path: Path) -> None:
    store(tmp_path)
    whole = files(tmp_path)
    path = tmp_path / "latents-00001.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {
            "short": data[:-1],
            "long": data + b"\0",
            "header": data[:20] + b"\0" + data[21:],
            "empty": b"",
            "another": whole["latents-00002.safetensors"],  # of 2 clips, not of 4
        }[damage]
    )
    with pytest.raises(ValueError, match=r"2 of 3 shards are there.*latents-00001"):
        LatentStore.open(tmp_path)
    source = Clips(10)
    encode_clips(source, Average(), tmp_path, "key", shard_clips=4)
    assert source.asked == [4, 5, 6, 7]
    assert files(tmp_path) == whole


def test_a_file_that_becomes_shorter_under_a_store_is_an_error(tmp_path: Path) -> None:
    opened = store(tmp_path)
    path = tmp_path / "latents-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"latents-00002.*shorter"):
        opened.batch(0, 10, seed=0)


def test_latents_of_anything_else_are_not_mixed_in(tmp_path: Path) -> None:
    store(tmp_path)
    whole = files(tmp_path)
    for count, key, shard_clips, dtype, named in (
        (10, "other", 4, torch.float32, "key 'key', not 'other'"),
        (11, "key", 4, torch.float32, "clips 10, not 11"),
        (10, "key", 5, torch.float32, "shard_clips 4, not 5"),
        (10, "key", 4, torch.bfloat16, "dtype 'float32', not 'bfloat16'"),
    ):
        with pytest.raises(ValueError, match=f"{named}.*another folder"):
            encode_clips(Clips(count), Average(), tmp_path, key, shard_clips, dtype=dtype)
    assert files(tmp_path) == whole
    (tmp_path / "manifest.json").unlink()
    source = Clips(10)
    encode_clips(source, Average(), tmp_path, "other", shard_clips=4)
    assert source.asked == list(range(10))  # what lay there without its manifest was not taken for the same


def test_latents_that_cannot_be_trained_on_name_their_clip(tmp_path: Path) -> None:
    class Odd(Clips):
        def __init__(self, frames: Tensor) -> None:
            super().__init__(10)
            self.frames = frames

        def __getitem__(self, index: int) -> tuple[Tensor, str]:
            return (self.frames, "odd") if index == 5 else super().__getitem__(index)

    with pytest.raises(ValueError, match=r"clip 5 \('odd'\).*NaN"):
        encode_clips(Odd(torch.full((5, 16, 16, 3), torch.nan)), Average(), tmp_path, "key", shard_clips=4)
    with pytest.raises(ValueError, match=r"clip 5 \('odd'\) are \[3, 2, 2, 2\], .* \[3, 3, 2, 2\]"):
        encode_clips(Odd(torch.zeros(3, 16, 16, 3)), Average(), tmp_path, "key", shard_clips=4)
    assert sorted(files(tmp_path)) == ["latents-00000.safetensors", "manifest.json"]


def test_where_there_is_no_store_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no latents in"):
        LatentStore.open(tmp_path)
    for text in ("{", "[]", '{"key": 1}', json.dumps({"key": "", "clips": 0, "shard_clips": 4, "dtype": "float32"})):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            LatentStore.open(tmp_path)
    with pytest.raises(ValueError, match="0 clips"):
        store(tmp_path / "none", count=0)


def test_a_batch_reads_only_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store(tmp_path)
    read: list[int] = []
    whole_read = StoredTensor.read

    def counted(stored: StoredTensor) -> Tensor:
        read.append(torch.Size(stored.shape).numel())
        return whole_read(stored)

    monkeypatch.setattr(StoredTensor, "read", counted)
    opened.batch(0, 3, seed=1)
    assert read == [3 * 3 * 2 * 2] * 3


def test_videos_go_through_the_tiny_vae_into_a_store_in_half_the_space(tmp_path: Path) -> None:
    for number in range(3):
        moving = torch.zeros(6, 64, 64, 3)
        moving[:, 20:40, 8 * number : 8 * number + 20, number] = 1
        video(tmp_path / f"clips/{number}.mp4", moving, 16, f"clip {number}")
    clips, vae = VideoFolder(tmp_path / "clips", 5, (64, 64), 16), tiny.load_vae()
    clips.check()
    full = encode_clips(clips, vae, tmp_path / "full", "k", shard_clips=2)
    half = encode_clips(clips, vae, tmp_path / "half", "k", shard_clips=2, dtype=torch.bfloat16)
    assert full.shape == half.shape == (16, 2, 8, 8)
    for index in range(3):
        assert torch.equal(full[index][0], vae.encode(clips[index][0][None])[0])
        assert torch.equal(half[index][0], full[index][0].bfloat16().float())
        assert (vae.decode(full[index][0][None])[0] - clips[index][0]).abs().mean() < 0.1
    latents, captions = half.batch(0, 3, seed=0)
    assert latents.dtype == torch.float32
    assert sorted(captions) == ["clip 0", "clip 1", "clip 2"]

"""The session's contract, apart from exactness: records, files, and what bad input gets."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import sf_core
from sf_core.session.archive import Archive
from tests.helpers import SIZE, prompt, random_latents, random_model

MODEL = random_model(layers=2)
CONFIG = sf_core.RolloutConfig(chunk_frames=3, window_frames=7, sink_frames=1)


def start(**changes: object) -> sf_core.Session:
    return sf_core.Session.start(MODEL, prompt(0), SIZE, changes.pop("config", CONFIG), **changes)  # type: ignore[arg-type]


def run(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session


def test_a_session_is_a_value() -> None:
    first = run(start(), 2)
    kept = first.latents.clone()
    second = run(first, 3)
    second.with_prompt(prompt(1)).with_seed(4).with_cut().rewind(2)
    assert torch.equal(first.latents, kept)
    assert (first.frames, first.chunks, second.frames, second.chunks) == (6, 2, 15, 5)
    assert torch.equal(second.latents[:, :, :6], kept)


def test_what_is_set_before_a_chunk_changes_nothing_before_it() -> None:
    base = run(start(), 3)
    for changed in (
        base.with_prompt(prompt(1)),
        base.with_seed(9),
        base.with_cut(),
        base.with_prompt(prompt(1), recache=True),
    ):
        longer = run(changed, 1)
        assert torch.equal(longer.latents[:, :, :9], base.latents)
        assert not torch.equal(longer.latents, run(base, 1).latents)


def test_a_kept_chunk_stands_for_sampling_it_again() -> None:
    """With the latents that a key names, the session is the one that sampling gives, down to its lineage."""
    base = run(start(), 2)
    for now in (base, base.with_prompt(prompt(1), recache=True), base.with_seed(3), base.with_cut(), base.rewind(1)):
        sampled, latents = now.next_chunk()
        kept = now.with_chunk(latents)
        assert kept.next_key == sampled.next_key
        assert torch.equal(run(kept, 1).latents, run(sampled, 1).latents)


def test_no_mixture_of_sampled_and_kept_chunks_loses_the_beginning(tmp_path: Path) -> None:
    """Chunks from the journal come in any mixture with sampled ones; each archives what is older in another moment."""
    straight = [start()]
    while straight[-1].chunks < 24:
        straight.append(straight[-1].next_chunk()[0])
    pieces = list(straight[-1].iter_latents())
    for pattern in ("s" * 10 + "k" * 14, "k" * 14 + "s" * 10, "sk" * 12, "skk" * 8, "ssk" * 8):
        mixed = start()
        for chunk, kind in enumerate(pattern):
            mixed = mixed.with_chunk(pieces[chunk]) if kind == "k" else mixed.next_chunk()[0]
        assert mixed.frames == 72
        assert torch.equal(mixed.latents, straight[-1].latents)
        mixed.save(tmp_path / "s")
        assert torch.equal(sf_core.Session.load(tmp_path / "s", MODEL).latents, straight[-1].latents)
        assert torch.equal(run(mixed.rewind(20), 3).latents, straight[7].latents)


def test_a_session_that_lacks_frames_is_not_saved(tmp_path: Path) -> None:
    session = run(start(), 3)
    assert session.head is not None
    assert session.head.parent is not None
    session.head.parent.parent = None
    with pytest.raises(ValueError, match="counts 9 latent frames and holds 6"):
        session.save(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_session_opens_no_file_before_it_has_something_old(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_file(prefix: str, buffering: int) -> BinaryIO:
        opened.append(prefix)
        return io.BytesIO()

    monkeypatch.setattr(tempfile, "TemporaryFile", open_file)
    sessions = [run(start(seed=seed), 1) for seed in range(5)]
    assert opened == []
    run(sessions[0], 9)
    assert opened  # the test would have seen a file


def test_a_chunks_key_changes_with_all_that_makes_it() -> None:
    base = run(start(), 1)
    other_config = sf_core.RolloutConfig(chunk_frames=3, window_frames=8, sink_frames=1)
    sessions = [base, base.with_prompt(prompt(1)), base.with_prompt(prompt(1), recache=True), base.with_seed(1)]
    sessions += [base.with_cut(), run(base, 1), base.rewind(1), start(config=other_config), start(seed=1)]
    assert len({session.next_key for session in sessions}) == len(sessions)
    assert run(start(), 1).next_key == base.next_key


def test_what_cannot_be_the_next_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        start().with_chunk(random_latents(2))
    with pytest.raises(ValueError, match="finite"):
        start().with_chunk(random_latents(3) * float("nan"))
    with pytest.raises(ValueError, match="no key"):
        _ = start(noise=lambda chunk, step, shape: torch.zeros(shape)).next_key


def test_rewind_is_the_exact_inverse_of_next_chunk() -> None:
    set_up = run(start(), 2).with_prompt(prompt(1), recache=True).with_seed(3)
    rewound = run(set_up, 1).with_seed(8).with_cut().rewind()
    assert (rewound.prompt, rewound.noise, rewound.event) == (set_up.prompt, set_up.noise, set_up.event)
    assert torch.equal(run(rewound, 2).latents, run(set_up, 2).latents)


def test_given_context_is_never_rewound() -> None:
    session = run(start().with_context(random_latents(6)), 2)
    assert session.rewind(2).frames == 6
    with pytest.raises(ValueError, match="cannot rewind 3 chunks: 2 have been sampled"):
        session.rewind(3)


def test_context_begins_the_video() -> None:
    context = random_latents(6)
    session = run(start().with_context(context), 1)
    assert (session.frames, session.chunks) == (9, 1)
    assert torch.equal(session.latents[:, :, :6], context)


@pytest.mark.parametrize(
    ("frames", "first", "fits"), [(7, None, "6 or 9"), (3, 1, "1 or 4"), (2, None, "3"), (8, 1, "7 or 10")]
)
def test_context_that_does_not_fit_names_the_nearest_counts(frames: int, first: int | None, fits: str) -> None:
    config = sf_core.RolloutConfig(first_chunk_frames=first)
    with pytest.raises(ValueError, match=f"{frames} latent frames of context.*nearest counts that do: {fits}$"):
        start(config=config).with_context(random_latents(frames))


def test_context_comes_first_and_once_and_whole() -> None:
    with pytest.raises(ValueError, match="only be given to an empty session; this one has 3 latent frames"):
        run(start(), 1).with_context(random_latents(3))
    with pytest.raises(ValueError, match=r"shape \[1, 4, 3, 8, 8\]; expected \[1 or 1, 4, frames, 4, 4\]"):
        start().with_context(torch.zeros(1, 4, 3, 8, 8))
    with pytest.raises(ValueError, match="context latents hold NaN or Inf"):
        start().with_context(random_latents(3) / 0)


def test_a_first_chunk_of_its_own_size_and_steps() -> None:
    config = sf_core.RolloutConfig(
        chunk_frames=2, first_chunk_frames=1, first_chunk_steps=(1000, 900, 500, 100, 50), window_frames=6
    )
    session = start(config=config)
    counted: list[str] = []
    session, first = session.next_chunk(lambda stage, index, count: counted.append(stage))
    assert first.shape[2] == 1
    assert counted == ["step"] * 5
    session, second = session.next_chunk(lambda stage, index, count: counted.append(stage))
    assert second.shape[2] == 2
    assert counted[5:] == ["rebuild"] + ["step"] * 4


def test_the_first_chunk_behind_a_picture_takes_the_first_chunks_steps() -> None:
    """As the scripts of Causal Forcing++ and Causal-rCM do: what counts is what is sampled."""
    config = sf_core.RolloutConfig(
        chunk_frames=2, first_chunk_frames=1, first_chunk_steps=(1000, 900, 500, 100, 50), window_frames=6
    )
    session = start(config=config).with_context(random_latents(1))
    counted: list[str] = []
    session, first = session.next_chunk(lambda stage, index, count: counted.append(stage))
    assert first.shape[2] == 2
    assert counted.count("step") == 5
    session, _ = session.next_chunk(lambda stage, index, count: counted.append(stage))
    assert counted.count("step") == 5 + 4
    assert torch.equal(session.rewind(2).next_chunk()[1], first)


def test_how_says_where_the_cache_came_from() -> None:
    session = run(start(), 1)
    assert session.how.startswith("new")
    session = run(session, 6)
    assert session.how.startswith("same")
    assert run(session.rewind(), 1).how.startswith("same")
    MODEL.release_cache()
    again = run(session, 1)
    assert again.how.startswith("replay")
    assert "3 passes" in again.how  # 2 layers x ceil(ring of 3 / chunk of 3), and the sink's chunk
    MODEL.caches.budget_bytes = 3 * MODEL.cache_bytes(CONFIG, SIZE)
    other = run(session.with_seed(5), 1)
    MODEL.caches.budget_bytes = None
    assert other.how.startswith("copy")


def test_progress_reports_before_every_forward_and_may_interrupt_a_replay() -> None:
    session = run(start(), 8)
    MODEL.release_cache()
    seen: list[tuple[str, int, int]] = []
    session.next_chunk(lambda *what: seen.append(what))
    rebuilds = [entry for entry in seen if entry[0] == "rebuild"]
    assert [index for _, index, _ in rebuilds] == list(range(len(rebuilds)))
    assert all(count == len(rebuilds) for _, _, count in rebuilds)
    MODEL.release_cache()

    def stop(stage: str, index: int, count: int) -> None:
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.next_chunk(stop)
    _, latents = session.next_chunk()
    MODEL.release_cache()
    assert torch.equal(latents, session.next_chunk()[1])


def test_memory_holds_what_a_replay_needs_and_disk_the_rest() -> None:
    session = run(start(), 30)
    assert session.head is not None
    held = [block for block in session.head.back() if block.latents.in_memory]
    assert len(held) <= 2 * 1 + 2  # layers x ceil(ring / chunk), the newest, and the one that goes next
    assert session.latents.shape[2] == 90
    assert torch.equal(session.latents[:, :, :9], run(start(), 3).latents)


def test_a_full_disk_is_a_clear_error_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = run(start(), 4)

    def full(self: Archive, latents: Tensor) -> None:
        raise OSError(28, "cannot move older latents: No space left on device. The session is intact")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "put", full)
        with pytest.raises(OSError, match="The session is intact"):
            run(session, 1)
    assert run(session, 1).frames == 15


def test_older_latents_are_where_the_program_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the system's folder, which may be memory; and a full disk names the folder to make room in."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    folder = tmp_path / "made" / "when needed"
    session = run(sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG, archive_folder=folder), 8)
    assert session.archive.nbytes > 0
    session.save(tmp_path / "s")
    shutil.rmtree(folder)  # as a user does; the latents of sessions in memory are not lost
    assert torch.equal(run(session, 1).latents[:, :, :24], session.latents)
    loaded = sf_core.Session.load(tmp_path / "s", MODEL, archive_folder=folder)
    assert loaded.archive.nbytes > 0
    monkeypatch.setattr(Archive, "_open", lambda archive: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"to .*when needed: No space left on device. The session is intact"):
        sf_core.Session.load(tmp_path / "s", MODEL, archive_folder=folder)


def test_a_very_long_past_can_be_dropped() -> None:
    session = start(config=sf_core.RolloutConfig(chunk_frames=1, window_frames=1, denoising_steps=(1000,)))
    piece = torch.zeros(1, 4, 20_000, *SIZE)
    session = session.with_context(piece)
    assert session.frames == 20_000
    del session  # a chain of 20,000 blocks is freed without running out of stack


@pytest.mark.parametrize("chunk_frames", [1, 3])
def test_a_loaded_session_does_not_change_with_its_file(chunk_frames: int, tmp_path: Path) -> None:
    """Nor does it end the process, as a mapped file that became shorter would."""
    path, config = tmp_path / "s", replace(CONFIG, chunk_frames=chunk_frames)
    run(start(config=config), 2).save(path)
    loaded = sf_core.Session.load(path, MODEL)
    before = loaded.latents.clone()
    content = path.read_bytes()
    with path.open("rb+") as file:  # in place, as cp does
        file.write(content[:-200] + bytes(200))
    assert torch.equal(loaded.latents, before)
    with path.open("rb+") as file:
        file.truncate(100)
    assert torch.equal(loaded.latents, before)
    assert torch.equal(loaded.rewind(1).next_chunk()[0].latents, before)


def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    run(start(seed=1), 2).save(path)
    run(start(seed=2), 2).save(other)
    restore = sf_core.Session.restore_block

    def swap(session: sf_core.Session, *args: Any, **kwargs: Any) -> sf_core.Session:
        if other.exists():
            other.replace(path)
        return restore(session, *args, **kwargs)

    monkeypatch.setattr(sf_core.Session, "restore_block", swap)
    with pytest.raises(ValueError, match="was changed while it was read: load it again"):
        sf_core.Session.load(path, MODEL)
    assert sf_core.Session.load(path, MODEL).chunks == 2


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_the_whole_session(tmp_path: Path) -> None:
    session = run(start(seed=3, batch=2).with_context(random_latents(3, 2)), 2).with_prompt(prompt(1), recache=True)
    session = run(session, 2).with_cut()
    session = run(session, 2).with_seed(11).with_prompt(prompt(2))
    session.save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", MODEL)
    assert (loaded.frames, loaded.chunks, loaded.config) == (session.frames, session.chunks, session.config)
    assert torch.equal(loaded.latents, session.latents)
    assert torch.equal(run(loaded, 3).latents, run(session, 3).latents)
    assert torch.equal(run(loaded.rewind(4), 5).latents, run(session.rewind(4), 5).latents)


def test_an_empty_session_can_be_saved(tmp_path: Path) -> None:
    start(seed=5).save(tmp_path / "s")
    assert torch.equal(run(sf_core.Session.load(tmp_path / "s", MODEL), 1).latents, run(start(seed=5), 1).latents)


def test_a_file_is_plain_safetensors_without_padding(tmp_path: Path) -> None:
    padded = torch.nn.functional.pad(prompt(0, rows=2), (0, 0, 0, 4))
    run(sf_core.Session.start(MODEL, padded, SIZE, CONFIG), 2).save(tmp_path / "s")
    with safe_open(tmp_path / "s", "pt") as file:
        assert file.get_tensor("latents").shape == (6, 1, 4, *SIZE)
        assert file.get_tensor("prompt.0").shape == (1, 2, 8)
        record = json.loads(file.metadata()["sf.session"])
    assert record["model"] == MODEL.fingerprint
    assert record["version"] == 1


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    run(start(), 2).save(path)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 5, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no session file, or is cut short"):
            sf_core.Session.load(path, MODEL)


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    session = run(start(), 2)
    session.save(path)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left on device. The session is intact"):
        run(session, 1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_model_is_refused_unless_allowed_and_then_recorded(tmp_path: Path) -> None:
    path = tmp_path / "s"
    session = run(start(), 2)
    session.save(path)
    other = random_model(layers=2, seed=1)
    with pytest.raises(ValueError, match=f"made by the model {MODEL.fingerprint}, this one is {other.fingerprint}"):
        sf_core.Session.load(path, other)
    loaded = run(sf_core.Session.load(path, other, allow_other_model=True), 1)
    assert loaded.other_models == (MODEL.fingerprint,)
    assert torch.equal(loaded.latents[:, :, :6], session.latents)
    loaded.save(path)
    assert sf_core.Session.load(path, other).other_models == (MODEL.fingerprint,)


def test_latents_of_another_model_do_not_pass_for_this_ones_cache(tmp_path: Path) -> None:
    path, other = tmp_path / "s", random_model(layers=2, seed=1)
    run(sf_core.Session.start(other, prompt(0), SIZE, CONFIG), 3).save(path)
    run(start(), 3)  # leaves a live cache with the same prompts, seeds and counts
    loaded = sf_core.Session.load(path, MODEL, allow_other_model=True)
    _, latents = loaded.next_chunk()
    MODEL.release_cache()
    assert torch.equal(latents, loaded.next_chunk()[1])


def test_a_model_of_another_geometry_is_refused(tmp_path: Path) -> None:
    run(start(), 1).save(tmp_path / "s")
    arch_prompt = 16
    state = dict(MODEL.state_dict())
    state["text_embedding.0.weight"] = torch.zeros(32, arch_prompt)
    other = sf_core.load_model(state, num_heads=2, text_len=6)
    with pytest.raises(ValueError, match="4 latent channels that reads prompts 8 wide; this one: 4 and 16"):
        sf_core.Session.load(tmp_path / "s", other, allow_other_model=True)


def test_the_fingerprint_is_of_the_weights_and_not_of_their_dtype() -> None:
    half = sf_core.load_model(MODEL.state_dict(), dtype=torch.bfloat16, num_heads=2, text_len=6)
    assert half.fingerprint == MODEL.fingerprint
    assert random_model(layers=2, seed=1).fingerprint != MODEL.fingerprint


def test_a_callers_noise_is_asked_for_again(tmp_path: Path) -> None:
    class Noise:
        def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
            return torch.full(shape, 0.1 * chunk + step)

    session = run(start(noise=Noise()), 2)
    session.save(tmp_path / "s")
    expected = run(session, 1).latents
    assert torch.equal(run(sf_core.Session.load(tmp_path / "s", MODEL, noise=Noise()), 1).latents, expected)
    loaded = sf_core.Session.load(tmp_path / "s", MODEL)
    with pytest.raises(ValueError, match=r"pass noise= to Session.load, or go on with with_seed"):
        loaded.next_chunk()
    assert run(loaded.with_seed(1), 1).frames == 9


# Bad input -----------------------------------------------------------------------------------------------------------


def test_prompts_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"shape \[1, 5, 16\]; this model reads \[batch, rows, 8\].*another model's text encoder"
    ):
        sf_core.Session.start(MODEL, torch.zeros(1, 5, 16), SIZE)
    with pytest.raises(ValueError, match="the prompt has 7 rows of embeddings, this model reads 6: shorten it"):
        sf_core.Session.start(MODEL, torch.ones(1, 7, 8), SIZE)
    with pytest.raises(ValueError, match="prompt embeddings for 2 videos, but the batch is 3; expected 1 or 3"):
        sf_core.Session.start(MODEL, prompt(0, batch=2), SIZE, batch=3)
    with pytest.raises(ValueError, match="prompt embeddings hold NaN or Inf"):
        start().with_prompt(prompt(0) / 0)


def test_a_missing_latent_size_is_asked_for() -> None:
    with pytest.raises(ValueError, match="latent_size is missing"):
        sf_core.Session.start(MODEL, prompt(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_frames": 3, "sink_frames": 1}, "a chunk of 3 .* and a sink of 1 need at least 4: raise the window"),
        ({"window_frames": 4, "first_chunk_frames": 5}, "need at least 5"),
        ({"chunk_frames": 0}, "chunk_frames is 0; expected a whole number of latent frames from 1 on"),
        ({"sink_position": "floating"}, "sink_position is 'floating'; expected one of absolute, clamped"),
        ({"denoising_steps": (250, 500)}, "denoising_steps is .*; expected falling timesteps"),
        ({"denoising_steps": ()}, "expected falling timesteps"),
        ({"shift": 0.0}, "shift is 0.0; it must be greater than 0"),
        ({"context_noise": -1}, "context_noise is -1; expected a timestep from 0 to 1000"),
    ],
)
def test_settings_that_cannot_work_say_what_would(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf_core.RolloutConfig(**settings)  # type: ignore[arg-type]


def test_nan_is_named_with_its_chunk_and_loses_nothing() -> None:
    class Broken:
        def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
            return torch.full(shape, float("nan") if chunk == 2 else 0.5)

    session = run(start(noise=Broken()), 2)
    with pytest.raises(FloatingPointError, match="latents of chunk 2 hold NaN or Inf; the session before it is intact"):
        session.next_chunk()
    assert torch.isfinite(run(session.with_seed(1), 1).latents).all()


def test_a_noise_source_of_another_shape_is_named() -> None:
    class Small:
        def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(1)

    with pytest.raises(ValueError, match=r"gave \[1\] for chunk 0; expected \[1, 4, 3, 4, 4\]"):
        start(noise=Small()).next_chunk()


def test_a_host_may_switch_inference_mode_between_chunks() -> None:
    expected = run(start(), 4).latents
    MODEL.release_cache()
    session = start()
    for chunk in range(4):
        with torch.inference_mode(chunk % 2 == 0):
            session, _ = session.next_chunk()
    assert torch.equal(session.latents, expected)


def test_a_session_can_be_read_while_it_grows() -> None:
    session = run(start(), 20)
    expected = session.latents
    reads: list[bool] = []
    reader = threading.Thread(target=lambda: reads.extend(torch.equal(session.latents, expected) for _ in range(20)))
    reader.start()
    run(session, 20)
    reader.join()
    assert reads == [True] * 20

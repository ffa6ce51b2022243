"""Noise as published: the authors' draws, and all that a session promises with them.

published_draws.json was recorded with the authors' own code on a CPU, with stubs for the networks: the first three and
the last two values of each draw. Where the code needs a GPU (Krea, LongLive 2), its statements were run in their order.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

import sf_core
from sf_core.session import session_file
from sf_core.session.draw_orders import ORDERS, Clip, DrawOrder, order_for
from sf_core.session.noise_record import are_facts, facts_of, noise_in_words
from tests.helpers import SIZE, prompt, random_latents, random_model
from tests.session.test_rules import RULES, config, every_rule, run, start
from tests.session.test_session_properties import reencode

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "published_draws.json").read_text())
every_recorded = pytest.mark.parametrize("name", sorted(RECORDED))
SETTINGS = {  # of the recorded videos
    "self-forcing": "Self Forcing",
    "rolling-forcing": "Rolling Forcing",
    "krea": "Krea Realtime 14B",
    "longlive2": "LongLive 2",
    "causal-rcm": "Causal-rCM, c1-4, 2 steps",
    "causal-rcm, given": "Causal-rCM, c1-4, 4 steps",
    "flashdreams": "flashdreams",
}


def clip_of(name: str) -> Clip:
    facts = RECORDED[name]
    lengths = (tuple(facts["frames"]), tuple(facts["steps"]))
    return Clip(*lengths, tuple(facts["frame_shape"]), facts["batch"], facts["given"])


def noise_of(name: str, order: str | None = None) -> sf_core.PublishedNoise:
    clip = clip_of(name)
    sizes = (clip.frames, clip.steps, clip.frame_shape, clip.batch)
    order = order or name.partition(",")[0]
    return sf_core.PublishedNoise(RECORDED[name]["seed"], *sizes, order=order, given=clip.given)


def addresses(name: str) -> dict[tuple[int, int], list[float]]:
    return {tuple(map(int, at.split(","))): values for at, values in RECORDED[name]["draws"].items()}  # type: ignore[misc]


def drawn(noise: sf_core.PublishedNoise, chunk: int, step: int) -> Tensor:
    clip = noise.clip
    channels, *size = clip.frame_shape
    shape = (clip.batch, channels, clip.frames[chunk], *size)
    made = noise(chunk, step, shape)
    assert tuple(made.shape) == shape
    assert made.dtype == torch.float32
    return made


def values(noise: Tensor) -> list[float]:
    return [*noise[0, 0, 0, 0, :3].tolist(), *noise[-1, -1, -1, -1, -2:].tolist()]


def is_as_recorded(name: str, order: str | None = None) -> bool:
    noise = noise_of(name, order)
    try:
        made = {at: values(drawn(noise, *at)) for at in addresses(name)}
    except (AssertionError, ValueError, RuntimeError):  # the order has no such draw, or not of this shape
        return False
    return all(made[at] == pytest.approx(expected, abs=0.02) for at, expected in addresses(name).items())


@every_recorded
def test_the_draws_are_the_authors(name: str) -> None:
    assert is_as_recorded(name)


@every_recorded
def test_the_orders_of_other_families_and_wrong_ones_are_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = name.partition(",")[0]
    order = ORDERS[own]
    first_alone = ("self-forcing", "krea", "rolling-forcing")  # LongLive 2 takes the first draw, which these have too
    same = {("longlive2", other) for other in first_alone} | {("krea", "self-forcing"), ("self-forcing", "krea")}
    for other in set(ORDERS) - {own}:
        assert (not clip_of(name).given and (name, other) in same) == is_as_recorded(name, other), other
    wrong = {
        "one draw late": DrawOrder(lambda clip: iter([next(order.draws(clip)), *order.draws(clip)]), order.dtype),
        "backwards": DrawOrder(lambda clip: iter([*order.draws(clip)][::-1]), order.dtype, order.turn),
        "in float64": replace(order, dtype=torch.float64),
    }
    if len(list(order.draws(clip_of(name)))) == 1:  # neither late nor backwards
        wrong = {"in float64": wrong["in float64"]}
    for what, mutant in wrong.items():
        monkeypatch.setitem(ORDERS, own, mutant)
        assert not is_as_recorded(name), what


@every_recorded
def test_noise_is_the_same_in_any_order_of_asking_and_leaves_torchs_own_alone(name: str) -> None:
    asked = list(addresses(name))
    straight = noise_of(name)
    expected = {at: drawn(straight, *at) for at in asked}
    state = torch.get_rng_state()
    for order in (asked[::-1], sorted(asked, key=lambda at: at[1]), [at for at in asked for _ in range(2)]):
        again = noise_of(name)
        assert all(torch.equal(drawn(again, *at), expected[at]) for at in order)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("name", "settings"), sorted(SETTINGS.items()))
def test_the_settings_of_a_family_name_its_order_and_its_clip(name: str, settings: str) -> None:
    clip = clip_of(name)
    model = random_model(layers=1, channels=clip.frame_shape[0])
    session = sf_core.Session.start(model, prompt(0), clip.frame_shape[1:], sf_core.preset(settings), batch=clip.batch)
    frames = clip.given + clip.sampled
    if clip.given:
        size = (clip.batch, clip.frame_shape[0], clip.given, *clip.frame_shape[1:])
        session = session.with_context(torch.zeros(size))
    noise = sf_core.PublishedNoise.of(session, 3, frames)
    assert noise.order == name.partition(",")[0]
    assert replace(noise.clip, steps=()) == replace(clip, steps=())
    if noise.order not in ("longlive2",):
        assert noise.clip.steps == clip.steps
    assert torch.equal(drawn(noise, 0, 0), drawn(noise_of(name), 0, 0))


def test_the_tokens_of_flashdreams_are_patches_of_two_by_two() -> None:
    clip = Clip((3,), (1,), (4, 6, 8))
    (draw,) = ORDERS["flashdreams"].draws(clip)
    tokens = torch.randn(draw.shape)
    pattern = "(t h w) (c kh kw) -> 1 c t (h kh) (w kw)"
    assert torch.equal(draw.parts[0, 0](tokens), rearrange(tokens, pattern, t=3, h=3, w=4, kh=2, kw=2))


# What is refused ------------------------------------------------------------------------------------------------------


def begin(settings: str | sf_core.RolloutConfig = "Self Forcing", batch: int = 1, channels: int = 4) -> sf_core.Session:
    rollout = sf_core.preset(settings) if isinstance(settings, str) else settings
    model = random_model(layers=1, channels=channels)
    return sf_core.Session.start(model, prompt(0), SIZE, rollout, batch=batch, reencode=reencode)


@pytest.mark.parametrize(
    ("settings", "batch", "given", "frames", "words"),
    [
        ("Self Forcing, web demo (shift 8)", 1, 0, 21, "the web demo draws the noise of later steps without a seed"),
        ("CausVid", 1, 0, 21, "its script sets no seed"),
        ("Krea Realtime 14B", 2, 0, 27, "the script makes one video at a time, and the batch is 2"),
        ("flashdreams", 2, 0, 21, "the script makes one video at a time, and the batch is 2"),
        ("flashdreams", 1, 3, 21, "the script does not run with given frames"),
        ("Rolling Forcing", 1, 3, 21, "the script does not run with given frames"),
        ("Rolling Forcing", 1, 0, 12, "fewer chunks than steps: here 4 and 5"),
        ("LongLive 2", 1, 8, 24, "one given frame inside the first chunk, and 8 were given before it"),
        ("Causal-rCM, c1-1, 4 steps", 1, 2, 5, "begins with one given frame, and 2 were given"),
        (sf_core.RolloutConfig(exact_times=True, context="recompute", window_frames=6), 1, 0, 9, "no script has"),
    ],
)
def test_what_no_script_makes_from_a_seed_is_refused(
    settings: str | sf_core.RolloutConfig, batch: int, given: int, frames: int, words: str
) -> None:
    session = begin(settings, batch)
    if given:
        session = session.with_context(random_latents(given, batch))
    with pytest.raises(ValueError, match=words):
        sf_core.PublishedNoise.of(session, 0, frames)


def test_the_clip_is_whole_has_not_begun_and_is_the_sessions_own() -> None:
    session = begin()
    with pytest.raises(ValueError, match="10 latent frames do not cut"):
        sf_core.PublishedNoise.of(session, 0, 10)
    with pytest.raises(ValueError, match="at most 16384 latent frames, here 16386"):
        sf_core.PublishedNoise.of(session, 0, 16386)
    noise = sf_core.PublishedNoise.of(session, 0, 9)
    with pytest.raises(ValueError, match="begins with a video's first chunk; this session has 1"):
        session.next_chunk()[0].with_noise(noise)
    with pytest.raises(ValueError, match="of another video than this session's"):
        begin(batch=2).with_noise(noise)
    with pytest.raises(ValueError, match="of another video than this session's"):
        sf_core.Session.start(session.model, prompt(0), (6, 6), session.config, noise=noise)
    with pytest.raises(ValueError, match="was given 9: none is drawn"):
        session.with_noise(noise).with_context(random_latents(9))


def test_a_source_has_other_draws_and_is_refused_in_either_order() -> None:
    session = begin(sf_core.RolloutConfig(window_frames=9))
    published = session.with_noise(sf_core.PublishedNoise.of(session, 0, 9))
    with pytest.raises(ValueError, match="a chunk with a source takes other draws"):
        published.with_source(random_latents(3), 0.9)
    with pytest.raises(ValueError, match="a chunk with a source takes other draws"):
        session.with_source(random_latents(3), 0.9).with_noise(published.noise)


# Sessions -------------------------------------------------------------------------------------------------------------


def published(rule: str, chunks: int = 6, model: sf_core.CausalWan | None = None) -> sf_core.Session:
    session = start(rule, model or random_model(layers=2))
    return session.with_noise(sf_core.PublishedNoise.of(session, 5, 2 * chunks))


@every_rule
def test_a_session_keeps_its_promises_with_published_noise(rule: str, tmp_path: Path) -> None:
    """Saved, loaded, rewound, forked, kept, re-rolled: the bits of a straight run."""
    whole = run(published(rule), 6)
    assert not torch.equal(whole.latents, run(start(rule, random_model(layers=2)), 6).latents)
    with pytest.raises(ValueError, match="drawn for a video of 12 latent frames, which is at its end"):
        whole.next_chunk()
    model = random_model(layers=2)
    session = run(published(rule, model=model), 3)
    session.save(tmp_path / "s")
    with safe_open(tmp_path / "s", "pt") as file:
        assert json.loads(file.metadata()[session_file.KEY])["version"] == 3
    other = random_model(layers=2)
    loaded = sf_core.Session.load(tmp_path / "s", other, reencode=reencode)
    assert torch.equal(run(loaded, 3).latents, whole.latents)
    assert torch.equal(run(loaded.rewind(2), 5).latents, whole.latents)
    fork = loaded.fork().next_chunk()[0]
    assert torch.equal(run(loaded.rewind(3), 6).latents, whole.latents)
    assert torch.equal(run(fork, 2).latents, whole.latents)
    while session.chunks < 6:
        assert session.next_key == sf_core.Session.load(tmp_path / "s", model, reencode=reencode).next_key
        session = session.with_chunk(**session.next_chunk()[0].newest_chunk())
        session.save(tmp_path / "s")
    assert torch.equal(session.latents, whole.latents)
    again = session.rewind(2).with_seed(9)
    assert again.next_key != session.rewind(2).next_key
    again = run(again, 4)  # past the clip's end: the pack's own noise has none
    assert torch.equal(again.latents[:, :, :8], whole.latents[:, :, :8])
    assert not torch.equal(again.latents[:, :, 8:12], whole.latents[:, :, 8:])
    assert torch.equal(run(again.rewind(5), 3).latents, whole.latents), "a rewind brings the published noise back"


def test_a_rolling_video_ends_as_the_script_does() -> None:
    """Nothing is begun behind the clip's last chunk, so `next_chunk` to the end is what `finish` gives."""
    session = run(published("rolling"), 4)
    flying = session.flights
    assert flying is not None
    assert flying.steps == (2, 1)
    finished = session.finish()[0]
    assert torch.equal(run(session, 2).latents, finished.latents)
    assert finished.flights is None
    early = run(published("rolling"), 2).finish()[0]
    assert early.chunks == 4
    assert run(early, 2).chunks == 6


def test_a_cut_a_prompt_and_a_shot_change_no_noise() -> None:
    session = published("solver and shots")
    for change in (session.with_cut(), session.with_prompt(prompt(3)), session.with_shot(prompt(4))):
        assert change.noise is session.noise
    cut = run(run(published("rolling"), 3).with_cut(), 3)
    again = run(published("rolling"), 3).with_cut()
    assert isinstance(again.model, sf_core.CausalWan)
    again.model.release_cache()
    assert torch.equal(run(again, 3).latents, cut.latents)


def test_given_frames_make_another_clip_whichever_comes_first(tmp_path: Path) -> None:
    session, given = begin(), random_latents(3)
    first = session.with_noise(sf_core.PublishedNoise.of(session, 2, 9)).with_context(given)
    behind = session.with_context(given)
    then = behind.with_noise(sf_core.PublishedNoise.of(behind, 2, 9))
    assert isinstance(first.noise, sf_core.PublishedNoise)
    assert (first.noise.frames, first.noise.chunks, first.noise.clip.given) == (9, 2, 3)
    assert torch.equal(run(first, 2).latents, run(then, 2).latents)
    run(first, 1).save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", session.model)
    assert torch.equal(run(loaded, 1).latents, run(then, 2).latents)
    with pytest.raises(ValueError, match="at its end"):
        run(loaded, 2)


def test_seed_length_and_order_are_in_the_key_of_a_kept_chunk() -> None:
    session = begin()
    of = sf_core.PublishedNoise.of
    noises = [of(session, 0, 9), of(session, 1, 9), of(session, 0, 12)]
    keys = {session.with_noise(noise).next_key for noise in noises} | {session.next_key}
    assert len(keys) == 4


def test_draws_of_another_kind_of_device_are_not_taken_for_its_own(tmp_path: Path) -> None:
    session = begin()
    noise = sf_core.PublishedNoise.of(session, 0, 9)
    noise.drawn_by = "cuda (132 x 2048 threads)"
    session.with_noise(noise).save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", session.model)
    with pytest.raises(ValueError, match=r"drawn by cuda \(132 x 2048 threads\), and here is"):
        loaded.next_chunk()
    loaded.with_seed(3).next_chunk()


def test_old_packs_refuse_the_file_and_others_stay_as_old_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published("top aligned").save(tmp_path / "new")
    for rule, version in (("top aligned", 2), ("plain", 1)):
        session = begin() if rule == "plain" else start(rule, random_model(layers=1))
        session.save(tmp_path / "s")
        with safe_open(tmp_path / "s", "pt") as file:
            assert json.loads(file.metadata()[session_file.KEY])["version"] == version
    monkeypatch.setattr("sf_core.session.saved_record.FORMAT_VERSION", 2)
    with pytest.raises(ValueError, match="has session format 3, this version reads up to 2: update the pack"):
        sf_core.Session.load(tmp_path / "new", random_model(layers=2))


def test_facts_of_noise_are_checked_and_said() -> None:
    facts = facts_of(published("average").noise)
    assert isinstance(facts, dict)
    assert are_facts(facts, with_published=True)
    assert not are_facts(facts, with_published=False)
    wrong: dict[str, Any] = {"source": "mine", "seed": -1, "frames": 0, "given": 12, "order": "x", "drawn_by": 3}
    for name, value in wrong.items():
        assert not are_facts({**facts, name: value}, with_published=True), name
    assert not are_facts({**facts, "more": 1}, with_published=True)
    assert noise_in_words(facts) == "5 as published (12 latent frames, drawn by cpu)"
    assert [noise_in_words(other) for other in (None, 7)] == ["the caller's noise", "7"]


def test_no_rule_is_without_an_order_unnoticed() -> None:
    for rule in RULES:
        clip = Clip((2,) * 6, (len(config(rule).timesteps(0)),) * 6, (4, *SIZE))
        assert order_for(config(rule), clip) in ORDERS

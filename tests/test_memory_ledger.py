"""What is said of memory is true, and whatever is advised is accepted, on cards of any size."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sf_core
from sf_core import tiny
from sf_core.byte_units import GIB
from sf_core.config import MAX_WINDOW_FRAMES
from sf_core.memory_advice import advice, changes_of, in_words, name_change, remedy, together
from sf_core.memory_ledger import DecoderCost, DeviceMemory, Ledger, Setup
from sf_core.model.architecture import PUBLISHED_SIZES, WanArchitecture
from sf_core.model.wan import CausalWan
from sf_core.planner import plan
from sf_core.rollout_rules import KV_DTYPES
from sf_core.vae.wan_vae import WanVAE, WanVAEConfig
from tests.helpers import SIZE, prompt, random_model, sink_settings

ROOT = Path(__file__).parent.parent
SIZE_480P = (60, 104)


def meta_model(architecture: WanArchitecture) -> CausalWan:
    with torch.device("meta"):
        return CausalWan(architecture).to(torch.bfloat16)


SMALL, LARGE = (meta_model(PUBLISHED_SIZES[name]) for name in ("1.3B", "14B"))
with torch.device("meta"):
    WAN_VAE = DecoderCost.of(WanVAE(WanVAEConfig()).to(torch.bfloat16))
LARGEST_PASS = 21  # latent frames of a joint recache at the published window
PUBLISHED = Setup(sf_core.RolloutConfig(window_frames=21), SIZE_480P, decoder=WAN_VAE)


def ledger(device: DeviceMemory, model: CausalWan = SMALL, weight_bytes: int = 2) -> Ledger:
    return Ledger(model, weight_bytes * sum(p.numel() for p in model.parameters()), device)


def test_the_parts_are_those_that_were_measured_on_a_gpu() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "realtime_cuda.json").read_text(encoding="utf-8"))["rows"]
    parts = ledger(DeviceMemory.card(80)).parts(PUBLISHED)
    measured = [result[row]["median"] for row in ("cache", "sampling, beside weights and cache")]
    assert [parts.cache / GIB, parts.sampling / GIB] == pytest.approx(measured, rel=0.01)
    assert parts.decoding / GIB == pytest.approx(result["decoding, beside weights"]["median"], rel=0.01)
    assert (parts.weights / GIB, parts.vae / GIB) == pytest.approx((2.64, 0.24), abs=0.01)
    assert parts.total / GIB == pytest.approx(13.4, abs=0.05)


def test_a_gpu_decodes_and_samples_in_turn_and_a_cpu_at_once() -> None:
    on_gpu, on_cpu = (ledger(DeviceMemory(kind, 64 * GIB)).parts(PUBLISHED) for kind in ("cuda", "cpu"))
    assert on_gpu.working == max(on_gpu.sampling + on_gpu.state, on_gpu.decoding)
    assert on_cpu.working == on_cpu.sampling + on_cpu.decoding


def test_the_published_settings_fit_a_16_gb_card() -> None:
    assert in_words(ledger(DeviceMemory.card(16)), PUBLISHED).startswith(
        "Fits the 16.0 GiB of your GPU: cache 5.7 GiB at window 21, weights 2.6 GiB, a chunk 209.8 MiB, decoder 4.8 GiB"
    )


@pytest.mark.parametrize("gib", [8, 12, 16, 24])
def test_the_first_run_of_text_to_video_fits_or_is_told_the_one_setting_with_which_it_does(gib: int) -> None:
    nodes = json.loads((ROOT / "workflows" / "text_to_video.json").read_text(encoding="utf-8"))["nodes"]
    _, chunk, window, sink, *_ = next(n["widgets_values"] for n in nodes if n["type"] == "SFRolloutSettings")
    width, height, *_ = next(n["widgets_values"] for n in nodes if n["type"] == "SFSession")
    config = sf_core.RolloutConfig(chunk_frames=chunk, window_frames=window, sink_frames=sink)
    setup, card = Setup(config, (height // 8, width // 8), decoder=WAN_VAE), ledger(DeviceMemory.card(gib))
    said = in_words(card, setup)
    assert said.startswith("Fits" if gib > 8 else "Too much")
    if gib == 12:
        assert "with 23.0 MiB of the weights offloaded" in said
        assert said.endswith("take an int8 cache: it takes 2.5 GiB (kv_dtype of Rollout Settings)")
        quantised = replace(setup, config=replace(config, kv_dtype="int8"))
        assert in_words(card, quantised).startswith("Fits the 12.0 GiB of your GPU: cache 2.5 GiB (int8)")
    if gib == 8:
        assert "A TAEHV (taew2_1) as decoder would fit: it takes 761.7 MiB (Load VAE)" in said
        setup = replace(setup, decoder=WAN_VAE.small())
        assert in_words(card, setup).startswith("Fits the 8.0 GiB of your GPU:")
    assert card.parts(setup).beside_weights + card.least_weights <= card.device.room


def test_weights_that_do_not_fit_are_said_to_be_offloaded() -> None:
    said = in_words(ledger(DeviceMemory.card(12)), PUBLISHED)
    assert said.startswith("Fits the 12.0 GiB of your GPU with 2.4 GiB of the weights offloaded, which is slower")
    assert said.endswith(
        "To keep all weights on the GPU, take a TAEHV (taew2_1) as decoder: it takes 761.7 MiB (Load VAE)"
    )
    own = replace(PUBLISHED, decoder=replace(WAN_VAE, replaceable=False))
    said = in_words(ledger(DeviceMemory.card(12)), own)
    assert "To keep all weights on the GPU, take an int4 cache" in said, "and not one in RAM, which is as slow"
    assert in_words(ledger(DeviceMemory.card(12, offloads=False)), PUBLISHED).startswith("Too much")


def test_a_cpu_has_ram() -> None:
    assert in_words(ledger(DeviceMemory("cpu", 64 * GIB)), PUBLISHED).startswith("Fits the 64.0 GiB of your RAM: ")


def test_an_unbounded_window_is_told_a_window_that_fits() -> None:
    setup = replace(PUBLISHED, config=sf_core.RolloutConfig(window_frames=None), frames=120)
    card = ledger(DeviceMemory.card(12, ram=32 * GIB))
    assert "Too much" in in_words(card, setup)
    assert "A window of 11 latent frames would fit: its cache is 3.0 GiB (Rollout Settings)" in in_words(card, setup)
    enough = ledger(DeviceMemory.card(12, ram=96 * GIB))
    assert "The cache in RAM would fit" in in_words(enough, setup), "which is the same video"


def test_a_cache_that_ram_does_not_hold_is_neither_advised_nor_accepted() -> None:
    setup = replace(PUBLISHED, config=sf_core.RolloutConfig(window_frames=21, kv_offload=True))
    roomy, small = (ledger(DeviceMemory.card(12, ram=gib * GIB)) for gib in (16, 11))
    assert in_words(roomy, setup).startswith("Fits the 12.0 GiB of your GPU")
    assert in_words(small, setup).startswith("Too much for the 11.0 GiB of your RAM: cache")
    assert "An int8 cache would fit" in in_words(small, setup)
    assert plan(small, replace(setup, config=PUBLISHED.config)).parts.host_cache == 0


def test_where_no_single_setting_fits_those_that_do_together_are_named() -> None:
    card = ledger(DeviceMemory.card(7, offloads=False))
    said = in_words(card, PUBLISHED)
    assert said.endswith(
        "Together would fit: the cache in RAM, a TAEHV as decoder ('fit' of Rollout Settings finds them)"
    )
    several = together(card, PUBLISHED)
    assert several is not None
    assert in_words(card, several).startswith("Fits")


def test_where_a_window_cannot_shrink_an_int8_cache_is_advised_and_accepted() -> None:
    krea = sf_core.RolloutConfig(context="recompute", context_frames=18, window_frames=21)
    setup, card = replace(PUBLISHED, config=krea, decoder=None), ledger(DeviceMemory.card(8, offloads=False))
    said = in_words(card, setup)
    assert said.startswith("Too much for the 8.0 GiB of your GPU: cache 5.7 GiB at window 21")
    assert said.endswith("An int8 cache would fit: it takes 3.4 GiB (kv_dtype of Rollout Settings)")
    changed = in_words(card, replace(setup, config=replace(krea, kv_dtype="int8")))
    assert changed.startswith("Fits the 8.0 GiB of your GPU: cache 3.4 GiB (int8) at window 21")


def test_an_int8_cache_is_advised_before_a_smaller_window() -> None:
    """A video stays nearly the same with it."""
    setup, card = replace(PUBLISHED, decoder=WAN_VAE.small()), ledger(DeviceMemory.card(8, offloads=False))
    assert "An int8 cache would fit: it takes 3.4 GiB (kv_dtype of Rollout Settings)" in in_words(card, setup)
    smaller = replace(setup, config=replace(setup.config, kv_dtype="int8"))
    assert in_words(card, smaller).startswith("Fits the 8.0 GiB of your GPU: cache 3.4 GiB (int8) at window 21")
    smaller_card = ledger(DeviceMemory.card(7.4, offloads=False))
    assert "A window of 18 latent frames would fit" in in_words(smaller_card, smaller)


def test_a_joint_recache_counts_with_the_window_that_it_passes_at_once() -> None:
    """Not with all frames that were made, and not as the chunk that follows it."""
    joint = replace(PUBLISHED, joint_frames=300)
    plain, parts = (ledger(DeviceMemory.card(16)).parts(setup) for setup in (PUBLISHED, joint))
    buffers = LARGEST_PASS * 30 * 52 * 1536 * 2 * 2  # keys and values of one layer, in bf16
    assert parts.recache == pytest.approx(plain.sampling * LARGEST_PASS / 3 + buffers, rel=1e-6)
    assert parts.working == max(parts.recache + parts.state, parts.decoding)
    assert parts.sampling == plain.sampling
    assert "a joint recache 1.6 GiB" in in_words(ledger(DeviceMemory.card(16)), joint)
    unbounded = replace(joint, config=sf_core.RolloutConfig(window_frames=None))
    assert ledger(DeviceMemory.card(80)).parts(unbounded).recache > 10 * parts.recache
    krea = sf_core.RolloutConfig(context="recompute", context_frames=18, window_frames=21)
    assert ledger(DeviceMemory.card(16)).parts(replace(joint, config=krea)).recache == 0


def test_where_a_joint_recache_is_too_much_one_chunk_by_chunk_is_advised_and_accepted() -> None:
    quantised = sf_core.RolloutConfig(window_frames=21, kv_dtype="int8")
    setup = replace(PUBLISHED, config=quantised, decoder=WAN_VAE.small(), joint_frames=60)
    card = ledger(DeviceMemory.card(8.2, offloads=False))
    said = in_words(card, setup)
    assert said.startswith("Too much for the 8.2 GiB of your GPU")
    assert said.endswith(
        "'recache' in place of 'joint' would fit: it passes the window chunk by chunk (Switch Prompt, Prompt Timeline)"
    )
    assert in_words(card, replace(setup, joint_frames=0)).startswith("Fits the 8.2 GiB of your GPU")


def test_a_cache_in_ram_is_said_in_both_places_and_advised_before_a_tiny_window() -> None:
    config = replace(PUBLISHED.config, kv_dtype="int4", window_frames=60)
    setup = replace(PUBLISHED, config=config, decoder=WAN_VAE.small())
    card = ledger(DeviceMemory.card(6, offloads=False))
    assert (
        "The cache in RAM would fit: it takes 440.5 MiB of the GPU and 4.2 GiB of RAM, and is slower "
        "(kv_offload of Rollout Settings)"
    ) in in_words(card, setup)
    said = in_words(card, replace(setup, config=replace(config, kv_offload=True)))
    assert "cache 440.5 MiB (int4) at window 60, and 4.2 GiB in RAM" in said
    on_cpu = ledger(DeviceMemory("cpu", 64 * GIB)).parts(replace(setup, config=replace(config, kv_offload=True)))
    assert on_cpu.host_cache == 0
    assert on_cpu.cache > 3 * GIB, "all of it is RAM there"


def test_where_the_vae_alone_ran_out_no_smaller_cache_is_advised() -> None:
    """A setting that leaves the VAE's memory as it is changes nothing for the next try."""
    card = ledger(DeviceMemory("cuda", 4 * GIB)).without_sampling()
    assert str(advice(card, PUBLISHED)) == "A TAEHV (taew2_1) as decoder would fit: it takes 761.7 MiB (Load VAE)"
    own = replace(PUBLISHED, decoder=replace(WAN_VAE, replaceable=False))
    said = advice(card, own)
    assert said == "720 x 416 pixels would fit: the VAE takes more at 832 x 480 pixels (Self Forcing Session)"
    changed = remedy(card, own)
    assert changed is not None
    assert card.fits(changed)
    assert advice(replace(card, device=DeviceMemory("cuda", 1)), own).startswith("No size fits: close other programs")


def test_a_vae_of_other_latents_is_not_replaced_by_a_taehv_of_wan() -> None:
    with torch.device("meta"):
        assert DecoderCost.of(WanVAE(WanVAEConfig(8, 16, (1, 2, 4, 4), 1, (False, True, True)))).replaceable
    assert not DecoderCost.of(tiny.load_vae()).replaceable


def test_a_window_without_measure_is_answered_at_once() -> None:
    setup = replace(PUBLISHED, config=sf_core.RolloutConfig(window_frames=MAX_WINDOW_FRAMES))
    begun = time.process_time()
    assert "would fit" in in_words(ledger(DeviceMemory.card(16)), setup)
    assert time.process_time() - begun < 0.5


def test_a_model_that_no_setting_makes_fit_is_said_to_be_too_large() -> None:
    said = in_words(ledger(DeviceMemory.card(8, offloads=False), LARGE), PUBLISHED)
    assert "No window and no size fits" in said
    assert "fp8" in said


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    chunk, sink = draw(st.integers(1, 6)), draw(st.integers(0, 6))
    window = draw(st.one_of(st.none(), st.integers(chunk + sink, 200)))
    kv_dtype, offload = draw(st.sampled_from([None, None, *KV_DTYPES])), draw(st.booleans())
    context, whole = chunk * draw(st.integers(1, 9)), chunk * draw(st.integers(2, 30))
    config = draw(
        st.sampled_from(
            [
                {"sink_frames": sink, "window_frames": window, **sink_settings(draw, window)},
                {"sink_frames": chunk, "window_frames": whole, "sink_average": 0.999},
                {"schedule": "rolling", "sink_frames": sink, "window_frames": 4 * chunk + sink + whole},
                {"context": "recompute", "context_frames": context, "window_frames": context + chunk},
            ]
        ).map(
            lambda settings: sf_core.RolloutConfig(
                chunk_frames=chunk, kv_dtype=kv_dtype, kv_offload=offload, **settings
            )
        )
    )
    size = (2 * draw(st.integers(1, 70)), 2 * draw(st.integers(1, 120)))
    decoder = draw(st.sampled_from([None, WAN_VAE, WAN_VAE.small()]))
    joint = draw(st.sampled_from([0, 0, chunk, 60, 400]))
    return Setup(config, size, draw(st.integers(1, 2)), draw(st.integers(0, 400)), decoder, joint)


@given(
    setups(),
    st.floats(2, 80),
    st.sampled_from(["cuda", "cpu"]),
    st.booleans(),
    st.sampled_from([SMALL, LARGE]),
    st.sampled_from([0, 16 * GIB, 64 * GIB]),
)
def test_whatever_is_advised_is_accepted(
    setup: Setup, gib: float, kind: str, offloads: bool, model: CausalWan, ram: int
) -> None:
    device = replace(DeviceMemory.card(gib, offloads and kind == "cuda", ram), kind=kind)
    card = ledger(device, model, weight_bytes=1)
    changed = remedy(card, setup)
    if changed is None:
        tiny = replace(setup, latent_size=model.arch.patch_size[1:])
        assert not card.fits(tiny) or card.fits(setup)
        return
    what, details = name_change(card, setup, changed)
    assert card.fits(changed)
    assert in_words(card, changed).startswith("Fits")
    setting = {
        "config": "Rollout Settings",
        "decoder": "Load VAE",
        "latent_size": "Self Forcing Session",
        "joint_frames": "Switch Prompt",
    }
    assert sum(getattr(changed, name) != getattr(setup, name) for name in setting) == 1
    quantised = replace(setup, config=replace(setup.config, kv_dtype="int8"))
    if setup.config.kv_dtype is None and card.fits(quantised, offloading=False):
        assert changed == quantised, "it comes before all that changes the video"
    if changed.latent_size == setup.latent_size and not card.fits(setup):
        chosen = plan(card, setup).setup
        assert card.fits(chosen)
        whole = card.fits(changed, offloading=False)
        assert not whole or card.fits(chosen, offloading=False)
        if len(changes_of(setup, chosen)) == 1 and whole == card.fits(chosen, offloading=False):
            assert chosen == changed, "a plan and advice have one order"
    (name,) = (name for name in setting if getattr(changed, name) != getattr(setup, name))
    assert what
    assert setting[name] in details


@given(setups(), st.integers(1, 4))
def test_a_smaller_window_picture_or_decoder_never_takes_more(setup: Setup, more: int) -> None:
    """Advice is found by bisection, which relies on this."""
    card = ledger(DeviceMemory.card(16))
    config, (rows, columns) = setup.config, setup.latent_size
    bigger = [replace(setup, latent_size=(rows + 2 * more, columns + 2 * more))]
    if config.window_frames is not None:
        most = config.trained_frames or config.window_frames + more * config.chunk_frames
        wider = config.windows_below(most + 1, config.window_frames + 1)
        bigger += [replace(setup, config=replace(config, window_frames=window)) for window in wider]
    if setup.decoder is WAN_VAE:
        assert card.parts(replace(setup, decoder=WAN_VAE.small())).total < card.parts(setup).total
    assert card.parts(replace(setup, joint_frames=0)).total <= card.parts(setup).total
    assert all(card.parts(setup).total <= card.parts(other).total for other in bigger)


def test_an_unbounded_window_plans_its_growth_before_the_chunk_that_needs_it() -> None:
    model = random_model(layers=2)
    card = Ledger(model, 0, DeviceMemory.card(16))
    session = sf_core.Session.start(model, prompt(0), SIZE, sf_core.RolloutConfig(window_frames=None))
    for _ in range(20):
        planned = Setup(session.config, SIZE, frames=session.frames + session.config.frames_of_block(session.frames))
        session, _ = session.next_chunk()
        assert model.caches.nbytes == card.parts(planned).cache

"""Plans: what they say is counted, what they advise fits, and they change no more than they have to."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sf_core
from sf_core import device_rates
from sf_core.__main__ import main
from sf_core.byte_units import format_bytes
from sf_core.cli.model_sizes import SIZES, model_in, wished
from sf_core.cli.plan import table
from sf_core.device_rates import DeviceRates, known_rates, measure_rates, remembered_rates
from sf_core.memory_ledger import DecoderCost, DeviceMemory, Ledger, Setup
from sf_core.plan_in_words import in_words
from sf_core.planner import plan, planned
from sf_core.vae.wan22_vae import Wan22VAE, Wan22VAEConfig
from sf_core.vae.wan_vae import WanVAE, WanVAEConfig
from sf_core.work import passes_of, work_of
from tests.helpers import SIZE, prompt, random_model

DOCS = Path(__file__).parent.parent / "docs"
FAST = DeviceRates("fast", 400e12, 400e12, 200e12, 20e9)
RULES: list[sf_core.RolloutConfig] = [
    sf_core.RolloutConfig(chunk_frames=2, window_frames=8, denoising_steps=(1000, 500)),
    sf_core.RolloutConfig(chunk_frames=2, window_frames=8, denoising_steps=(1000, 500), context_from_last_step=True),
    sf_core.RolloutConfig(
        schedule="rolling", chunk_frames=2, window_frames=8, sink_frames=2, denoising_steps=(1000, 750, 250)
    ),
]


def by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("config", RULES)
def test_the_work_of_a_chunk_is_what_torch_counts(config: sf_core.RolloutConfig) -> None:
    model = random_model(layers=6)
    model.attention = by_products
    session = sf_core.Session.start(model, prompt(0), SIZE, config)
    for _ in range(8):
        session, _ = session.next_chunk()
    with FlopCounterMode(display=False) as counter:
        session.next_chunk()
    arch = replace(model.arch, text_len=prompt(0).shape[1])  # the tiny prompts are shorter than the model's text
    work = work_of(arch, model.cache_shape(config, SIZE, 1), Setup(config, SIZE))
    assert work.total == pytest.approx(counter.get_total_flops(), rel=0.12), "the last layer of a cache pass ends early"
    assert work.frames == 8


def test_the_work_of_the_decoders_is_what_torch_counts() -> None:
    for config, channels in ((WanVAEConfig(), 16), (Wan22VAEConfig(), 48)):
        with torch.device("meta"):
            vae = (Wan22VAE(config) if isinstance(config, Wan22VAEConfig) else WanVAE(config)).to(torch.bfloat16)
        state, latents = vae.state_type(), torch.zeros(1, channels, 1, 30, 52, device="meta", dtype=torch.bfloat16)
        with torch.no_grad():
            vae.decode_next(latents, state)
            with FlopCounterMode(display=False) as counter:
                frames = vae.decode_next(latents, state)
        said = DecoderCost.of(vae).work(Setup(sf_core.RolloutConfig(), (30, 52))) * frames.shape[1]
        assert said == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_rolling_schedule_passes_a_joint_chunk_and_a_clean_one() -> None:
    assert passes_of(Setup(RULES[0], SIZE)) == [(2, 8)] * 3
    assert passes_of(Setup(RULES[1], SIZE)) == [(2, 8)] * 2
    assert passes_of(Setup(RULES[2], SIZE)) == [(6, 8), (2, 8)]


cards = st.builds(
    DeviceMemory.card,
    st.sampled_from([4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80]),
    st.booleans(),
    st.sampled_from([0, 16, 64]).map(lambda gib: gib * 2**30),
) | st.integers(4, 256).map(lambda gib: DeviceMemory("cpu", gib * 2**30))


@given(
    cards,
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(sf_core.presets()),
    st.integers(4, 60),
    st.integers(4, 40),
    st.sampled_from([0.0, 8.0, 16.0]),
    st.booleans(),
)
def test_whatever_is_planned_fits(
    device: DeviceMemory, size: str, preset: str, columns: int, rows: int, fps: float, unbounded: bool
) -> None:
    config = sf_core.preset(preset)
    if unbounded:
        with contextlib.suppress(ValueError):  # rules that need a window
            config = replace(config, window_frames=None)
    ledger, setup = wished(SIZES[size], config, device, (32 * columns, 32 * rows))
    found = None
    with contextlib.suppress(ValueError):
        found = plan(ledger, setup, FAST if fps else None, fps)
    if found is None:
        assert not ledger.fits(setup)
        with pytest.raises(ValueError, match="nothing fits"):
            plan(ledger, setup)
        return
    assert ledger.fits(found.setup)
    assert found.parts == ledger.parts(found.setup)
    if ledger.fits(setup, offloading=False) and not fps:
        assert found.setup == setup, "nothing has to be changed"


def test_real_time_is_had_by_the_least_change_or_the_fastest_is_said_to_be_too_slow() -> None:
    ledger, setup = wished(SIZES["1.3B"], sf_core.RolloutConfig(), DeviceMemory.card(80), (832, 480))
    assert plan(ledger, setup, FAST, 8.0).setup == setup
    slower = replace(FAST, products=100e12, attention=100e12, convolution=60e12)
    asked, found = planned(ledger, setup, slower, 8.0), plan(ledger, setup, slower, 8.0)
    assert not asked.in_time
    assert found.in_time
    assert found.fps is not None
    assert found.fps >= 8
    hopeless = plan(ledger, setup, DeviceRates("slow", 1e9, 1e9, 1e9, 1e9), 16.0)
    assert not hopeless.in_time
    assert len(hopeless.setup.config.denoising_steps) == 2


def test_an_offloaded_cache_takes_as_long_as_it_is_copied() -> None:
    ledger, setup = wished(SIZES["1.3B"], sf_core.RolloutConfig(kv_offload=True), DeviceMemory.card(8), (832, 480))
    quick, slow = (planned(ledger, setup, replace(FAST, copies=rate)).fps for rate in (100e9, 1e9))
    assert quick is not None
    assert slow is not None
    assert slow < quick / 10
    copied = planned(ledger, setup).work.copied
    assert copied == 5 * ledger.model.cache_shape(setup.config, setup.latent_size, 1).host_bytes()


def test_offloaded_weights_are_copied_for_each_pass() -> None:
    ledger, setup = wished(SIZES["1.3B"], sf_core.RolloutConfig(), DeviceMemory.card(12), (832, 480))
    whole = planned(replace(ledger, device=DeviceMemory.card(80)), setup, FAST)
    part = planned(ledger, setup, FAST)
    assert whole.offloaded == 0
    assert part.offloaded > 2**30
    assert part.fps is not None
    assert whole.fps is not None
    more = part.work.frames / part.fps - whole.work.frames / whole.fps
    assert more == pytest.approx(5 * part.offloaded / FAST.copies)


def test_rates_are_measured_once_for_a_device_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rates, "rates_file", lambda: tmp_path / "cache" / "rates.json")
    asked: list[torch.dtype] = []

    def measured(device: torch.device, dtype: torch.dtype) -> DeviceRates:
        asked.append(dtype)
        return replace(FAST, name=device_rates.device_name(device, dtype))

    monkeypatch.setattr(device_rates, "measure_rates", measured)
    cpu = torch.device("cpu")
    assert remembered_rates(cpu, torch.float32) is None
    first = known_rates(cpu, torch.float32)
    assert known_rates(cpu, torch.float32) == first
    assert remembered_rates(cpu, torch.float32) == first
    assert asked == [torch.float32]
    known_rates(cpu, torch.bfloat16)
    assert known_rates(cpu, torch.float32, anew=True) == first
    assert asked == [torch.float32, torch.bfloat16, torch.float32]
    assert len(json.loads((tmp_path / "cache" / "rates.json").read_text())) == 2
    for spoilt in ("[]", "{", '{"' + first.name + '": 3}'):
        (tmp_path / "cache" / "rates.json").write_text(spoilt)
        assert known_rates(cpu, torch.float32) == first


def test_a_cpu_is_measured_in_all_four() -> None:
    rates = measure_rates(torch.device("cpu"), torch.float32, seconds=0.01)
    assert min(rates.products, rates.attention, rates.convolution, rates.copies) > 1e6


def test_a_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "12"]) == 0
    said = capsys.readouterr().out
    assert "changed     an int8 cache, window 20 in place of 21" in said
    assert "TFLOP for a chunk of 12 frames" in said
    assert "frames a second" not in said, "nobody knows how fast that card is"
    assert main(["plan", "--memory", "2", "--size-of", "14B"]) == 1
    assert "nothing fits the 2.0 GiB" in capsys.readouterr().err
    assert main(["plan", "--memory", "nan"]) == 1
    assert "--memory is nan; expected" in capsys.readouterr().err


def test_a_file_is_planned_for_by_its_sizes_and_dtypes_without_reading_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = random_model(layers=6), tmp_path / "longlive_base.safetensors"
    facts = {"sf.num_heads": str(model.arch.num_heads), "sf.text_len": str(model.arch.text_len)}
    values = sum(parameter.numel() for parameter in model.parameters())
    for dtype, itemsize in ((torch.float32, 2), (torch.bfloat16, 2), (torch.float8_e4m3fn, 1)):
        save_file({name: value.to(dtype) for name, value in model.state_dict().items()}, path, facts)
        found = model_in(path)
        assert found.arch == model.arch
        assert found.weights == values * itemsize
        ledger, _ = wished(found, found.config, DeviceMemory.card(12), (64, 64))
        assert ledger.weights == values * itemsize
        assert main(["plan", "--memory", "12", "--model", str(path), "--size", "64", "64"]) == 0
        said = capsys.readouterr().out
        assert f"longlive_base.safetensors: {len(model.state_dict())} tensors, LongLive" in said
        assert f"{str(dtype).removeprefix('torch.')}, " in said
        assert ("which is loaded as bfloat16" in said) == (dtype is torch.float32)
        assert "window_frames=12; sink_frames=3" in said, "the settings of that model"
    assert main(["plan", "--memory", "12", "--model", str(path), "--size", "64", "64", "--weights", "bf16"]) == 0
    assert f"weights {format_bytes(values * 2)}" in capsys.readouterr().out


def test_a_file_that_holds_no_model_is_named_and_no_rate_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_rates, "measure_rates", lambda *_: pytest.fail("before the file was read"))
    monkeypatch.setattr(device_rates, "rates_file", lambda: tmp_path / "rates.json")
    lora = tmp_path / "lora.safetensors"
    save_file({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(4, 8)}, lora)
    for path, why in ((lora, "is a LoRA"), (DOCS / "performance.md", "is text, not a model")):
        assert main(["plan", "--model", str(path)]) == 1
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--model", str(lora), "--size-of", "14B"])


def test_the_table_in_the_docs_is_the_one_that_is_printed() -> None:
    assert table() in (DOCS / "performance.md").read_text(encoding="utf-8")


def test_a_plan_says_what_it_chose_and_changed_and_how_fast_it_is() -> None:
    ledger, setup = wished(SIZES["1.3B"], sf_core.RolloutConfig(), DeviceMemory.card(8), (832, 480))
    assert in_words(ledger.device, setup, plan(ledger, setup), None, 0.0) == (
        "Fitted to your GPU: window 21, sink 0, cache int8 on the GPU, 4 steps; changed: an int8 cache, a TAEHV as "
        "decoder. Decode with a TAEHV (taew2_1, by Load VAE): it is planned with that one. Its speed is not "
        "predicted, since this GPU was not measured"
    )
    ledger = replace(ledger, device=DeviceMemory.card(80))
    said = in_words(ledger.device, setup, plan(ledger, setup, FAST, 8.0), FAST, 8.0)
    assert said.startswith("Fitted to your GPU: window 21, sink 0, cache as the model on the GPU, 4 steps; nothing had")
    assert "It is planned with the Wan VAE as decoder" in said
    assert said.endswith(" frames a second are predicted, by what was measured on fast")
    slow = DeviceRates("slow", 1e9, 1e9, 1e9, 1e9)
    said = in_words(ledger.device, setup, plan(ledger, setup, slow, 16.0), slow, 16.0)
    assert "2 steps in place of 4" in said
    assert said.endswith("That is less than the 16 of real time: take a smaller picture")
    endless = replace(setup, config=sf_core.RolloutConfig(window_frames=None), frames=241)
    cpu = DeviceMemory("cpu", 20 * 2**30)
    fitted = plan(replace(ledger, device=cpu), endless)
    said = in_words(cpu, endless, fitted, None, 0.0)
    assert f"window {fitted.setup.config.window_frames} in place of none" in said
    assert "Without a window the cache grows: 241 latent frames were planned" in said
    unknown = DeviceMemory("mps", 0)
    said = in_words(unknown, setup, plan(replace(ledger, device=unknown), setup), None, 0.0)
    assert said.startswith(
        "Your RAM does not tell its memory: window 21, sink 0, cache as the model in RAM, 4 steps, as"
    )


def test_a_cache_in_ram_is_said_to_be_there() -> None:
    ledger, setup = wished(SIZES["14B"], sf_core.RolloutConfig(), DeviceMemory.card(12), (832, 480))
    said = in_words(ledger.device, setup, plan(ledger, setup), None, 0.0)
    assert "cache as the model in RAM, 4 steps; changed: the cache in RAM." in said


def test_a_ledger_without_a_known_memory_takes_everything() -> None:
    ledger, setup = wished(SIZES["14B"], sf_core.RolloutConfig(), DeviceMemory("mps", 0), (832, 480))
    assert isinstance(ledger, Ledger)
    assert plan(ledger, setup).setup == setup

"""What `info` says of a file, and what `convert` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sf_core
from sf_core.cli.info import describe
from sf_core.files import safetensors_file as tensor_file
from sf_core.files.convert import convert
from sf_core.files.published_models import PUBLISHED_MODELS, model_by_name, model_by_words
from tests.files.formats import GAN, State, diffusers, fsdp, prefixed
from tests.helpers import random_model

STATE: State = dict(random_model(layers=2, dim=256, heads=2).state_dict())


def said(path: Path) -> dict[str, str]:
    return dict(line.split("  ", 1) for line in describe(path).splitlines())


def saved(path: Path, state: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)
    return path


# info ----------------------------------------------------------------------------------------------------------------


def test_a_trainers_checkpoint_is_taken_apart(tmp_path: Path) -> None:
    wrapped = {fsdp(name): tensor for name, tensor in STATE.items()}
    groups = {"generator": wrapped | GAN, "generator_ema": wrapped, "critic": prefixed("model.", STATE), "step": 600}
    lines = {key: value.strip() for key, value in said(saved(tmp_path / "model.pt", groups)).items()}
    count = len(STATE)
    assert lines["kind"] == "Wan 2.1 text-to-video transformer"
    assert lines["width, layers, heads"] == "256, 2, 2"
    assert lines["groups"] == (
        f"generator_ema: {count} tensors (these are loaded); generator: {count + 3} tensors; critic: {count} tensors"
    )
    assert lines["wrapped in"] == "_checkpoint_wrapped_module, _fsdp_wrapped_module, _orig_mod, model"
    assert lines["not loaded"] == "3 tensors of a GAN discriminator"
    assert "a trainer saved this file, and neither its weights nor its name tell the model" in lines["looks like"]
    assert lines["settings"] == "unknown; where none are given, Self Forcing's are used"


def test_diffusers_names_and_fp8_are_told(tmp_path: Path) -> None:
    state = {diffusers(name): tensor.to(torch.float8_e4m3fn) for name, tensor in STATE.items()}
    state["blocks.0.attn1.to_q.scale_weight"] = torch.ones(())
    save_file(state, tmp_path / "m.safetensors")
    text = describe(tmp_path / "m.safetensors")
    assert "names                 diffusers'" in text
    assert "float8_e4m3fn, with scales" in text
    assert "none that is published has this size" in text


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("checkpoints/self_forcing_dmd.pt", "Self Forcing"),
        ("Self-Forcing/model.pt", "Self Forcing"),
        ("checkpoints/ode_init.pt", "an initialisation (ODE pairs)"),
        ("chunkwise/causal_forcing.pt", "Causal Forcing, chunk-wise"),
        ("framewise/causal_forcing.pt", "Causal Forcing, frame-wise"),
        ("causal-forcing++/framewise-2step.pt", "Causal Forcing++, frame-wise, 2 steps"),
        ("causal-forcing++/framewise-1step.pt", "Causal Forcing++, frame-wise, 1 step"),
        ("chunkwise/longvideo.pt", "Causal Forcing, long video"),
        ("checkpoints/rolling_forcing_dmd.pt", "Rolling Forcing"),
        ("models/longlive_base.pt", "LongLive"),
        ("models/krea-realtime-video-14b.safetensors", "Krea Realtime 14B"),
        ("models/Wan21_CausVid_14B_T2V_lora_rank32.safetensors", "CausVid"),
        ("diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors", "Wan 2.1 itself"),
        ("models/model.pt", None),
        ("diffusion_models/causal_forcing.pt", "Causal Forcing"),
        ("diffusion_models/causal_forcing-framewise.safetensors", "Causal Forcing, frame-wise"),
        ("diffusion_models/longvideo.pt", "Causal Forcing, long video"),
        ("models/rewardforcing.pt", "Reward Forcing"),
        ("infinite-forcing/model.pt", "Infinite-Forcing"),
        ("self_gradient_forcing_plus/model.pt", "SGF+"),
        ("sgf_plus/framewise_ar_model.pt", "SGF+, frame-wise"),
        ("self_gradient_forcing/chunkwise_ar_model.pt", "SGF"),
        ("models/sgf_framewise.pt", "SGF, frame-wise"),
        ("MemFlow/base.pt", "MemFlow"),
        ("models/Causal_rCM_Wan2.1_T2V_1.3B_480p_dmd_c3-3.pt", "Causal-rCM, c3-3, 4 steps"),
        ("models/Causal_rCM_Wan2.1_T2V_1.3B_480p_dmd_c1-4_step2.pt", "Causal-rCM, c1-4, 2 steps"),
        (
            "models/Causal_rCM_Wan2.1_T2V_1.3B_480p_x_c1-1_step2_noisy_ctx.pt",
            "Causal-rCM, c1-1, 2 steps, noisy context",
        ),
        ("models/Causal_rCM_Wan2.1_T2V_1.3B_480p_x_c1-1_step1.pt", "Causal-rCM, c1-1, 1 step"),
        ("longlive-2.0-5b/model_bf16.pt", "LongLive 2"),
        ("SFWan2.1-T2V-1.3B-Diffusers/diffusion_pytorch_model.safetensors", "Self Forcing"),
        ("models/self_forcing_10s.pt", "Self Forcing, 10 seconds"),
        ("models/raven_model.pt", "RAVEN"),
        ("wan_causal_dmd_v2v/model.pt", "StreamDiffusionV2"),
        ("diffusion_models/krea2_turbo.safetensors", None),
    ],
)
def test_published_files_are_known_by_name(name: str, member: str | None) -> None:
    found = model_by_words(name)
    assert (found.name if found else None) == member


def test_a_name_is_a_hint_and_settings_follow_it(tmp_path: Path) -> None:
    text = describe(saved(tmp_path / "longlive" / "longlive_base.pt", {"generator": prefixed("model.", STATE)}))
    assert "LongLive, by the name of the file; the weights of such models look alike" in text
    assert "window_frames=12, sink_frames=3, denoising_steps=(1000, 750, 500, 250), shift=5.0" in text


def test_every_members_settings_can_run() -> None:
    for member in PUBLISHED_MODELS:
        if member.config:
            assert member.config.timesteps(0)
            assert model_by_name(member.name) is member
    with pytest.raises(ValueError, match="no rollout settings are known for 'Sora'; known are: SGF\\+, frame-wise; "):
        model_by_name("Sora")


def test_the_families_schedules() -> None:
    """Algorithm notes, section 1.2: warped lists at shift 5; CausVid's is used as it is."""
    steps = {m.name: [round(t, 1) for t in m.config.timesteps(3)] for m in PUBLISHED_MODELS if m.config}
    assert steps["Self Forcing"] == [1000, 937.5, 833.3, 625]
    assert steps["CausVid"] == [1000, 757, 522]
    assert steps["Causal Forcing++, frame-wise, 2 steps"] == [1000, 833.3]
    assert steps["Rolling Forcing"] == [1000, 952.4, 882.4, 769.2, 555.6]


def test_a_lora_is_told_with_its_rank(tmp_path: Path) -> None:
    names = [f"base_model.model.blocks.0.self_attn.q.lora_{part}.weight" for part in "AB"]
    lora = {names[0]: torch.ones(256, 256), names[1]: torch.ones(256, 256)}
    text = describe(saved(tmp_path / "lora.pt", {"generator_lora": lora, "critic_lora": lora}))
    assert "LoRA of a Wan 2.1 transformer, to be loaded with its base" in text
    assert "256 (1 layers)" in text
    assert "LongLive, by its group and rank; other trainers could write the same" in text
    assert "not in the file: the rank" in text
    save_file({"lora_unet_blocks_0_ffn_0.lora_down.weight": torch.ones(4, 8)}, tmp_path / "l.safetensors")
    assert "nothing in it says of which" in describe(tmp_path / "l.safetensors")


def test_info_reads_hardly_any_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.pt", {"generator": STATE})
    values = []
    read = tensor_file.StoredTensor._values

    def counted(stored: tensor_file.StoredTensor, file: BinaryIO, count: int) -> torch.Tensor:
        values.append(count)
        return read(stored, file, count)

    monkeypatch.setattr(tensor_file.StoredTensor, "_values", counted)
    assert "256, 2, 2" in describe(path)
    assert sum(values) < 2 * tensor_file.PIECE < sum(tensor.numel() for tensor in STATE.values()) / 4


# convert --------------------------------------------------------------------------------------------------------------


def converted(source: Any, target: Path, **settings: Any) -> tuple[State, dict[str, str]]:
    facts = convert(source, target, **settings)
    with safe_open(target, framework="pt") as file:
        assert file.metadata() == {"format": "pt", **facts}
    return load_file(target), facts


def test_a_converted_file_holds_the_same_weights_under_original_names(tmp_path: Path) -> None:
    groups = {"generator_ema": {fsdp(name): tensor for name, tensor in STATE.items()}, "critic": STATE}
    state, facts = converted(saved(tmp_path / "m.pt", groups), tmp_path / "m.safetensors")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert facts == {"sf.num_heads": "2", "sf.text_len": "512"}
    assert sf_core.load_model(tmp_path / "m.safetensors").fingerprint == sf_core.load_model(STATE).fingerprint


def test_metadata_says_what_the_weights_cannot(tmp_path: Path) -> None:
    small = dict(random_model(layers=1, dim=48, heads=4).state_dict())
    _, facts = converted(small, tmp_path / "a.safetensors", num_heads=4, text_len=6, member="LongLive")
    assert (facts["sf.num_heads"], facts["sf.text_len"], facts["sf.member"]) == ("4", "6", "LongLive")
    model = sf_core.load_model(tmp_path / "a.safetensors")
    assert (model.arch.num_heads, model.arch.text_len) == (4, 6)
    assert model.rollout_config == sf_core.RolloutConfig(window_frames=12, sink_frames=3)
    assert "LongLive, the file says so of itself" in describe(tmp_path / "a.safetensors")
    _, again = converted(tmp_path / "a.safetensors", tmp_path / "a.safetensors")  # onto itself
    assert again == facts
    assert json.loads(again["sf.rollout"])["window_frames"] == 12


def test_dtypes_are_kept_or_changed(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() if tensor.ndim > 1 else tensor for name, tensor in STATE.items()}
    kept, _ = converted(state, tmp_path / "a.safetensors")
    assert all(torch.equal(kept[name], state[name]) and kept[name].dtype == state[name].dtype for name in state)
    half, _ = converted(state, tmp_path / "b.safetensors", dtype=torch.float16)
    assert all(torch.equal(half[name], state[name].half()) for name in state)
    scaled = {**state, "blocks.0.ffn.0.weight": torch.ones(512, 256).to(torch.float8_e4m3fn)}
    scaled["blocks.0.ffn.0.scale_weight"] = torch.tensor(0.5)
    wide, _ = converted(scaled, tmp_path / "c.safetensors")
    assert torch.equal(wide["blocks.0.ffn.0.weight"], torch.full((512, 256), 0.5, dtype=torch.bfloat16))


def test_a_lora_is_merged_for_good(tmp_path: Path) -> None:
    lora = {f"blocks.0.ffn.0.lora_{part}.weight": torch.randn(*s) for part, s in (("A", (3, 256)), ("B", (512, 3)))}
    converted(STATE, tmp_path / "m.safetensors", lora=lora, lora_strength=0.5)
    expected = dict(sf_core.load_model(STATE, lora=lora, lora_strength=0.5).named_parameters())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(tmp_path / "m.safetensors").items())


def test_only_whole_files_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.safetensors"
    convert(STATE, target)
    before = target.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"cannot write .*m.safetensors: No space left on device"):
            convert(STATE, target, dtype=torch.float16)
    with pytest.raises(ValueError, match="this is not a whole Wan"):
        convert({name: tensor for name, tensor in STATE.items() if "ffn.2" not in name}, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]

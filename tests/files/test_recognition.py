"""A file is recognised by what it says, by its tensors, and last by its name; what is not certain is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

import sf_core
from sf_core.cli.generate import recognised_settings
from sf_core.cli.info import describe
from sf_core.files import recognition
from sf_core.files.checkpoint import open_source
from sf_core.files.published_models import PUBLISHED_MODELS
from sf_core.files.recognition import Recognition, recognise, slice_name
from sf_core.model.two_sets import memory_name
from tests.files.formats import State, fsdp, prefixed
from tests.helpers import random_model

STATE: State = dict(random_model(layers=2, dim=128, heads=1).state_dict())
TWO_SETS = STATE | {memory_name(name): tensor for name, tensor in STATE.items()}
RCM = prefixed("net.", {**STATE, "patch_embedding.weight": STATE["patch_embedding.weight"].flatten(1)})


def found(state: State, name: str = "model.pt", own: sf_core.RolloutConfig | None = None) -> Recognition:
    return recognise(Path("/models") / name, open_source(state)[0], {}, own)


def test_what_a_file_says_of_itself_counts_most() -> None:
    config = sf_core.RolloutConfig(window_frames=9)
    result = found(TWO_SETS, "longlive.pt", config)
    assert result.config == config
    assert "the file says so of itself" in result.text()


def test_two_sets_of_weights_are_sgf_plus_whatever_the_name() -> None:
    result = found(TWO_SETS, "longlive_base.pt")
    assert result.name == "SGF+"
    assert result.config == sf_core.preset("SGF+")
    assert result.could_be == ("SGF+", "SGF+, frame-wise")
    assert result.text().startswith(
        "Choose the preset: it has two sets of weights, as SGF+ alone has. It could be: SGF+"
    )
    frame_wise = found(TWO_SETS, "sgf_plus/framewise_model.pt")
    assert (frame_wise.name, frame_wise.could_be) == ("SGF+, frame-wise", ())


def test_a_linear_embedding_is_causal_rcm_and_its_name_says_which() -> None:
    assert len(found(RCM).could_be) > 3
    result = found(RCM, "Causal_rCM_Wan2.1_T2V_1.3B_480p_dmd_c1-1_step2.pt")
    assert result.name == "Causal-rCM, c1-1, 2 steps"
    assert "its patch embedding is a Linear layer" in result.text()
    assert result.config is not None
    assert result.config.window_frames is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("causal_forcing.pt", "It could be: Causal Forcing, chunk-wise; Causal Forcing, frame-wise"),
        ("framewise/causal_forcing.pt", "Causal Forcing, frame-wise: by the name of the file"),
        ("longvideo.pt", "denoising_steps=(1000, 750, 500, 250)"),
        ("longvideo.pt", "four steps in place of five"),
        ("model.pt", "Choose the preset: neither the weights nor the name of this file tell the model"),
        ("wan2.1_t2v_1.3B.safetensors", "not for streaming: Wan 2.1 itself"),
        ("wan_causal_dmd_v2v/model.pt", "not run by this version: StreamDiffusionV2"),
    ],
)
def test_a_guess_is_never_silent(name: str, text: str) -> None:
    assert text in found(STATE, name).text()


WAN22: State = {**STATE, "patch_embedding.weight": STATE["patch_embedding.weight"].repeat(1, 12, 1, 1, 1)}


@pytest.mark.parametrize(
    ("state", "name", "text"),
    [
        (WAN22, "merge.safetensors", "not for streaming: Wan 2.2 itself"),
        (WAN22, "longlive2.safetensors", "LongLive 2: its latents have 48 channels, as Wan 2.2's, and by the name"),
        (prefixed("generator.", WAN22), "m.pt", "48 channels, as Wan 2.2's, and a trainer saved it. chunk_frames=8"),
        (STATE, "longlive2.safetensors", "Choose the preset: its name is one of LongLive 2, whose latents have 48"),
    ],
)
def test_the_channels_of_wan_22_count_more_than_a_name(state: State, name: str, text: str) -> None:
    assert text in found(state, name).text()


def test_of_two_groups_it_is_said_which_one_is_loaded() -> None:
    """Authors differ: most publish the average, LongLive's own code takes the other."""
    both = prefixed("generator.", STATE) | prefixed("generator_ema.", STATE)
    for name in ("longlive.pt", "model.pt", "wan2.1_t2v.pt"):
        assert "Of its groups generator_ema and generator, generator_ema is loaded" in found(both, name).text()
    assert "Of its groups" not in found(prefixed("generator.", STATE)).text()


def test_the_command_line_runs_a_file_with_the_settings_that_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(STATE, tmp_path / "longlive_base.safetensors")
    assert recognised_settings(tmp_path / "longlive_base.safetensors") == sf_core.preset("LongLive")
    assert "model: LongLive: by the name of the file" in capsys.readouterr().err
    save_file(WAN22, tmp_path / "merge.safetensors")
    with pytest.raises(ValueError, match=r"merge.safetensors: not for streaming: Wan 2\.2 itself.*convert --member"):
        recognised_settings(tmp_path / "merge.safetensors")


def test_published_weights_can_be_known_by_a_few_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file({fsdp(name): tensor.bfloat16() for name, tensor in STATE.items()}, tmp_path / "nobody.safetensors")
    key = slice_name(open_source(tmp_path / "nobody.safetensors")[0])
    assert key == slice_name(STATE)  # in any number format, under any names
    changed = {**STATE, "head.head.weight": STATE["head.head.weight"] + 1}
    assert key != slice_name(changed)
    assert key in describe(tmp_path / "nobody.safetensors")
    monkeypatch.setitem(recognition.KNOWN_WEIGHTS, key, "Reward Forcing")
    result = found(STATE, "longlive.pt")
    assert result.name == "Reward Forcing"
    assert "by its values" in result.text()
    assert found(changed, "longlive.pt").name == "LongLive"


def test_known_weights_name_models_that_there_are() -> None:
    names = {model.name for model in PUBLISHED_MODELS}
    assert set(recognition.KNOWN_WEIGHTS.values()) <= names


def test_presets_are_found_by_their_published_names() -> None:
    for name in sf_core.presets():
        assert sf_core.preset(name) == sf_core.preset(name.lower().replace(" ", ""))
    assert {"SGF", "SGF+", "Infinite-Forcing", "LongLive", "Reward Forcing", "Rolling Forcing"} <= set(
        sf_core.presets()
    )
    assert (sf_core.preset("SGF+").window_frames, sf_core.preset("SGF+, frame-wise").window_frames) == (12, 21)
    assert sf_core.preset("Infinite Forcing").sink_position == "clamped"
    with pytest.raises(ValueError, match=r"no rollout settings are known for 'Sora'; known are: .*SGF"):
        sf_core.preset("Sora")

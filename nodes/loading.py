"""Nodes that load a MODEL: from a checkpoint, from another MODEL, or the embedded demo with its CLIP and VAE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from .adapters import host
from .adapters.fingerprint import source_of
from .adapters.model import check_wan
from .adapters.model_loader import build_model, recognised
from .adapters.model_settings import settings_of, with_settings
from .adapters.tiny import WEIGHTS, tiny_clip, tiny_model, tiny_vae
from .inputs import checked, schema, with_extra
from .presets import FROM_MODEL, MODEL_PRESETS, RATES, check_preset, preset_config, said_of

_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
_PRESET_TOOLTIP = (
    "The published model that this is; it sets chunk, window, sink, steps and shift. "
    "'from the model' finds it by the file's contents and name; the node says which, and why."
)


class SFLoadModel(io.ComfyNode):
    """Loads a causal checkpoint."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFLoadModel",
            display_name="Load Self Forcing Model",
            description="Loads a causal few-step Wan 2.1 checkpoint as published, with its rollout settings.",
            search_aliases=["self forcing", "causal wan", "autoregressive video", "streaming video", "longlive"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.files("diffusion_models"),
                    tooltip="A file in models/diffusion_models, with Wan's or diffusers' weight names.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_DTYPES),
                    default="default",
                    tooltip="Number format of the weights in memory; fp8 takes half the memory of bf16.",
                ),
                io.Combo.Input("preset", options=MODEL_PRESETS, default=FROM_MODEL, tooltip=_PRESET_TOOLTIP),
            ],
            outputs=[io.Model.Output(tooltip="An ordinary MODEL: LoRA loaders and all other patches accept it.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    @checked
    def execute(cls, model_name: str, weight_dtype: str, preset: str) -> Any:
        path = host.file("diffusion_models", model_name)
        fast = {"fp8_optimizations": True} if weight_dtype.endswith("fast") else {}
        model, channels = _with_preset(build_model(path, _DTYPES[weight_dtype], **fast), preset)
        return io.NodeOutput(model, ui=host.remark(said_of(recognised(path), preset, channels)))


class SFFromModel(io.ComfyNode):
    """Attaches rollout settings to a MODEL."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFFromModel",
            display_name="Self Forcing From Model",
            description="Makes a Self Forcing model from a Wan 2.1 MODEL of any loader; shares the weights.",
            search_aliases=["self forcing gguf", "causal wan", "self forcing lora"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan 2.1 text-to-video MODEL with weights trained for Self Forcing."),
                with_extra(
                    io.Combo.Input("preset", options=MODEL_PRESETS, default=FROM_MODEL, tooltip=_PRESET_TOOLTIP),
                    sf_fps=RATES,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same MODEL with rollout settings attached.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    @checked
    def execute(cls, model: Any, preset: str) -> Any:
        with_preset, channels = _with_preset(model, preset)
        source = source_of(model)
        shown = host.remark(said_of(recognised(source) if source is not None else None, preset, channels))
        return io.NodeOutput(with_preset, ui=shown)


class SFLoadTiny(io.ComfyNode):
    """Loads the embedded demo."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFLoadTiny",
            display_name="Load Tiny Demo",
            description="Loads the model inside this pack: a coloured shape, 64 x 64 pixels, on any CPU, no download.",
            search_aliases=["self forcing demo", "tiny self forcing"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=list(WEIGHTS),
                    default=next(iter(WEIGHTS)),
                    optional=True,
                    tooltip="The model that streams; the many-step teacher it was distilled from, for training; "
                    "or one that makes 4 frames at a time, to be played by keys.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="A tiny causal Wan 2.1 model for videos of 64 x 64 pixels at 16 frames a second."
                ),
                io.Clip.Output(tooltip="Its text encoder, for prompts such as 'a red circle moving left on black'."),
                io.Vae.Output(tooltip="Its decoder and encoder, a small Wan 2.1 VAE: 8 x 8 pixels, 4 frames a latent."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, weights: str = next(iter(WEIGHTS))) -> Any:
        return io.NodeOutput(tiny_model(weights), tiny_clip(), tiny_vae())


def _with_preset(patcher: Any, preset: str) -> tuple[Any, int]:
    """Return a MODEL with the settings of a preset, and the channels of its latents.

    Raises:
        ValueError: It is no Wan 2.1 for text-to-video, or a Wan 2.2 5B without settings that are meant for one.
    """
    settings = settings_of(patcher)
    made = with_settings(patcher, replace(settings, config=preset_config(preset, settings.config)))
    channels = int(check_wan(made).in_dim)
    check_preset(preset, channels)
    return made, channels


NODES = [SFLoadModel, SFFromModel, SFLoadTiny]

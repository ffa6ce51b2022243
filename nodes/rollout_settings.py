"""The node that sets how a video is rolled out."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..sf_core.config import SINK_POSITIONS, RolloutConfig
from ..sf_core.message import sentences
from ..sf_core.rollout_rules import KV_DTYPES
from ..sf_core.schedule import TRAIN_STEPS
from .adapters import host
from .adapters.running_prompt import executing_node, running_prompt
from .adapters.wire_types import ConfigWire, SettingsToFit
from .inputs import checked, schema, with_extra
from .presets import AS_THE_MODEL, CUSTOM, PRESETS, RATES, chosen_settings, preset_remark, steps_in_words, widget_values

_PAPER = RolloutConfig()
OFF, FIT, REAL_TIME = FITS = ("off", "fit to my card", "real time on my card")


class SFRolloutSettings(io.ComfyNode):
    """Makes a `RolloutConfig`."""

    @classmethod
    def define_schema(cls) -> Any:
        presets = {name: widget_values(config) for name, config in PRESETS.items()}
        return schema(
            node_id="SFRolloutSettings",
            display_name="Rollout Settings",
            description="Sets how a video is rolled out: chunk, window, sink, steps. Choose a preset, or 'custom'.",
            search_aliases=["kv cache window", "attention sink", "self forcing settings"],
            inputs=[
                with_extra(
                    io.Combo.Input(
                        "preset",
                        options=[*PRESETS, CUSTOM],
                        default=next(iter(PRESETS)),
                        tooltip="The settings of a published model; a value below that you set or wire has precedence.",
                    ),
                    sf_presets=presets,
                    sf_fps=RATES,
                ),
                io.Int.Input(
                    "chunk_frames",
                    default=_PAPER.chunk_frames,
                    min=1,
                    max=64,
                    tooltip="Latent frames that are denoised together; 1 is frame by frame.",
                ),
                io.Int.Input(
                    "window_frames",
                    default=_PAPER.window_frames,
                    min=0,
                    max=4096,
                    tooltip="Latent frames that attention sees, including chunk and sink; 0 is all (memory grows).",
                ),
                io.Int.Input(
                    "sink_frames",
                    default=_PAPER.sink_frames,
                    min=0,
                    max=512,
                    tooltip="First latent frames that always stay in the cache; they keep a long video from drifting.",
                ),
                io.Combo.Input(
                    "sink_position",
                    options=list(SINK_POSITIONS),
                    default=_PAPER.sink_position,
                    tooltip="Where attention sees the sink: 'absolute' at its position, 'clamped' before the window.",
                ),
                io.String.Input(
                    "denoising_steps",
                    default=steps_in_words(_PAPER.denoising_steps),
                    tooltip="Timesteps at which a chunk is denoised, in falling order; 1000 is pure noise.",
                ),
                io.Float.Input(
                    "shift",
                    default=_PAPER.shift,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    tooltip="Timestep shift (a factor): 5 as trained, 8 in the Self Forcing web demo.",
                ),
                io.Boolean.Input(
                    "warp_steps",
                    default=_PAPER.warp_steps,
                    tooltip="Whether the shift applies to the steps above; off if they are shifted already.",
                ),
                io.Float.Input(
                    "context_noise",
                    default=float(_PAPER.context_noise),
                    min=0.0,
                    max=float(TRAIN_STEPS),
                    step=1.0,
                    tooltip="Timestep (0 to 1000) at which a finished chunk enters the cache; 0 as published.",
                ),
                io.Int.Input(
                    "first_chunk_frames",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Latent frames of the first chunk; 0: as every other chunk.",
                ),
                io.String.Input(
                    "first_chunk_steps",
                    default="",
                    tooltip="Timesteps of the first chunk (Causal Forcing++); empty: as every other chunk.",
                ),
                io.String.Input(
                    "rules",
                    default="",
                    optional=True,
                    tooltip="Further rules as name=value between commas, as presets write them; see docs/models.md.",
                ),
                io.Combo.Input(
                    "kv_dtype",
                    options=[AS_THE_MODEL, *KV_DTYPES],
                    default=AS_THE_MODEL,
                    optional=True,
                    tooltip="Number format of the cached window: int8 and fp8 take half of bf16, "
                    "int4 a quarter, less exactly.",
                ),
                io.Boolean.Input(
                    "kv_offload",
                    default=False,
                    optional=True,
                    tooltip="Keep the cache in RAM, and two layers of it on the GPU at a time: the same video, "
                    "more slowly.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=FITS[0],
                    optional=True,
                    tooltip="Let Self Forcing Session change window, cache and steps as far as your card needs it; "
                    "it says what it changed.",
                ),
            ],
            outputs=[ConfigWire.Output(display_name="settings", tooltip="For Self Forcing Session.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            has_intermediate_output=True,
        )

    @classmethod
    @checked
    def execute(cls, preset: str, fit: str = OFF, **values: Any) -> Any:
        inputs = running_prompt().graph.get(executing_node(), {}).get("inputs", {})
        wired = {name for name, value in inputs.items() if isinstance(value, list)}
        config, note = chosen_settings(preset, values, wired)
        settings = config if fit == OFF else SettingsToFit(config, real_time=fit == REAL_TIME)
        return io.NodeOutput(settings, ui=host.remark(sentences((note, preset_remark(preset)))))


NODES = [SFRolloutSettings]

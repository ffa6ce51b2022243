"""Nodes that begin a session and edit it: settings, given images, prompts, rewinding."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..sf_core.config import SINK_POSITIONS, RolloutConfig
from ..sf_core.files.published_models import LONGLIVE2, WAN22_CHANNELS, format_settings, frame_rate, preset
from ..sf_core.memory_ledger import DecoderCost
from ..sf_core.message import NOTHING, Message, sentences
from ..sf_core.noise import MAX_SEED
from ..sf_core.ranges import PIXELS
from ..sf_core.rollout_rules import KV_DTYPES
from ..sf_core.schedule import TRAIN_STEPS
from ..sf_core.session.beginning import frames_to_begin_with
from ..sf_core.session.session import Session
from .adapters import host, memory
from .adapters.conditioning import embeddings
from .adapters.graph_facts import words_of
from .adapters.images import fit_pictures
from .adapters.memory_report import freed_if_out_of_memory, memory_in_words
from .adapters.model import HostedWan, comfy_model, latent_size
from .adapters.model_settings import config_for
from .adapters.running_prompt import executing_node, running_prompt
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import ConfigWire, GraphSession, SessionWire
from .inputs import checked, schema, with_extra
from .presets import AS_THE_MODEL, CUSTOM, PRESETS, chosen_settings, preset_remark, steps_in_words, widget_values

_PAPER = RolloutConfig()


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
                    tooltip="Number format of the KV cache: int8 and fp8 halve it, int4 takes a quarter, less exactly.",
                ),
            ],
            outputs=[ConfigWire.Output(display_name="settings", tooltip="For Self Forcing Session.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            has_intermediate_output=True,
        )

    @classmethod
    @checked
    def execute(cls, preset: str, **values: Any) -> Any:
        inputs = running_prompt().graph.get(executing_node(), {}).get("inputs", {})
        wired = {name for name, value in inputs.items() if isinstance(value, list)}
        config, note = chosen_settings(preset, values, wired)
        return io.NodeOutput(config, ui=host.remark(sentences((note, preset_remark(preset)))))


class SFSession(io.ComfyNode):
    """Begins an empty session."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSession",
            display_name="Self Forcing Session",
            description="Begins an empty video: model, prompt, size, seed. Sample Chunks and Stream Video extend it.",
            search_aliases=["autoregressive video", "kv cache session", "streaming video", "real time video"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="From Load Self Forcing Model, Self Forcing From Model or Load Tiny Demo."
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt. There is no negative one: guidance is trained in."
                ),
                io.Int.Input(
                    "width",
                    default=832,
                    min=PIXELS.least,
                    max=PIXELS.most,
                    step=16,
                    tooltip="Width of the video in pixels; Self Forcing was trained at 832, the tiny demo at 64.",
                ),
                io.Int.Input(
                    "height",
                    default=480,
                    min=PIXELS.least,
                    max=PIXELS.most,
                    step=16,
                    tooltip="Height of the video in pixels; Self Forcing was trained at 480, the tiny demo at 64.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Seed of the noise; the same seed makes the same video on every device.",
                ),
                ConfigWire.Input(
                    "settings", optional=True, tooltip="From Rollout Settings; without it, the model's own settings."
                ),
            ],
            outputs=[SessionWire.Output(display_name="session", tooltip="An empty session.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        positive: Any,
        width: int,
        height: int,
        seed: int,
        settings: RolloutConfig | None = None,
    ) -> Any:
        wan = HostedWan(model)
        size = latent_size(wan, width, height)
        config, archive = config_for(model, settings), host.temp_path("archive")
        words = words_of("positive")
        session = Session.start(wan, embeddings(positive), size, config, seed=seed, archive_folder=archive, words=words)
        message = sentences((memory_in_words(session), _unusual_size(wan, size), *_of_wan22(wan, settings)))
        return io.NodeOutput(GraphSession(session), ui=host.keep_saying(message))


def _unusual_size(wan: HostedWan, size: tuple[int, int]) -> Message:
    if wan.latent_size in (None, size):
        return NOTHING
    rows, columns = (length * wan.spatial_factor for length in wan.latent_size or size)
    return Message("This model was trained at {columns} x {rows} pixels", columns=columns, rows=rows)


def _of_wan22(wan: HostedWan, settings: RolloutConfig | None) -> tuple[Message, ...]:
    """Say what a model with 48 channels needs: its frame rate, and its settings where others were wired in."""
    if wan.arch.in_dim != WAN22_CHANNELS:
        return ()
    rate = f"{frame_rate(WAN22_CHANNELS):g}"
    needs = Message("This model is made for {rate} frames a second: set 'fps' to it", rate=rate)
    own = preset(LONGLIVE2)
    if settings is None or settings.solver == own.solver:
        return (needs,)
    others = Message(
        "Its latents have {channels} channels, and the connected settings are not those of {model}, the model of this "
        "kind that streams: {settings}. Choose that preset in Rollout Settings",
        channels=WAN22_CHANNELS,
        model=LONGLIVE2,
        settings=format_settings(own),
    )
    return needs, others


class SFStartFromImages(io.ComfyNode):
    """Begins the video of an empty session with given images."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFStartFromImages",
            display_name="Start From Images",
            description="Begins the video with given images: one (image-to-video) or the end of a clip (extension).",
            search_aliases=["image to video", "i2v", "extend video", "video extension"],
            inputs=[
                SessionWire.Input("session", tooltip="An empty session, from Self Forcing Session."),
                io.Image.Input(
                    "image", tooltip="One image, or the frames of a clip; scaled and cropped to the session's size."
                ),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model; it encodes the images."),
            ],
            outputs=[SessionWire.Output(display_name="session", tooltip="The session, which begins with the images.")],
        )

    @classmethod
    @checked
    def execute(cls, session: GraphSession, image: Tensor, vae: Any) -> Any:
        core, ours = session.core, open_vae(vae)
        wan = comfy_model(core)
        check_fits(ours, wan)
        rows, columns = (size * ours.spatial_factor for size in core.latent_size)
        core, frames = frames_to_begin_with(core, fit_pictures(image, columns, rows)[None], ours.temporal_factor)
        cost = DecoderCost.of(ours)  # encoding takes no more
        memory.make_room(cost.decoding(wan.setup(core, cost)), vae.device, last=wan.shared.idle)
        with freed_if_out_of_memory(core, cost), host.normal_tensors():
            latents = ours.encode(frames)  # moves one part at a time to the device
        return io.NodeOutput(session.edited(core.with_context(latents)))


class SFSwitchPrompt(io.ComfyNode):
    """Sets another prompt."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSwitchPrompt",
            display_name="Switch Prompt",
            description="Sets another prompt from the session's next chunk on.",
            search_aliases=["prompt travel", "prompt schedule", "kv recache"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to continue; its chunks stay as they are."),
                io.Conditioning.Input("positive", tooltip="The prompt from the next chunk on."),
                io.Boolean.Input(
                    "recache",
                    default=False,
                    tooltip="Rebuild the window's cache under the new prompt: the video turns faster.",
                ),
                io.Boolean.Input(
                    "joint",
                    default=False,
                    optional=True,
                    tooltip="Rebuild it in one pass over the whole window, as LongLive does; has no need of 'recache'.",
                ),
                io.Boolean.Input(
                    "shot",
                    default=False,
                    optional=True,
                    tooltip="Begin a new shot with the next chunk, which then stays in sight (LongLive 2).",
                ),
            ],
            outputs=[
                SessionWire.Output(display_name="session", tooltip="The session, which continues with the new prompt.")
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, session: GraphSession, positive: Any, recache: bool, joint: bool = False, shot: bool = False
    ) -> Any:
        text, words = embeddings(positive), words_of("positive")
        if not shot:
            again = "joint" if joint else recache
            return io.NodeOutput(session.edited(session.core.with_prompt(text, recache=again, words=words)))
        if recache or joint:
            raise ValueError(
                f"'shot' does not go together with '{'joint' if joint else 'recache'}': a shot begins with its own "
                "chunk, and the window keeps frames of the shots before. Turn one of them off"
            )
        return io.NodeOutput(session.edited(session.core.with_shot(text, words=words)))


class SFRewind(io.ComfyNode):
    """Removes the newest chunks."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFRewind",
            display_name="Rewind",
            description="Removes the newest chunks, to continue from there with another seed or prompt.",
            search_aliases=["re-roll", "undo chunk", "fork session"],
            inputs=[
                SessionWire.Input(
                    "session", tooltip="The session to rewind; other nodes that use it are not affected."
                ),
                io.Int.Input(
                    "chunks",
                    default=1,
                    min=0,
                    max=1_000_000,
                    tooltip="Number of the newest sampled chunks to remove.",
                ),
                io.Int.Input(
                    "new_seed",
                    default=-1,
                    min=-1,
                    max=MAX_SEED,
                    tooltip="Seed of the noise from here on; -1 keeps the old seed, which samples the same chunks.",
                ),
            ],
            outputs=[SessionWire.Output(display_name="session", tooltip="The shorter session.")],
        )

    @classmethod
    @checked
    def execute(cls, session: GraphSession, chunks: int, new_seed: int) -> Any:
        core = session.core
        if chunks > core.chunks:
            raise ValueError(
                f"cannot take back {chunks} chunks: this session has {core.chunks} sampled ones. "
                "Lower 'chunks' on Rewind"
            )
        core = core.rewind(chunks)
        return io.NodeOutput(session.edited(core if new_seed < 0 else core.with_seed(new_seed)))


NODES = [SFRolloutSettings, SFSession, SFStartFromImages, SFSwitchPrompt, SFRewind]

"""Nodes that begin a session and edit it: given images, prompts, rewinding."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..sf_core.config import RolloutConfig
from ..sf_core.files.published_models import LONGLIVE2, WAN22_CHANNELS, format_settings, frame_rate, preset
from ..sf_core.memory_ledger import DecoderCost
from ..sf_core.message import NOTHING, Message, sentences
from ..sf_core.noise import MAX_SEED
from ..sf_core.ranges import PIXELS
from ..sf_core.session.beginning import frames_to_begin_with
from ..sf_core.session.frame_counts import video_frames
from ..sf_core.session.published_noise import (
    AS_PUBLISHED,
    MOST_FRAMES,
    NOISES,
    PER_CHUNK,
    PUBLISHED_FRAMES,
    PublishedNoise,
)
from ..sf_core.session.session import Session
from .adapters import host, memory
from .adapters.conditioning import embeddings
from .adapters.fitting import fit
from .adapters.graph_facts import words_of
from .adapters.images import fit_pictures
from .adapters.memory_report import freed_if_out_of_memory, memory_in_words
from .adapters.model import HostedWan, comfy_model, latent_size
from .adapters.model_settings import config_for
from .adapters.tiny import is_teacher
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import ConfigWire, GraphSession, SessionWire, SettingsToFit
from .inputs import checked, schema, with_extra


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
                    tooltip="Seed of the noise; it makes the same video on every device, but for noise 'as published'.",
                ),
                ConfigWire.Input(
                    "settings", optional=True, tooltip="From Rollout Settings; without it, the model's own settings."
                ),
                with_extra(
                    io.Combo.Input(
                        "noise",
                        options=list(NOISES),
                        default=PER_CHUNK,
                        optional=True,
                        tooltip="'as published' draws as the authors' script does, to make their video from its seed.",
                    ),
                    advanced=True,
                ),
                with_extra(
                    io.Int.Input(
                        "published_frames",
                        default=PUBLISHED_FRAMES,
                        min=1,
                        max=MOST_FRAMES,
                        optional=True,
                        tooltip="With noise 'as published': latent frames of the whole video; 21 are 81 frames.",
                    ),
                    advanced=True,
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
        settings: RolloutConfig | SettingsToFit | None = None,
        noise: str = PER_CHUNK,
        published_frames: int = PUBLISHED_FRAMES,
    ) -> Any:
        wan = HostedWan(model)
        size = latent_size(wan, width, height)
        fitted = None
        if isinstance(settings, SettingsToFit):
            fitted = fit(wan, settings, size)
            settings = fitted.config
        config, archive = config_for(model, settings), host.temp_path("archive")
        words = words_of("positive")
        session = Session.start(wan, embeddings(positive), size, config, seed=seed, archive_folder=archive, words=words)
        if noise == AS_PUBLISHED:
            session = session.with_noise(PublishedNoise.of(session, seed, published_frames))
        remarks = (_unusual_size(wan, size), _of_teacher(wan), _noise_in_words(session), *_of_wan22(wan, settings))
        taken = memory_in_words(session, fitted.decoder, fitted.frames) if fitted else memory_in_words(session)
        message = sentences((fitted.words if fitted else NOTHING, taken, *remarks))
        return io.NodeOutput(GraphSession(session), ui=host.keep_saying(message))


def _noise_in_words(session: Session) -> Message:
    """Say how long a video with noise as published is, and who drew the authors'; empty for other noise."""
    noise, wan = session.noise, comfy_model(session)
    if not isinstance(noise, PublishedNoise):
        return NOTHING
    length = video_frames(noise.frames, wan.temporal_factor)
    said = Message("Noise as published, for a video of {frames} frames", frames=length)
    if wan.device.type == "cuda":
        return said
    return sentences((said, Message("The authors' videos were drawn on a GPU: another device draws other noise")))


def _unusual_size(wan: HostedWan, size: tuple[int, int]) -> Message:
    if wan.latent_size in (None, size):
        return NOTHING
    rows, columns = (length * wan.spatial_factor for length in wan.latent_size or size)
    return Message("This model was trained at {columns} x {rows} pixels", columns=columns, rows=rows)


def _of_teacher(wan: HostedWan) -> Message:
    if not is_teacher(wan.patcher):
        return NOTHING
    return Message("The teacher is not made for streaming: in a few steps its video is broken. It is for training")


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


NODES = [SFSession, SFStartFromImages, SFSwitchPrompt, SFRewind]

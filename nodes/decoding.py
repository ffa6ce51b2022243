"""Nodes that make frames: of a session's chunks so far, or while they are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy_api.v0_0_2 import InputImpl, io
from torch import Tensor

from ..sf_core.describe import events_in
from ..sf_core.session import Session
from ..sf_core.session_file import record_of
from ..sf_core.stream import Decoder, chunks_for, history_for, stream
from ..sf_core.video import VideoWriter
from . import host
from .hosted_vae import AnyVAE, check_fits, decode_bytes, hosted, open_vae, weight_bytes
from .live import LiveView, video_on_node
from .memory import memory_in_words
from .running import Run, kept_if_broken, times_stopped
from .values import GraphSession, SessionWire, Timeline, TimelineWire

_FPS = 16.0  # of Wan 2.1 and of the tiny demo


def _fps_input() -> Any:
    return io.Float.Input(
        "fps",
        default=_FPS,
        min=1.0,
        max=240.0,
        step=0.5,
        tooltip="Frames a second at which the video plays; Wan 2.1 and the tiny demo make 16.",
    )


class SFDecodeChunks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="SFDecodeChunks",
            display_name="Decode Chunks",
            description="A session's frames that were not decoded yet, as pictures. For long videos use Stream Video.",
            search_aliases=["streaming vae decode", "decode session"],
            inputs=[
                SessionWire.Input("session", tooltip="A session; it knows how far it has been decoded."),
                io.Vae.Input("vae", tooltip="Wan 2.1's VAE, a TAEHV loaded with Load VAE, or the tiny demo's."),
                _fps_input(),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The new frames; seamless with those before them."),
                SessionWire.Output(display_name="session", tooltip="The session, decoded up to its end."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, session: GraphSession, vae: Any, fps: float) -> Any:
        core, ours = session.core, open_vae(vae)
        check_fits(ours, core)
        if session.decoded >= core.frames:
            raise ValueError(
                "this session has no frames that were not decoded yet: put Sample Chunks before Decode Chunks"
            )
        host.make_room(decode_bytes(ours, core), core.model.device)
        progress = host.Progress(cls, core.frames - session.decoded)
        view = LiveView(progress.node_id, fps)
        path, parts = host.new_temp_file("chunks", ".mp4"), []
        with VideoWriter(path, fps) as writer:
            for end, frames in _decode_rest(session, ours, vae):
                parts.append(host.intermediate(frames[0]))
                writer.write(frames[0])
                view.show(frames[0], writer.frames - frames.shape[1])
                progress.at(end - session.decoded)
        decoded = replace(session, decoded=core.frames)
        return io.NodeOutput(torch.cat(parts), decoded, ui=video_on_node(path))


def _decode_rest(session: GraphSession, ours: AnyVAE, vae: Any) -> Iterator[tuple[int, Tensor]]:
    """What was not decoded yet, block by block: (latent frames up to here, frames [B, T, H, W, 3])."""
    core, at = session.core, session.decoded
    decoder = _take_decoder(core, at, ours, vae)
    for block in reversed([b for b in (core.head.back() if core.head else ()) if b.place.end > at]):
        latents = block.latents.get()
        frames = decoder(latents, at=at, history=history_for(decoder, core, at))
        at = block.place.end
        yield at, frames
    _keep_decoder(core, at, decoder, vae)


def _take_decoder(session: Session, at: int, ours: AnyVAE, vae: Any) -> Decoder:
    """The live decoder if it has decoded just this session's first ``at`` latent frames; else one at a beginning."""
    live = hosted(session).live
    found, live.decoder = live.decoder, None
    if found is not None and found[0] == _decoder_key(session, at, vae):
        decoder: Decoder = found[1]
        return decoder
    return ours.stream_decoder()


def _keep_decoder(session: Session, at: int, decoder: Decoder, vae: Any) -> None:
    hosted(session).live.decoder = (_decoder_key(session, at, vae), decoder)


def _decoder_key(session: Session, at: int, vae: Any) -> tuple[str, bytes]:
    return host.token(vae.first_stage_model), _lineage_at(session, at)


def _lineage_at(session: Session, frames: int) -> bytes:
    """Names the past of the session's first ``frames`` latent frames, which end with a block."""
    blocks = session.head.back() if session.head else ()
    return next((block.lineage for block in blocks if block.place.end == frames), b"")


class SFStreamVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="SFStreamVideo",
            display_name="Stream Video",
            description="Makes a video chunk by chunk: samples, decodes, shows and writes at once, in flat memory.",
            search_aliases=["self forcing", "real time video", "autoregressive video", "endless video", "live video"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to go on with, empty or not."),
                io.Vae.Input(
                    "vae", tooltip="Wan 2.1's VAE, a TAEHV loaded with Load VAE (much faster), or the tiny demo's."
                ),
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=0.0,
                    max=86400.0,
                    step=0.5,
                    tooltip="Seconds of video to make, rounded up to whole chunks; 0 goes on until you stop it.",
                ),
                _fps_input(),
                TimelineWire.Input(
                    "timeline",
                    optional=True,
                    tooltip="Prompts by time, from Prompt Timeline, in place of the session's own.",
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="What the session had that was not decoded yet, and all that is new."),
                SessionWire.Output(display_name="session", tooltip="The longer session, decoded up to its end."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return times_stopped()

    @classmethod
    def execute(
        cls, session: GraphSession, vae: Any, seconds: float, fps: float, timeline: Timeline | None = None
    ) -> Any:
        ours = open_vae(vae)
        check_fits(ours, session.core)
        core, wan = session.core, hosted(session.core)
        run = Run(cls, session, chunks_for(core, seconds, fps, ours.temporal_factor) if seconds else 0)
        run.say(memory_in_words(core, weight_bytes(ours) + decode_bytes(ours, core)))
        path, view = host.new_temp_file("stream", ".mp4"), LiveView(run.node_id, fps)

        def boundary(now: Session) -> Session:
            return run.boundary(now if timeline is None else _steered(now, timeline, ours.temporal_factor, fps))

        try:
            with kept_if_broken(run), VideoWriter(path, fps, record=_graph_of(cls)) as writer:
                run.beside = lambda: decode_bytes(ours, core)
                run.boundary(core)
                for _, frames in _decode_rest(session, ours, vae):
                    writer.write(frames[0])
                decoder = _StopsWith(run, _take_decoder(core, core.frames, ours, vae))
                run.beside = lambda: max(0, decode_bytes(ours, core) - decoder.inner.cache_bytes)
                events = stream(
                    core,
                    decoder,
                    seconds or None,
                    fps,
                    commands=run.commands,
                    boundary=boundary,
                    make=run.make,
                    # on a GPU both would queue on one stream, and sampling in another thread may not move weights
                    overlap=wan.device.type == "cpu",
                )
                for event in events:
                    writer.write(event.frames[0])
                    core = event.session
                    view.show(event.frames[0], writer.frames - event.frames.shape[1])
                    run.finished_chunk(event.frames.shape[1], event.timings["decode"])
                _keep_decoder(core, core.frames, decoder.inner, vae)
                writer.record["self_forcing"] = _record(core)
        except BaseException:
            if path.exists():
                view.end(path)
            raise
        video = InputImpl.VideoFromFile(str(path))
        longer = session.grown(core, tuple(run.timings), decoded=core.frames)
        return io.NodeOutput(video, longer, ui=video_on_node(path))


def _graph_of(node: Any) -> dict[str, Any]:
    """What ComfyUI's editor looks for in a video that is dropped on it."""
    return {**(node.hidden.extra_pnginfo or {}), **({"prompt": node.hidden.prompt} if node.hidden.prompt else {})}


def _record(session: Session) -> dict[str, Any]:
    """How the whole video was made; walks through all of it."""
    record, _ = record_of(session)
    return {
        "chunks": session.chunks,
        "seeds": record["seeds"],
        "timeline": events_in(record["blocks"]),
        "model": record["model"],
        "session": _lineage_at(session, session.frames).hex(),
    }


def _steered(session: Session, timeline: Timeline, temporal_factor: int, fps: float) -> Session:
    """The session with the prompt that the timeline has for the first frame of its next chunk."""
    frame = 1 + temporal_factor * (session.frames - 1) if session.frames else 0
    prompt = timeline.at(frame / fps)
    if prompt is None:
        return session
    switched = session.with_prompt(prompt.embeddings, recache=timeline.recache)
    return session if switched.prompt.digest == session.prompt.digest else switched


@dataclass
class _StopsWith:
    """A decoder that makes nothing more once its run is broken off; it stands where this very session has come to."""

    run: Run
    inner: Decoder

    @property
    def history(self) -> int:
        return self.inner.history

    @property
    def temporal_factor(self) -> int:
        return self.inner.temporal_factor

    @property
    def cache_bytes(self) -> int:
        return self.inner.cache_bytes

    @property
    def at(self) -> int | None:
        return self.inner.at

    def reset(self) -> None:
        """Not needed: it is not taken from another video."""

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        if self.run.broken is not None and host.is_interrupt(self.run.broken):
            raise self.run.broken
        return self.inner(latents, at, history)


NODES = [SFDecodeChunks, SFStreamVideo]

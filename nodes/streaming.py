"""The node that samples, decodes, shows and writes at once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from comfy_api.v0_0_2 import InputImpl, io
from torch import Tensor

from ..sf_core.describe import events_in
from ..sf_core.session import Session
from ..sf_core.session_file import record_of
from ..sf_core.stream import Decoder, chunks_for, stream
from ..sf_core.vae import VideoVAE
from ..sf_core.video import VideoWriter
from . import host
from .decoding import fps_input
from .hosted_vae import check_fits, decode_bytes, hosted, open_vae, weight_bytes
from .live import LiveView, video_on_node
from .live_decoder import decode_rest, keep_decoder, lineage_at, take_decoder
from .memory import memory_in_words
from .running import Run, kept_if_broken, times_stopped
from .values import GraphSession, SessionWire, Timeline, TimelineWire


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
                fps_input(),
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
        ours, core = open_vae(vae), session.core
        check_fits(ours, core)
        run = Run(cls, session, chunks_for(core, seconds, fps, ours.temporal_factor) if seconds else 0)
        run.say(memory_in_words(core, weight_bytes(ours) + decode_bytes(ours, core)))
        path, view = host.new_temp_file("stream", ".mp4"), LiveView(run.node_id, fps)
        try:
            with (
                kept_if_broken(run),
                VideoWriter(path, fps, record=_graph_of(cls)) as writer,
                closing(_chunks(run, session, vae, ours, seconds, fps, timeline)) as chunks,
            ):
                for longer, frames in chunks:
                    core = longer
                    view.show(frames, writer.frames)
                    writer.write(frames)
                writer.record["self_forcing"] = _record(core)
        except BaseException:
            if path.exists():
                view.end(path)
            raise
        grown = session.grown(core, tuple(run.timings), decoded=core.frames)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), grown, ui=video_on_node(path))


def _chunks(
    run: Run, session: GraphSession, vae: Any, ours: VideoVAE, seconds: float, fps: float, timeline: Timeline | None
) -> Generator[tuple[Session, Tensor], None, None]:
    """What was not decoded yet, block by block, then new chunks: (the session up to there, frames [T, H, W, 3])."""
    core = session.core

    def boundary(now: Session) -> Session:
        return run.boundary(now if timeline is None else _steered(now, timeline, ours.temporal_factor, fps))

    run.beside = lambda: decode_bytes(ours, core)
    run.boundary(core)
    for _, frames in decode_rest(session, ours, vae):
        yield core, frames[0]
    decoder = _StopsWith(run, take_decoder(core, core.frames, ours, vae))
    run.beside = lambda: max(0, decode_bytes(ours, core) - decoder.cache_bytes)
    events = stream(
        core,
        decoder,
        seconds or None,
        fps,
        commands=run.commands,
        boundary=boundary,
        make=run.make,
        # on a GPU sampling and decoding would queue on one stream, and a thread of ours may not move weights there
        overlap=hosted(core).device.type == "cpu",
    )
    try:
        for event in events:
            core = event.session
            yield core, event.frames[0]
            run.finished_chunk(event.frames.shape[1], event.timings["decode"])
    except BaseException:  # ours, or its caller's, who then asks for no more
        hosted(core).live.giving_up = True  # so that the sampling thread stops within an operation, and is joined
        raise
    finally:
        events.close()
    keep_decoder(core, core.frames, decoder.inner, vae)


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
        "session": lineage_at(session, session.frames).hex(),
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


NODES = [SFStreamVideo]

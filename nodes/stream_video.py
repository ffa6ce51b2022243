"""The node that samples, decodes, shows and writes at once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from comfy_api.v0_0_2 import InputImpl, io
from torch import Tensor

from ..sf_core.files.video import VideoWriter
from ..sf_core.session.session import Session
from ..sf_core.session.session_file import events_in, record_of
from ..sf_core.session.streaming import Decoder, chunks_for, stream
from ..sf_core.session.timeline import Timeline
from ..sf_core.vae.video_vae import VideoVAE
from .adapters import host
from .adapters.memory_report import memory_in_words
from .adapters.model import hosted
from .adapters.vae import check_fits, decode_bytes, open_vae, weight_bytes
from .adapters.wire_types import GraphSession, SessionWire, TimelineWire
from .inputs import fps_input, schema
from .live import thumbnails
from .live.decoder import decode_rest, keep_decoder, lineage_at, take_decoder
from .live.run import Run, kept_if_broken, times_steered
from .live.steering import Steering
from .live.view import OLDER

LEAD = 1.0  # seconds that a video without an end may be ahead of the one who watches, so that steering it shows soon


class SFStreamVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
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
                    round=0.001,
                    tooltip="Seconds to make, in whole chunks; 0 goes on in real time until you stop it.",
                ),
                fps_input(),
                TimelineWire.Input(
                    "timeline",
                    optional=True,
                    tooltip="Prompts by time, from Prompt Timeline, in place of the session's own.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder: with it you can type new prompts while it runs."
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
        return times_steered()

    @classmethod
    def execute(
        cls,
        session: GraphSession,
        vae: Any,
        seconds: float,
        fps: float,
        timeline: Timeline | None = None,
        clip: Any = None,
    ) -> Any:
        ours, core = open_vae(vae), session.core
        check_fits(ours, hosted(core))
        chunks = chunks_for(core, seconds, fps, ours.temporal_factor) if seconds else 0
        run = Run(cls, session, chunks, fps, steerable=clip is not None)
        run.steering = Steering(clip, timeline or Timeline(), ours.temporal_factor, fps, run.view)
        run.say(memory_in_words(core, weight_bytes(ours) + decode_bytes(ours, core)))
        path, last = host.new_temp_file("stream", ".mp4"), None
        with (
            run.view.until_end(path),
            kept_if_broken(run),
            VideoWriter(path, fps, record=_graph_of(cls)) as writer,
            closing(_chunks(run, session, vae, ours, seconds, fps)) as parts,
        ):
            try:
                for longer, frames in parts:
                    core, last = longer, frames[-1]
                    writer.write(frames)
            finally:
                if last is not None:
                    thumbnails.remember(core, last)
            _keep_record(cls, run, core, writer)
            host.check_interrupt()
        grown = session.grown(core, tuple(run.timings), decoded=core.frames)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), grown, ui=run.view.on_node())


def _chunks(
    run: Run, session: GraphSession, vae: Any, ours: VideoVAE, seconds: float, fps: float
) -> Generator[tuple[Session, Tensor], None, None]:
    """What was not decoded yet, block by block, then new chunks: (the session up to there, frames [T, H, W, 3])."""
    core, steering = session.core, run.steering
    assert steering is not None
    run.beside = lambda: decode_bytes(ours, core)
    run.boundary(core)
    for _, frames in decode_rest(session, ours, vae):
        run.view.show(frames[0], OLDER, 0)
        yield core, frames[0]
    decoder = _StopsWith(run, take_decoder(core, core.frames, ours, vae))
    run.beside = lambda: max(0, decode_bytes(ours, core) - decoder.cache_bytes)
    events = stream(
        core,
        decoder,
        seconds or None,
        fps,
        stop=host.interrupted,
        commands=run.commands,
        hold_back=1,  # so that what is seen last can be made again
        preview=run.show,
        withdrawn=run.withdrawn,
        ahead=LEAD if not seconds and run.view.watchers else None,
        boundary=lambda now: run.boundary(steering.boundary(now)),
        make=run.make,
        # on a GPU sampling and decoding would queue on one stream, and a thread of ours may not move weights there
        overlap=hosted(core).device.type == "cpu",
    )
    try:
        for event in events:
            core = event.session
            yield core, event.frames[0]
    except BaseException:  # ours, or its caller's, who then asks for no more
        hosted(core).live.giving_up = True  # so that the sampling thread stops within an operation, and is joined
        raise
    finally:
        events.close()
    keep_decoder(core, core.frames, decoder.inner, vae)


def _graph_of(node: Any) -> dict[str, Any]:
    """What ComfyUI's editor looks for in a video that is dropped on it."""
    return {**(node.hidden.extra_pnginfo or {}), **({"prompt": node.hidden.prompt} if node.hidden.prompt else {})}


def _keep_record(node: Any, run: Run, session: Session, writer: VideoWriter) -> None:
    """How the whole video was made, for its file; walks through all of it."""
    record, _ = record_of(session)
    facts, steering = run.view.state(), run.steering
    assert steering is not None
    by_hand = {"actions": steering.actions, "rows": steering.rows, "seconds": facts["seconds"]}
    writer.record["self_forcing"] = {
        "chunks": session.chunks,
        "seeds": record["seeds"],
        "timeline": events_in(record),
        "model": record["model"],
        "session": lineage_at(session, session.frames).hex(),
        **(by_hand if steering.actions else {}),
    }
    graph = (node.hidden.extra_pnginfo or {}).get("workflow")
    if steering.actions and isinstance(graph, dict):
        # in the very object that the nodes after this one write into their files: when such a file is dropped on the
        # editor, js/replay/replay.js makes a Prompt Timeline of it
        marks = graph.setdefault("extra", {}).setdefault("self_forcing", {})
        marks[run.node_id] = {"rows": steering.rows, "seconds": facts["seconds"]}


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

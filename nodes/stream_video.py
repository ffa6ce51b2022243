"""The node that samples, decodes, shows and writes a video at the same time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import InputImpl, io
from torch import Tensor

from ..sf_core.files.disk import check_room
from ..sf_core.files.video import VideoWriter, expected_bytes
from ..sf_core.memory_ledger import DecoderCost
from ..sf_core.message import Message
from ..sf_core.session.drift import THRESHOLD
from ..sf_core.session.drift_guard import DriftAction, DriftGuard
from ..sf_core.session.frame_counts import video_frames
from ..sf_core.session.published_noise import check_length
from ..sf_core.session.reencoding import with_vae
from ..sf_core.session.saved_record import events_in
from ..sf_core.session.session import Session
from ..sf_core.session.session_file import record_of
from ..sf_core.session.streaming import chunks_for, frames_after, stream
from ..sf_core.session.timeline import Timeline
from ..sf_core.sources.video_source import VideoSource
from ..sf_core.vae.video_vae import VideoVAE
from .adapters import host
from .adapters.memory_report import memory_in_words
from .adapters.model import comfy_model
from .adapters.source import GraphSource, cost_with
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import GraphSession, SessionWire, TimelineWire
from .inputs import checked, drift_threshold_input, fps_input, on_drift_input, schema, source_input
from .live import results, thumbnails
from .live.decoder import decode_rest, keep_decoder, lineage_at, take_decoder
from .live.run import Run, autosaved, times_steered
from .live.steering import Steering
from .live.view import BEFORE_RUN

SESSION_OUTPUT = 1  # index among the outputs
LEAD = 1.0  # seconds that an endless video may be ahead of its viewer, so that steering shows soon
SHORT = 0.5  # seconds of a chunk, such as of one latent frame, up to which the lead would be most of the delay of a key


class SFStreamVideo(io.ComfyNode):
    """Extends a session and makes a video of it."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFStreamVideo",
            display_name="Stream Video",
            description="Makes a video chunk by chunk: samples, decodes, shows and writes it, in constant memory.",
            search_aliases=["self forcing", "real time video", "autoregressive video", "endless video", "live video"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to extend, empty or not."),
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
                    tooltip="Seconds to make, in whole chunks; 0 runs in real time until you stop it.",
                ),
                fps_input(),
                TimelineWire.Input(
                    "timeline",
                    optional=True,
                    tooltip="Prompts by time, from Prompt Timeline, in place of the session's prompt.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder: with it you can type new prompts during the run."
                ),
                on_drift_input(),
                drift_threshold_input(),
                source_input(),
            ],
            outputs=[
                io.Video.Output(tooltip="The part of the session that was not decoded yet, and everything new."),
                SessionWire.Output(display_name="session", tooltip="The longer session, decoded up to its end."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        return f"{times_steered()} {results.times_lost(cls)}"

    @classmethod
    @checked
    def execute(
        cls,
        session: GraphSession,
        vae: Any,
        seconds: float,
        fps: float,
        timeline: Timeline | None = None,
        clip: Any = None,
        on_drift: DriftAction = "measure",
        drift_threshold: float = THRESHOLD,
        source: GraphSource | None = None,
    ) -> Any:
        core, cancellation = session.core, host.HostCancellation()
        guard = DriftGuard(core.config, on_drift, drift_threshold)
        ours = open_vae(vae, cancellation)
        check_fits(ours, comfy_model(core))
        feed = None if source is None else source.open(core, fps, cancellation)
        chunks = chunks_for(core, seconds, fps, ours.temporal_factor) if seconds else 0
        check_length(core, chunks)
        path, last = results.new_video("stream"), None
        _check_room(path, session, chunks, ours)
        run = Run(cls, session, chunks, fps, cancellation, guard, steerable=clip is not None)
        with (
            run.view.until_end(path),
            autosaved(run),
            VideoWriter(path, fps, record=_graph_of(cls)) as writer,
            closing(_chunks(run, session, vae, ours, seconds, fps, feed)) as parts,
        ):
            beginning = timeline or Timeline()
            run.steering = Steering(clip, beginning, ours.temporal_factor, fps, run.view, run.note_steered)
            run.decoder_cost = DecoderCost.of(ours) if feed is None else cost_with(feed.vae, ours)
            joint = any(row.recache == "joint" for row in beginning.rows)
            run.say(memory_in_words(core, run.decoder_cost, frames_after(core, chunks), joint))
            try:
                for longer, frames in parts:
                    core, last = longer, frames[-1]
                    writer.write(frames)
            finally:
                if last is not None:
                    thumbnails.remember(core, last)
            _keep_record(cls, run, core, writer)
            if last is None:  # stopped before its first frame: no video exists, so the run ends as by an interrupt
                run.say(Message("stopped before the first frame: there is no video"))
                cancellation.cancel()
            cancellation.raise_if_asked()
        results.remember(cls, path)
        if not host.output_is_taken(SESSION_OUTPUT):  # nothing that is left to run needs the cache
            comfy_model(core).shared.release()
        core = replace(core, reencode=None)  # the VAE is this run's
        grown = session.grown(core, tuple(run.timings), decoded=core.frames)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), grown, ui=run.view.on_node())


def _check_room(path: Path, session: GraphSession, chunks: int, ours: VideoVAE) -> None:
    """Raise OSError, before the work, if the disk has too little room for the video; 0 chunks: until stopped."""
    core, factor = session.core, ours.temporal_factor
    frames = video_frames(frames_after(core, chunks), factor) - video_frames(session.decoded, factor)
    rows, columns = (length * ours.spatial_factor for length in core.latent_size)
    check_room({path: expected_bytes(columns, rows, max(0, frames))}, or_else="lower 'seconds' on Stream Video")


def _chunks(
    run: Run, session: GraphSession, vae: Any, ours: VideoVAE, seconds: float, fps: float, feed: VideoSource | None
) -> Generator[tuple[Session, Tensor], None, None]:
    """Decode the rest of the session, then stream new chunks.

    Yields:
        The session so far (in the first part, the given one), and new frames [T, H, W, 3].
    """
    core = with_vae(session.core, ours)
    run.make_ready(core)
    if feed is not None:
        feed.begin(core)
    factor = ours.temporal_factor
    decoded = video_frames(session.decoded, factor)
    run.view.begin_with(video_frames(core.frames, factor) - decoded, decoded / fps)
    for _, frames in decode_rest(session, ours, vae):
        run.view.show(frames[0], BEFORE_RUN, 0)
        yield core, frames[0]
    decoder = run.decoder = take_decoder(core, core.frames, ours, vae)
    events = stream(
        core,
        decoder,
        seconds or None,
        fps,
        commands=run.commands,
        hold_back=1,  # so that the chunk seen last can be re-rolled
        ahead=LEAD if not seconds and run.view.watchers else None,
        # only the graph's thread may move ComfyUI's weights, so on a GPU it samples too
        overlap=comfy_model(core).device.type == "cpu",
        host=run,
        source=feed,
        just_in_time=core.config.chunk_frames * factor / fps <= SHORT,
    )
    with closing(events):
        for event in events:
            core = event.session
            yield core, event.pixels[0]
    made_less = not seconds or core.frames < frames_after(session.core, chunks_for(session.core, seconds, fps, factor))
    if feed is not None and made_less and not run.cancellation.finishing and feed.is_over(core):
        run.view.say(Message("The source has ended, and the video with it"))
    keep_decoder(core, core.frames, decoder, vae)


def _graph_of(node: Any) -> dict[str, Any]:
    """Return the metadata that ComfyUI's editor reads from a video that is dropped on it."""
    extra = node.hidden.extra_pnginfo
    graph = extra if isinstance(extra, dict) else {}  # a program may have queued anything
    return {**graph, **({"prompt": node.hidden.prompt} if node.hidden.prompt else {})}


def _keep_record(node: Any, run: Run, session: Session, writer: VideoWriter) -> None:
    """Record in the file how the whole video was made; walks through all its blocks."""
    record, _ = record_of(session)
    facts, steering = run.view.state(), run.steering
    assert steering is not None
    steered = {"actions": steering.actions, "rows": steering.rows, "seconds": facts["seconds"]}
    writer.record["self_forcing"] = {
        "chunks": session.chunks,
        "seeds": record["seeds"],
        "timeline": events_in(record),
        "drift": run.drift.points,
        "model": record["model"],
        "settings": record["config"],
        "session": lineage_at(session, session.frames).hex(),
        **(steered if steering.actions else {}),
    }
    extra = node.hidden.extra_pnginfo
    graph = extra.get("workflow") if isinstance(extra, dict) else None
    if steering.actions and isinstance(graph, dict):
        # in the object that later nodes write into their files: when such a file is dropped on the editor,
        # js/replay/replay.js makes a Prompt Timeline of it
        marks = _object_in(_object_in(graph, "extra"), "self_forcing")
        marks[run.node_id] = {"rows": steering.rows, "seconds": facts["seconds"]}


def _object_in(graph: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object under ``key``, which takes the place of anything else there."""
    if not isinstance(graph.get(key), dict):
        graph[key] = {}
    found: dict[str, Any] = graph[key]
    return found


NODES = [SFStreamVideo]

"""A session as text, and as a picture of its KV cache and the timings of its chunks."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from ..sf_core.byte_units import format_bytes
from ..sf_core.files.published_models import format_settings
from ..sf_core.message import Message, lines
from ..sf_core.session.drift import THRESHOLD, ChunkDrift, drift_of
from ..sf_core.session.noise_record import noise_in_words
from ..sf_core.session.saved_record import events_in
from ..sf_core.session.session_file import record_of
from .adapters.memory_report import memory_in_words
from .adapters.model import comfy_model
from .adapters.wire_types import ChunkTiming, GraphSession

_SIZE = (768, 576)
_THIRD = _SIZE[1] // 3
_PAPER, _INK, _FAINT = "#1e1e24", "#e8e8ea", "#55555f"
_COLOURS = {"current chunk": "#f2a65a", "sink": "#5aa9e6", "ring": "#7fc8a9", "free": "#33333c"}
_STAGES = {"cache": "#5aa9e6", "sample": "#f2a65a", "decode": "#b48ead"}
_MARGIN = 24
DRIFT_POINTS = 120  # chunks that are measured, evenly spaced


def session_in_words(session: GraphSession) -> Message:
    """Describe a session, one fact a line."""
    core = session.core
    record, prompts = record_of(core)
    context = sum(frames for kind, frames, *_ in record["blocks"] if kind == "context")
    rows, columns = (size * comfy_model(core).spatial_factor for size in core.latent_size)
    counts = {"frames": core.frames, "chunks": core.chunks, "given": context}
    size = {"columns": columns, "rows": rows, "batch": core.batch}
    measures = drift_of(core, DRIFT_POINTS)
    drift = [] if not measures else [_drift_in_words(measures)]
    return lines(
        (
            Message("length: {frames} latent frames, {chunks} chunks sampled, {given} frames given", **counts),
            Message("decoded: {frames} latent frames", frames=session.decoded),
            Message("size: {columns} x {rows} pixels, batch {batch}", **size),
            Message("model: {names}", names=", ".join([record["model"], *record["other_models"]])),
            Message("prompts: {n}", n=len(prompts)),
            Message("seeds: {seeds}", seeds=", ".join(map(noise_in_words, record["seeds"]))),
            Message("events: {events}", events=events_in(record)),
            Message("settings: {settings}", settings=format_settings(core.config)),
            Message("newest chunk's cache: {how}", how=core.how),
            *drift,
            Message("memory: {memory}", memory=memory_in_words(core)),
            Message("live caches: {size}", size=format_bytes(comfy_model(core).shared.nbytes)),
        )
    )


def _drift_in_words(measures: list[ChunkDrift]) -> Message:
    largest = max(measures, key=lambda one: one.drift)
    facts = {"newest": f"{measures[-1].drift:.2f}", "largest": f"{largest.drift:.2f}", "n": largest.chunk + 1}
    return Message("drift: newest {newest}, largest {largest} in chunk {n}", **facts)


def draw_session(session: GraphSession) -> Image.Image:
    """Draw the layout of the KV cache, the timings of the newest chunks, and the drift of all."""
    image = Image.new("RGB", _SIZE, _PAPER)
    draw = ImageDraw.Draw(image)
    _draw_cache(draw, session, top=_MARGIN)
    _draw_timings(draw, session.timings, top=_THIRD, floor=2 * _THIRD - 48)
    _draw_drift(draw, drift_of(session.core, DRIFT_POINTS), top=2 * _THIRD)
    return image


def _text(draw: ImageDraw.ImageDraw, x: float, y: float, words: str, colour: str = _INK) -> None:
    draw.text((x, y), words, fill=colour, font=ImageFont.load_default(14))


def _draw_cache(draw: ImageDraw.ImageDraw, session: GraphSession, top: int) -> None:
    """Draw one box a latent frame, in the order of the buffer: current chunk, sink, ring."""
    config, frames = session.core.config, session.core.frames
    sink = min(config.sink_frames, frames)
    ring = config.ring_frames if config.ring_frames is not None else max(0, frames - sink)
    filled = min(ring, max(0, frames - sink - config.chunk_frames))  # the newest chunk is written before the next
    boxes = ["current chunk"] * config.front_frames + ["sink"] * sink + ["ring"] * filled + ["free"] * (ring - filled)
    wan = comfy_model(session.core)
    nbytes = wan.next_cache_bytes(session.core)
    _text(draw, _MARGIN, top, f"cache: {wan.arch.num_layers} layers, {format_bytes(nbytes)}; one box is a latent frame")
    width = min(28.0, (_SIZE[0] - 2 * _MARGIN) / max(1, len(boxes)))
    for number, kind in enumerate(boxes):
        left = _MARGIN + number * width
        gap = 2 if width > 6 else 0
        draw.rectangle((left, top + 28, left + width - gap, top + 64), fill=_COLOURS[kind])
    _legend(draw, _COLOURS, top + 78)


def _draw_timings(draw: ImageDraw.ImageDraw, timings: tuple[ChunkTiming, ...], top: int, floor: int) -> None:
    """Draw one bar a chunk, its stages stacked."""
    if not timings:
        _text(draw, _MARGIN, top, "no chunks since this session was loaded")
        return
    totals = [t.cache + t.sample + t.decode for t in timings]
    highest = max(*totals, 1e-9)
    _text(draw, _MARGIN, top, f"seconds for each of the newest {len(timings)} chunks; highest {highest:.2f} s")
    width = min(40.0, (_SIZE[0] - 2 * _MARGIN) / len(timings))
    scale = (floor - top - 28) / highest
    for number, timing in enumerate(timings):
        base = float(floor)
        for stage, colour in _STAGES.items():
            height = getattr(timing, stage) * scale
            left = _MARGIN + number * width
            draw.rectangle((left, base - height, left + width - 2, base), fill=colour)
            base -= height
    draw.line((_MARGIN, floor, _SIZE[0] - _MARGIN, floor), fill=_FAINT)
    _legend(draw, _STAGES, floor + 8)


def _draw_drift(draw: ImageDraw.ImageDraw, measures: list[ChunkDrift], top: int) -> None:
    """Draw the drift chunk by chunk, and the usual threshold."""
    if not measures:
        return
    largest, floor = max(measures, key=lambda one: one.drift), _SIZE[1] - _MARGIN
    newest = f"newest {measures[-1].drift:.2f}, largest {largest.drift:.2f} in chunk {largest.chunk + 1}"
    _text(draw, _MARGIN, top, f"drift from the first chunks: {newest}; the dashes are at {THRESHOLD:g}")
    highest, room = max(largest.drift, 1.1 * THRESHOLD), floor - top - 28
    first, last = measures[0].chunk, max(measures[-1].chunk, measures[0].chunk + 1)
    width = (_SIZE[0] - 2 * _MARGIN) / (last - first)
    places = [(_MARGIN + (one.chunk - first) * width, floor - one.drift / highest * room) for one in measures]
    limit = floor - THRESHOLD / highest * room
    for left in range(_MARGIN, _SIZE[0] - _MARGIN, 12):
        draw.line((left, limit, left + 6, limit), fill=_STAGES["sample"])
    draw.line((_MARGIN, floor, _SIZE[0] - _MARGIN, floor), fill=_FAINT)
    draw.line(
        places if len(places) > 1 else [*places, (places[0][0] + 4, places[0][1])], fill=_STAGES["cache"], width=2
    )


def _legend(draw: ImageDraw.ImageDraw, colours: dict[str, str], top: float) -> None:
    x = float(_MARGIN)
    for name, colour in colours.items():
        draw.rectangle((x, top + 3, x + 10, top + 13), fill=colour)
        _text(draw, x + 16, top - 1, name)
        x += 40 + draw.textlength(name, font=ImageFont.load_default(14))

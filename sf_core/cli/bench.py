"""The command ``bench``: measure how fast the embedded tiny model streams on this machine, stage by stage."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles

import torch

from .. import tiny
from ..files.atomic_write import atomic_write
from ..session.frame_counts import video_frames
from ..session.session import Session
from ..session.streaming import stream
from .environment import peak_memory

WARM_UP = 8  # chunks: the ring fills up, allocators and kernels settle


def run_bench(chunks: int, out: Path | None) -> None:
    """Stream ``WARM_UP + chunks`` chunks, print the numbers, and write them to ``out``."""
    model, decoder = tiny.load_transformer(), tiny.load_vae().stream_decoder()
    session = Session.start(model, tiny.load_text().encode(tiny.PROMPT))
    latents = (WARM_UP + chunks) * session.config.chunk_frames
    seconds = video_frames(latents, decoder.temporal_factor) / tiny.FPS
    arrivals, stages = [time.perf_counter()], []
    frames = 0
    for event in stream(session, decoder, seconds, tiny.FPS):
        arrivals.append(time.perf_counter())
        stages.append(event.timings)
        frames = event.frames.shape[1]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    steady = slice(WARM_UP, None)
    denoising = mean(stage["cache"] + stage["sample"] for stage in stages[steady])
    peak = peak_memory()
    numbers: dict[str, float] = {
        "time to first frame, s (cold)": gaps[0],
        "frames per second, end to end": frames / mean(gaps[steady]),
        "frames per second, denoising only": frames / denoising,
        **{f"{name}, ms a chunk (median)": 1e3 * median(s[name] for s in stages[steady]) for name in stages[0]},
        "gap between chunks, ms (95th percentile)": 1e3 * quantiles(gaps[steady], n=20)[-1],
        **({} if peak is None else {"peak memory of the process, MiB": peak / 2**20}),
        "cache, MiB": model.caches.nbytes / 2**20,
        "frames a chunk": frames,
        "chunks measured": chunks,
        "chunks of warm-up, not measured": WARM_UP,
        "threads": torch.get_num_threads(),
    }
    for name, value in numbers.items():
        print(f"{name:<42}{value:>10.2f}" if isinstance(value, float) else f"{name:<42}{value:>10}")
    if out is not None:
        with atomic_write(out) as part:
            part.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

"""The command ``bench``: measure how fast a model streams on this machine, stage by stage."""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from statistics import mean, median, quantiles
from typing import Any

import torch

from ..device_rates import device_name
from ..files.atomic_write import atomic_write
from ..files.published_models import format_settings, frame_rate
from ..session.frame_counts import video_frames
from ..session.reencoding import with_vae
from ..session.session import Session
from ..session.stream_host import Decoder
from ..session.streaming import stream
from .environment import peak_memory
from .generate import LoadedModels, start_session

LEAST_WARM_UP = 8  # chunks: allocators and kernels settle


def run_bench(args: argparse.Namespace) -> None:
    """Stream a warm-up and ``args.chunks`` chunks, print the numbers, and write them to ``args.json``."""
    models = LoadedModels(args, without_text=True)
    if args.fast:
        models.transformer.compile()
        models.transformer.record()
    session, decoder = with_vae(start_session(args, models), models.vae), models.vae.stream_decoder()
    fps = frame_rate(models.transformer.arch.in_dim)
    facts = _facts(session, models)
    for name, value in facts.items():
        print(f"{name:<12}{value}")
    numbers = {**_measured(session, decoder, args.chunks, fps), "threads": torch.get_num_threads()}
    for name, value in numbers.items():
        print(f"{name:<48}{value:>10.2f}" if isinstance(value, float) else f"{name:<48}{value:>10}")
    if args.json is not None:
        with atomic_write(args.json) as part:
            part.write_text(json.dumps({**facts, **numbers}, indent=2) + "\n", encoding="utf-8")


def _facts(session: Session, models: LoadedModels) -> dict[str, str]:
    """What was measured on what; holds no path and no name of a machine."""
    model, arch = models.transformer, models.transformer.arch
    rows, columns = (length * models.vae.spatial_factor for length in session.latent_size)
    return {
        "device": device_name(model.device, model.dtype),
        "model": f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters, {arch.num_layers} layers",
        "decoder": type(models.vae).__name__,
        "size": f"{columns} x {rows}",
        "settings": format_settings(session.config),
    }


def _measured(session: Session, decoder: Decoder, chunks: int, fps: float) -> dict[str, Any]:
    """Stream the warm-up and ``chunks`` chunks. The ring is full after the warm-up, unless the window is unbounded."""
    config, model = session.config, session.model
    warm_up = max(LEAST_WARM_UP, 1 + -(-(config.window_frames or 0) // config.chunk_frames))
    latents = (warm_up + chunks) * config.chunk_frames
    seconds = video_frames(latents, decoder.temporal_factor) / fps
    arrivals, stages, frames = [time.perf_counter()], [], 0
    for event in stream(session, decoder, seconds, fps):
        arrivals.append(time.perf_counter())
        stages.append(event.timings)
        frames = event.frames.shape[1]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    steady = slice(warm_up, None)
    return {
        "time to first frame, s (cold)": gaps[0],
        "frames per second, end to end": frames / mean(gaps[steady]),
        "frames per second, denoising only": frames / mean(s["cache"] + s["sample"] for s in stages[steady]),
        "frames per second of the video": fps,
        **{f"{name}, ms a chunk (median)": 1e3 * median(s[name] for s in stages[steady]) for name in stages[0]},
        "gap between chunks, ms (95th percentile)": 1e3 * quantiles(gaps[steady], n=20)[-1],
        **_peaks(model.device),
        "cache, MiB": model.caches.nbytes / 2**20,
        "frames a chunk": frames,
        "chunks measured": chunks,
        "chunks of warm-up, not measured": warm_up,
    }


def _peaks(device: torch.device) -> dict[str, float]:
    peak = peak_memory()
    peaks = {} if peak is None else {"peak memory of the process, MiB": peak / 2**20}
    if device.type == "cuda":
        peaks["peak memory on the GPU, MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks

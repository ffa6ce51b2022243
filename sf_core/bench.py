"""How fast the embedded tiny model streams on this machine, stage by stage."""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles

import torch

from sf_core import Session, tiny

WARM_UP = 8  # chunks: the ring fills up, allocators and kernels settle


def run_bench(chunks: int, out: Path | None) -> None:
    """Stream ``WARM_UP + chunks`` chunks, print the numbers, write them to ``out``."""
    if chunks < 2:
        raise ValueError(f"--chunks is {chunks}; expected 2 or more")
    model, vae, text = tiny.load_transformer(), tiny.load_vae(), tiny.load_text().encode(tiny.PROMPT)
    session = Session.start(model, text)
    sampling, decoding, arrivals = [], [], [time.perf_counter()]
    frames = 0
    for _ in range(WARM_UP + chunks):
        begun = time.perf_counter()
        session, latents = session.next_chunk()
        sampled = time.perf_counter()
        frames = vae.decode(latents).shape[1]
        arrivals.append(time.perf_counter())
        sampling.append(sampled - begun)
        decoding.append(arrivals[-1] - sampled)
    gaps = [b - a for a, b in pairwise(arrivals)]
    steady = slice(WARM_UP, None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    numbers = {
        "time to first frame, s (cold)": gaps[0],
        "frames per second, end to end": frames / mean(gaps[steady]),
        "frames per second, denoising only": frames / mean(sampling[steady]),
        "sampling a chunk, ms (median)": 1e3 * median(sampling[steady]),
        "decoding a chunk, ms (median)": 1e3 * median(decoding[steady]),
        "gap between chunks, ms (95th percentile)": 1e3 * quantiles(gaps[steady], n=20)[-1],
        "peak memory of the process, MiB": peak,
        "cache, MiB": model.caches.nbytes / 2**20,
        "frames a chunk": frames,
        "chunks measured": chunks,
        "chunks of warm-up, not measured": WARM_UP,
        "threads": torch.get_num_threads(),
    }
    for name, value in numbers.items():
        print(f"{name:<42}{value:>10.2f}" if isinstance(value, float) else f"{name:<42}{value:>10}")
    if out is not None:
        out.write_text(json.dumps(numbers, indent=2) + "\n")

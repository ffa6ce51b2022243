"""Frame rate, latency and memory of a model of published size on a GPU.

The shapes of Wan 2.1 1.3B and its VAE at 832 x 480, with random weights, as the speed does not depend on their values.
The ring is full. Measured:

- sampling a chunk (cache pass and denoising steps), in turns with its floor: see floor.py
- decoding a chunk
- both, streamed as `generate` and the nodes do it, to 8-bit frames on the CPU; and the time to the first frames of a
  video
- the peak memory of each without weights and cache, and the cache compared with its prediction
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch

import sf_core
from sf_core.files.pixels import to_bytes
from sf_core.session.stream_host import Decoder

from .floor import Floor, operations
from .measure import Report, alternate, timed
from .models import Rollout, add_arguments, architecture, context_frames, random_model, random_vae, start_session

FPS = 16
WARM_UP = 3  # chunks: kernels are chosen and compiled, allocators settle


def arrivals(session: sf_core.Session, decoder: Decoder, chunks: int) -> list[float]:
    """Return the time when a stream began, and the times when the frames of each chunk were in the CPU's memory."""
    times = [time.perf_counter()]
    seconds = chunks * session.config.chunk_frames * decoder.temporal_factor / FPS
    for event in sf_core.stream(session, decoder, seconds, FPS):
        to_bytes(event.frames[0])
        times.append(time.perf_counter())
    return times


def peak_gib(work: Callable[[], object]) -> float:
    """Return the peak memory of ``work`` on a GPU, without what was allocated before."""
    if not torch.cuda.is_initialized():
        return 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def measure_sampling(report: Report, args: argparse.Namespace, model: sf_core.CausalWan, frames: int) -> Rollout:
    """Measure sampling, and return the rollout; ``frames`` is the number of video frames of a chunk."""
    rollout = Rollout(start_session(model, args, context_frames(args)))
    for _ in range(WARM_UP):
        rollout.chunk()
    floor = Floor(rollout.session)
    count = operations(rollout, floor)
    if args.compile:
        model.compile(fullgraph=True)
    if args.record:
        model.record()
    for _ in range(WARM_UP):
        rollout.chunk()
    times = alternate(floor.chunk, rollout.chunk, args.pairs)
    report.row("operations of a chunk", [count / 1e12], "T")
    report.row("floor", [a for a, _ in times], "s")
    report.row("sampling a chunk", [b for _, b in times], "s")
    report.row("sampling alone", [frames / b for _, b in times], "frames/s")
    report.ratio("share of the floor", times)
    del floor
    session = rollout.session
    report.row("cache", [model.caches.nbytes / 2**30], "GiB")
    report.row("cache, predicted", [model.cache_bytes(session.config, session.latent_size) / 2**30], "GiB")
    report.row("sampling, beside weights and cache", [peak_gib(rollout.chunk)], "GiB")
    return rollout


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(
        parser, dim=1536, ffn=8960, layers=30, heads=12, text_dim=4096, latent=(60, 104), sink=3,
        device="cuda", dtype="bfloat16",
    )  # fmt: skip
    parser.add_argument("--vae-width", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--chunks", type=int, default=10, help="in a stream; default: %(default)s")
    parser.add_argument("--attention", default="auto", help="a backend; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--record", action="store_true", help="with CUDA graphs")
    args = parser.parse_args()
    kind = ("framewise",) * (args.chunk == 1) + ("compiled",) * args.compile + ("recorded",) * args.record
    report = Report("_".join(("realtime", *kind)), args)
    model = random_model(architecture(args), args.seed, args.device, args.dtype)
    model.attention = args.attention
    decoder = random_vae(args.vae_width, args.device, args.dtype).stream_decoder()
    frames = args.chunk * decoder.temporal_factor

    rollout = measure_sampling(report, args, model, frames)
    latents = rollout.chunk()

    def decode() -> None:
        decoder(latents, at=decoder.at)

    for _ in range(WARM_UP):  # the first latent of a video is one frame, later ones are measured
        decode()
    decoding = [timed(decode)[0] for _ in range(args.pairs)]
    report.row("decoding a chunk", decoding, "s")
    report.row("decoding alone", [frames / seconds for seconds in decoding], "frames/s")
    report.row("decoding, beside weights", [decoder.cache_bytes / 2**30 + peak_gib(decode)], "GiB")

    gaps = [b - a for a, b in pairwise(arrivals(rollout.session, decoder, args.chunks))][1:]
    report.row("streamed, between chunks", gaps, "s")
    report.row("streamed", [frames / gap for gap in gaps], "frames/s")
    firsts = [arrivals(start_session(model, args), decoder, 2) for _ in range(1 + args.pairs)][1:]
    report.row("to the first frames, new video", [times[1] - times[0] for times in firsts], "s")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

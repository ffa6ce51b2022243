"""Time of a stream, which samples and decodes at the same time, compared with sampling and decoding alone.

A random model and a random Wan VAE, of sizes with which sampling and decoding a chunk take about as long. In turns: a
video's first chunks sampled alone, the same chunks decoded alone, and as many with `sf_core.stream`. It needs two idle
cores, one for each thread.
"""

from __future__ import annotations

import argparse
from functools import partial

import sf_core

from .measure import Report, timed
from .models import Rollout, add_arguments, architecture, random_model, random_vae, start_session


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, dim=384, ffn=1536, layers=4, heads=3, latent=(16, 16), window=9)
    parser.add_argument("--vae-width", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--chunks", type=int, default=32, help="in one measurement; default: %(default)s")
    args = parser.parse_args()
    report = Report("overlap", args)
    decoder = random_vae(args.vae_width).stream_decoder()
    session = start_session(random_model(architecture(args), args.seed), args)
    fps, factor = 16, decoder.temporal_factor
    seconds = args.chunks * args.chunk * factor / fps

    def sample() -> list[sf_core.Session]:
        rollout = Rollout(session)
        return [rollout.session for _ in range(args.chunks) if rollout.chunk() is not None]

    def decode(finished: sf_core.Session) -> None:
        for i in range(args.chunks):
            at = i * args.chunk
            decoder(finished.latents_between(at, at + args.chunk), at=at)

    list(sf_core.stream(session, decoder, 1, fps))  # warm-up
    sampling, decoding, both = [], [], []
    for _ in range(args.pairs):
        seconds_sampling, sessions = timed(sample)
        sampling.append(seconds_sampling / args.chunks)
        decoder.reset()
        decoding.append(timed(partial(decode, sessions[-1]))[0] / args.chunks)
        both.append(timed(lambda: list(sf_core.stream(session, decoder, seconds, fps)))[0] / args.chunks)
    report.row("sampling a chunk", sampling, "s")
    report.row("decoding a chunk", decoding, "s")
    report.row("both, streamed", both, "s")
    larger = [max(a, b) for a, b in zip(sampling, decoding, strict=True)]
    report.ratio("streamed / larger of the two", list(zip(both, larger, strict=True)), most=1.15)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

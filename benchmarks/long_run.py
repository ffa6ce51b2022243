"""Time per chunk and memory of a long video, compared with a short one.

One session is continued for many chunks (400 by default). The report has:

- late / early, paired: the last chunks (100 by default) are timed in turns with the chunks of a second session, which
  has just reached its full ring and memory, on a second copy of the model. Other load affects both alike.
- late / early, in one run: the last chunks of the long session against those after its ring was full.
- resident memory at several points, from the moment when the ring is full and memory holds all latents that a replay
  may need (older ones are in a file). Growth is last / first.

The second session reaches its full memory before the long run begins; all points include it.
"""

from __future__ import annotations

import argparse
import gc
from statistics import median

from .measure import Report, alternate, resident_mib, timed
from .models import Rollout, add_arguments, architecture, random_model, start_session

POINTS = 7  # measurements of memory


def settled_after(args: argparse.Namespace) -> int:
    """Count the chunks until the ring is full and the number of latents in memory no longer grows."""
    ring: int = -(-args.window // args.chunk)
    return 2 + ring + int(args.layers) * ring


def _memory() -> float:
    gc.collect()
    return resident_mib()


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, dim=256, ffn=1024, layers=4, heads=2, latent=(16, 16), pairs=100)
    parser.add_argument("--chunks", type=int, default=400, help="length of the video; default: %(default)s")
    args = parser.parse_args()
    full, settled, alone = 1 + -(-args.window // args.chunk), settled_after(args), args.chunks - args.pairs
    if alone <= settled:
        parser.error(f"--chunks is too small: this needs more than {settled + args.pairs}")
    report = Report("long_run", args)

    arch = architecture(args)
    young, old = (Rollout(start_session(random_model(arch, args.seed), args)) for _ in range(2))
    for _ in range(settled):
        young.chunk()
    seconds, memory = [], {}
    points = {settled + (alone - 1 - settled) * i // (POINTS - 1) for i in range(POINTS)}
    for chunk in range(alone):
        seconds.append(timed(old.chunk)[0])
        if chunk in points:
            memory[chunk + 1] = _memory()
    pairs = alternate(old.chunk, young.chunk, args.pairs)
    memory[args.chunks] = _memory()

    late, early = [a for a, _ in pairs], [b for _, b in pairs]
    report.row("early chunk", early, "s")
    report.row("late chunk", late, "s")
    report.ratio("late / early, paired", pairs, most=1.05)
    last = seconds[-args.pairs :]
    first = seconds[full : full + len(last)]
    report.row("late / early, in one run", [median(last) / median(first)], "x")
    for chunk, mib in memory.items():
        report.row(f"memory after {chunk} chunks", [mib], "MiB")
    values = list(memory.values())
    report.row("memory, last / first", [values[-1] / values[0]], "x", most=1.02)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

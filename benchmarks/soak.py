"""Growth of memory and disk while a video streams for long.

The tiny model streams through its decoder into a video file for many chunks (2,000 by default). Resident memory is
measured after every tenth chunk; the slope is that of a line fitted to the last two thirds. Latents that no replay
needs any more are written to disk, whose bytes are compared with the prediction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import sf_core
from sf_core import tiny
from sf_core.files.video import VideoWriter
from sf_core.session.frame_counts import video_frames
from sf_core.session.replay import replay_reach

from .measure import Report, resident_mib


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    report = Report("soak", args)
    model = tiny.load_transformer()
    session, decoder = (
        sf_core.Session.start(model, tiny.load_text().encode(tiny.PROMPT)),
        tiny.load_vae().stream_decoder(),
    )
    config, moments, memory = session.config, [], []
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, VideoWriter(Path(folder) / "soak.mp4", tiny.FPS) as writer:
        seconds = video_frames(args.chunks * config.chunk_frames, decoder.temporal_factor) / tiny.FPS
        for event in sf_core.stream(session, decoder, seconds, tiny.FPS):
            writer.write(event.frames[0])
            session = event.session
            if event.chunk % 10 == 0:
                moments.append((time.perf_counter() - begun) / 60)
                memory.append(resident_mib())
    third = len(memory) // 3
    slope = float(np.polyfit(moments[third:], memory[third:], 1)[0])
    reach = replay_reach(model.arch.num_layers, config.ring_frames, config.chunk_frames) or 0
    chunk_bytes = 4 * model.arch.in_dim * config.chunk_frames * session.latent_size[0] * session.latent_size[1]
    # in memory: the latents that a replay needs, the newest chunk, and the next one to be archived
    predicted = chunk_bytes * (session.chunks - reach - 2)
    report.row("chunks", [session.chunks], "")
    report.row("minutes", [moments[-1]], "min")
    report.row("memory after the first third", [memory[third]], "MiB")
    report.row("memory at the end", [memory[-1]], "MiB")
    report.row("slope after the first third", [slope], "MiB/min", most=1.0)
    report.row("latents on disk / predicted", [session.archive.nbytes / predicted], "x", least=0.999, most=1.001)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

"""`sf_core` compared with the reference implementation and with ComfyUI's core.

--reference PATH: a checkout of the reference (github.com/guandeh17/Self-Forcing), at equal windows.
  Whole chunks (denoising steps and cache pass) in the steady state: its time divided by ours. Then the first chunk of a
  video, until its latents go to a decoder: the reference runs the cache pass before that, ours runs it with the next
  chunk. The time includes the allocation of the caches on both sides.
--comfyui PATH: a checkout of ComfyUI, whose own causal Wan has no window, so that a chunk's cost grows with the video.
  The time of the chunk that ends nearest to 21, 41 and 101 latent frames, divided by the time of ours.

Weights, prompt and noise are the same on both sides, all float32 on the CPU. Every chunk that both sample is compared
first: nothing is reported unless their relative L2 distance is below the tolerance. Chunks alternate, ours, theirs.
The rivals are imported from the given paths; rival_reference.py and rival_comfyui.py describe how they are called.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import sf_core

from .measure import Report, alternate, commit_of
from .models import Rollout, add_arguments, add_latent, architecture, context_frames, random_state, start_session
from .rival_comfyui import Core
from .rival_reference import Reference

LENGTHS = (21, 41, 101)  # latent frames


class Compared:
    """Our rollout and a rival's in step, which end with an error as soon as their latents differ."""

    def __init__(self, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], tolerance: float) -> None:
        self.ours, self.theirs, self.tolerance = ours, theirs, tolerance
        self.distances: list[float] = []

    def alternate(self, chunks: int) -> list[tuple[float, float]]:
        """Measure ``chunks`` chunks: (theirs, ours) in seconds."""
        latents: dict[str, list[Tensor]] = {"theirs": [], "ours": []}
        theirs, ours = lambda: latents["theirs"].append(self.theirs()), lambda: latents["ours"].append(self.ours())
        times = alternate(theirs, ours, chunks)
        for a, b in zip(latents["theirs"], latents["ours"], strict=True):
            self.distances.append(float((a - b).norm() / b.norm()))
            if not self.distances[-1] < self.tolerance:
                raise SystemExit(
                    f"compared chunk {len(self.distances)} differs by {self.distances[-1]:.3g}, more than "
                    f"{self.tolerance:.3g}: the two do not compute the same, so their times say nothing"
                )
        return times


def against_reference(args: argparse.Namespace) -> int:
    """Compare steady chunks and the first chunk with the reference."""
    report = Report("rivals_reference", args)
    report.settings["rival"] = commit_of(args.reference)
    state = random_state(architecture(args), args.seed)
    model = sf_core.load_model(state, num_heads=args.heads, text_len=args.text_len)
    empty, given = start_session(model, args), start_session(model, args, context_frames(args))
    ours, theirs = Rollout(given), Reference(args.reference, state, empty)
    torch.set_num_threads(args.threads)  # in case an import changed it

    theirs.give(given.latents)
    steady = Compared(ours.chunk, theirs.chunk, args.tolerance)
    steady.alternate(2)  # ours writes the context to its cache in the first; both caches roll from the second on
    times = steady.alternate(args.pairs)
    report.row("relative L2 distance", steady.distances, "")
    report.row("reference, steady chunk", [a for a, _ in times], "s")
    report.row("ours, steady chunk", [b for _, b in times], "s")
    report.ratio("reference / ours, steady chunk", times, least=0.97)

    def our_first() -> Tensor:
        model.release_cache()
        return Rollout(empty).chunk()

    def their_first() -> Tensor:
        theirs.reset()
        return theirs.chunk()

    first = Compared(our_first, their_first, args.tolerance)
    times = first.alternate(args.pairs)
    report.row("reference, to the first latents", [a for a, _ in times], "s")
    report.row("ours, to the first latents", [b for _, b in times], "s")
    report.ratio("reference / ours, to the first latents", times, least=1.2)
    return report.finish()


def against_comfyui(args: argparse.Namespace) -> int:
    """Compare chunks at growing lengths of the video with ComfyUI's core."""
    args = argparse.Namespace(**vars(args) | {"latent": args.comfyui_latent})
    report = Report("rivals_comfyui", args)
    report.settings["rival"] = commit_of(args.comfyui)
    arch = architecture(args)
    state = random_state(arch, args.seed)
    model = sf_core.load_model(state, num_heads=args.heads, text_len=args.text_len)
    ends = [max(3, round(length / args.chunk)) * args.chunk for length in LENGTHS]
    empty = start_session(model, args)
    core = Core(args.comfyui, state, empty, max(args.window, *ends))
    torch.set_num_threads(args.threads)

    inside = Compared(Rollout(empty).chunk, core.chunk, args.tolerance)
    inside.alternate(args.window // args.chunk)  # as long as our window holds the whole video
    report.row("relative L2 distance", inside.distances, "")
    for end in ends:
        ours = Rollout(start_session(model, args, end - 2 * args.chunk))
        ours.chunk()  # writes the context to its cache; the next chunk ends at `end`, those after it cost the same
        core.restart()
        core.give(ours.session.latents)
        times = alternate(core.repeat_chunk, ours.chunk, args.pairs)
        report.row(f"core, chunk at {end} frames", [a for a, _ in times], "s")
        report.row(f"ours, chunk at {end} frames", [b for _, b in times], "s")
        report.ratio(f"core / ours at {end} frames", times)
    return report.finish()


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--reference", type=Path, help="checkout of guandeh17/Self-Forcing")
    parser.add_argument("--comfyui", type=Path, help="checkout of ComfyUI")
    add_latent(parser, "--comfyui-latent", (20, 32))
    parser.add_argument("--tolerance", type=float, default=1e-5, help="relative L2 distance; default: %(default)s")
    args = parser.parse_args()
    if not (args.reference or args.comfyui):
        parser.error("give --reference or --comfyui, or both")
    status = against_reference(args) if args.reference else 0
    return max(status, against_comfyui(args)) if args.comfyui else status


if __name__ == "__main__":
    raise SystemExit(main())

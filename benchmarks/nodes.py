"""The nodes in a real ComfyUI, compared with ComfyUI core's autoregressive sampler and with `sf_core` without nodes.

Seconds are by the server's clock, from the start of a prompt to its success, with everything but the sampling cached.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import sf_core
from sf_core.model.architecture import WanArchitecture
from tools.comfyui.checkout import Checkout, latest
from tools.comfyui.server import PACK, Server

from .measure import ROOT, Report, timed
from .models import random_prompt, random_state

CHUNK, STEPS = 3, 4


def save_model(server: Server, arch: WanArchitecture) -> None:
    """Save a random model, for our nodes and for core."""
    folder = server.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state(arch)
    save_file(state, folder / "ours.safetensors")
    save_file(state, folder / "core.safetensors", {"config": json.dumps({"transformer": {"causal_ar": True}})})


def ours(args: argparse.Namespace, frames: int, seed: int) -> dict[str, Any]:
    """Build the prompt with our nodes."""
    return {
        "1": node("UNETLoader", unet_name="ours.safetensors", weight_dtype="default"),
        "2": node("SFFromModel", model=["1", 0], preset="Self Forcing"),
        "3": node("ProbeConditioning", seed=0, rows=512, width=4096, scale=1.0, prompts=1),
        "4": node("SFSession", model=["2", 0], positive=["3", 0], width=args.size[0], height=args.size[1], seed=seed),
        "5": node("SFSampleChunks", session=["4", 0], chunks=frames // CHUNK),
        "6": node("ProbeTensor", latent=["5", 1]),
    }


def core(args: argparse.Namespace, frames: int, seed: int) -> dict[str, Any]:
    """Build the prompt with core's sampler."""
    size = {"width": args.size[0], "height": args.size[1], "length": 4 * frames - 3, "batch_size": 1}
    sampling = {
        "noise": ["7", 0],
        "guider": ["4", 0],
        "sampler": ["6", 0],
        "sigmas": ["5", 0],
        "latent_image": ["3", 0],
    }
    return {
        "1": node("UNETLoader", unet_name="core.safetensors", weight_dtype="default"),
        "2": node("ProbeConditioning", seed=0, rows=512, width=4096, scale=1.0, prompts=1),
        "3": node("EmptyARVideoLatent", **size),
        "4": node("CFGGuider", model=["1", 0], positive=["2", 0], negative=["2", 0], cfg=1.0),
        "5": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=STEPS, denoise=1.0),
        "6": node("SamplerARVideo", num_frame_per_block=CHUNK),
        "7": node("RandomNoise", noise_seed=seed),
        "8": node("SamplerCustomAdvanced", **sampling),
        "9": node("ProbeTensor", latent=["8", 0]),
    }


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """Build a node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


def server_seconds(server: Server, prompt: dict[str, Any]) -> float:
    """Run a prompt, and return its seconds by the server's clock."""
    messages = dict(server.wait(server.submit(prompt), timeout=3600)["status"]["messages"])
    milliseconds = messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]
    return float(milliseconds) / 1000


def without_nodes(args: argparse.Namespace, arch: WanArchitecture) -> Callable[[int, int], float]:
    """Return a function that samples with `sf_core` alone and returns the seconds."""
    model = sf_core.load_model(random_state(arch))
    size = (args.size[1] // 8, args.size[0] // 8)

    def run(frames: int, seed: int) -> float:
        def chunks() -> None:
            session = sf_core.Session.start(model, random_prompt(arch), size, seed=seed)
            for _ in range(frames // CHUNK):
                session, _ = session.next_chunk()

        model.release_cache()
        return timed(chunks)[0]

    return run


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, help="a checkout that has such a sampler; default: the tests'")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=1536)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 160), help="width and height in pixels")
    parser.add_argument("--frames", type=int, nargs="+", default=(21, 63), help="latent frames of the clips")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    report = Report("nodes", args)
    arch = WanArchitecture(dim=args.dim, ffn_dim=args.ffn, num_layers=args.layers, num_heads=args.dim // 128)
    checkout = Checkout.at(args.comfyui) if args.comfyui else latest()
    seeds, alone = itertools.count(), without_nodes(args, arch)
    with tempfile.TemporaryDirectory() as folder:
        packs = {PACK: ROOT, "probe_pack": ROOT / "tests" / "comfyui" / "probe_pack"}
        with Server(checkout, Path(folder), packs=packs, threads=args.threads) as server:
            save_model(server, arch)
            for build in (ours, core):
                server_seconds(server, build(args, CHUNK, next(seeds)))  # loading and warm-up
            alone(CHUNK, 0)
            for frames in args.frames:
                rows = []
                for _ in range(args.rounds):
                    seed = next(seeds)
                    nodes, theirs = (server_seconds(server, build(args, frames, seed)) for build in (ours, core))
                    rows.append((nodes, theirs, alone(frames, seed)))
                    shutil.rmtree(server.base / "temp" / "self_forcing", ignore_errors=True)
                report.row(f"{frames} latent frames, Sample Chunks", [nodes for nodes, _, _ in rows], "s")
                report.ratio(f"{frames} latent frames, core's sampler / ours", [(b, a) for a, b, _ in rows])
                report.ratio(f"{frames} latent frames, Sample Chunks / sf_core alone", [(a, c) for a, _, c in rows])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

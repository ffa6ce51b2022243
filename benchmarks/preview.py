"""Cost of the live preview: Stream Video in a real ComfyUI, with a client that receives its frames and without one.

Seconds are by the server's clock, one prompt each, in turns. It runs the dim-512 model of the other benchmarks at 256 x
256, and the embedded model.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sf_core.model.architecture import WanArchitecture
from sf_core.vae.wan_vae import WanVAEConfig
from tools.comfyui.checkout import primary
from tools.comfyui.server import PACK, Server

from .measure import ROOT, Report
from .nodes import node, save_model, server_seconds

SIZE = 256
_seeds: Iterator[int] = itertools.count()


def big(chunks: int) -> dict[str, Any]:
    """Build the prompt for the dim-512 model."""
    return {
        "1": node("UNETLoader", unet_name="ours.safetensors", weight_dtype="default"),
        "2": node("SFFromModel", model=["1", 0], preset="Self Forcing"),
        "3": node("ProbeConditioning", seed=0, rows=512, width=4096, scale=1.0, prompts=1),
        "4": node("SFSession", model=["2", 0], positive=["3", 0], width=SIZE, height=SIZE, seed=next(_seeds)),
        "5": node("VAELoader", vae_name="small.safetensors"),
        "6": node("SFStreamVideo", session=["4", 0], vae=["5", 0], seconds=(12 * chunks - 3) / 16, fps=16.0),
    }


def small(chunks: int) -> dict[str, Any]:
    """Build the prompt for the embedded model."""
    prompt = "a red circle moving left quickly on a black background"
    return {
        "1": node("SFLoadTiny"),
        "3": node("CLIPTextEncode", text=prompt, clip=["1", 1]),
        "4": node("SFSession", model=["1", 0], positive=["3", 0], width=64, height=64, seed=next(_seeds)),
        "6": node("SFStreamVideo", session=["4", 0], vae=["1", 2], seconds=(12 * chunks - 3) / 16, fps=16.0),
    }


def save_vae(server: Server) -> None:
    """Save a narrow Wan VAE, so that decoding does not dominate the measurement."""
    rng = torch.Generator().manual_seed(0)
    weights = {name: 0.05 * torch.randn(shape, generator=rng) for name, shape in WanVAEConfig(8).shapes.items()}
    folder = server.base / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "small.safetensors")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    report = Report("preview", args)
    with tempfile.TemporaryDirectory() as folder:
        packs = {PACK: ROOT, "probe_pack": ROOT / "tests" / "comfyui" / "probe_pack"}
        with Server(primary(), Path(folder), packs=packs, threads=args.threads) as server:
            save_model(server, WanArchitecture(dim=512, ffn_dim=1536, num_layers=6, num_heads=4))
            save_vae(server)
            for name, build, chunks, most in (("dim 512", big, 3, 1.03), ("tiny", small, 40, None)):
                server_seconds(server, build(1))  # loading and warm-up
                pairs = []
                for turn in range(args.rounds):
                    seconds = {}
                    for watched in (True, False) if turn % 2 else (False, True):
                        shutil.rmtree(server.base / "temp" / "self_forcing", ignore_errors=True)
                        seconds[watched] = _seconds(server, build(chunks), watched)
                    pairs.append((seconds[True], seconds[False]))
                report.row(f"{name}, unwatched", [alone for _, alone in pairs], "s")
                report.ratio(f"{name}, watched / unwatched", pairs, **({"most": most} if most else {}))
    return report.finish()


def _seconds(server: Server, prompt: dict[str, Any], watched: bool) -> float:
    if not watched:
        return server_seconds(server, prompt)
    with server.events("watcher") as events:
        server.post("/self_forcing/attach", {"client_id": "watcher"})
        prompt_id = server.submit(prompt, client_id=events.client_id)
        messages = dict(server.wait(prompt_id, timeout=3600)["status"]["messages"])
        assert events.of("self_forcing.frames")
    return float(messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]) / 1000


if __name__ == "__main__":
    sys.exit(main())

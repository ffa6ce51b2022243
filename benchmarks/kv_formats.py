"""Error, size and speed of the number formats of a KV cache: the tables of docs/hardware.md.

Errors are relative L2 distances to the same in full precision, in float32:

* attention: the output of one layer with the shapes of Wan 2.1 1.3B (heads of 128, frames of 1560 tokens) at window 21,
  for keys whose channels differ as those of trained models do: Student's t with 3 degrees of freedom, a few channels
  ten times as large in all tokens, the rotary position applied; queries that look at one key each, more than at
  all others.
* video: latents of the embedded tiny model after 1 and 4 windows, against the same noise and prompts.

Speed: attention of a chunk to a full ring, in turns with full precision on one CPU core (``--threads``).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.model.attention import sdpa
from sf_core.model.cache_shape import CacheShape
from sf_core.model.layer_view import LayerView
from sf_core.model.place import Place
from sf_core.model.quantised_cache import new_cache
from sf_core.model.rope import apply_rope, rope_rotations
from sf_core.model.sink import SinkRule
from sf_core.rollout_rules import KV_DTYPES
from sf_core.tiny.world import prompts

from .measure import Report, alternate

HEAD = 128
CHUNK, WINDOW = 3, 21  # latent frames
LARGE_CHANNELS, FACTOR = 4, 10.0  # of each head
PEAK = 12.0


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, nargs=2, default=(30, 52), help="rows and columns of tokens")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    report = Report("kv_formats", args)
    layers = {kind: wan_layer(kind, args.grid, args.heads) for kind in (None, *KV_DTYPES)}
    _, q = layers[None]
    exact = layers[None][0].attend(q, sdpa)
    for kind in KV_DTYPES:
        report.row(f"{kind}: error of attention, Wan", [distance(layers[kind][0].attend(q, sdpa), exact)], "")
    videos = {kind: tiny_videos(kind, args.videos) for kind in (None, *KV_DTYPES)}
    for kind in KV_DTYPES:
        for windows in (1, 4):
            frames = slice(None, windows * tiny_window())
            of_video = [
                distance(a[:, :, frames], b[:, :, frames]) for a, b in zip(videos[kind], videos[None], strict=True)
            ]
            report.row(f"{kind}: error of the tiny video, {windows} window{'s'[: windows - 1]}", of_video, "")
    for kind in KV_DTYPES:
        report.row(f"{kind}: size of a full cache, 1.3B at window 21", [size(kind) / size(None)], "x")
    for kind in KV_DTYPES:
        view = layers[kind][0]

        def quantised(view: LayerView = view) -> Tensor:
            return view.attend(q, sdpa)

        def full() -> Tensor:
            return layers[None][0].attend(q, sdpa)

        most = {"most": 1.15} if kind == "int8" else {}
        report.ratio(f"{kind}: time of attention", alternate(quantised, full, args.pairs), **most)
    return report.finish()


def wan_layer(kv_dtype: str | None, grid: tuple[int, int], heads: int) -> tuple[LayerView, Tensor]:
    """A full cache of one layer as a chunk sees it, and the chunk's queries."""
    rows, columns = grid
    unit, ring = rows * columns, WINDOW - CHUNK
    sizes = (1, 1, heads, HEAD, unit, CHUNK, 0, ring, SinkRule(), 2, torch.float32, torch.device("cpu"))
    cache, generator = new_cache(CacheShape(*sizes, kv_dtype=kv_dtype)), torch.Generator().manual_seed(0)
    channels = torch.ones(heads, HEAD)
    for head in range(heads):
        channels[head, torch.randperm(HEAD, generator=generator)[:LARGE_CHANNELS]] = FACTOR
    means = channels * torch.randn(heads, HEAD, generator=generator)  # large channels keep their sign
    for start in range(0, WINDOW + 1, CHUNK):
        place = Place(start, CHUNK, 0, 0)
        rotations = rope_rotations(range(start, start + CHUNK), rows, columns, HEAD)
        noise = heavy_tailed((1, CHUNK * unit, heads, HEAD), generator)
        keys = apply_rope(means + channels.sqrt() * noise, rotations)
        values = heavy_tailed((1, CHUNK * unit, heads, HEAD), generator)
        view = cache.open(place)[0]
        view.write(keys, values)
        if start < WINDOW:
            cache.commit(place)
    q = keys[:, torch.randperm(CHUNK * unit, generator=generator)]  # each looks at a key: a score of PEAK on average
    return view, q * (PEAK * HEAD**0.5 / float(keys.square().sum(-1).mean()))


def heavy_tailed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers of Student's t with 3 degrees of freedom, of variance 1."""
    normal = torch.randn(shape, generator=generator)
    squares = torch.stack([torch.randn(shape, generator=generator).square() for _ in range(3)]).mean(0)
    return normal / squares.sqrt() / 3**0.5


def distance(ours: Tensor, exact: Tensor) -> float:
    """The relative L2 distance."""
    return float((ours - exact).norm() / exact.norm())


def tiny_window() -> int:
    """Latent frames of the tiny model's window."""
    config = tiny.load_transformer().rollout_config
    assert config is not None
    assert config.window_frames is not None
    return config.window_frames


def tiny_videos(kv_dtype: str | None, count: int) -> list[Tensor]:
    """Latents of some prompts, over four windows."""
    model, text = tiny.load_transformer(), tiny.load_text()
    assert model.rollout_config is not None
    assert model.latent_size is not None
    config = replace(model.rollout_config, kv_dtype=kv_dtype)
    videos = []
    for caption in prompts(count, seed=6):
        session = sf_core.Session.start(model, text.encode(caption), model.latent_size, config)
        while session.frames < 4 * tiny_window():
            session, _ = session.next_chunk()
        videos.append(session.latents)
    return videos


def size(kv_dtype: str | None) -> int:
    """Bytes of the published cache."""
    sizes = (30, 1, 12, HEAD, 1560, CHUNK, 0, WINDOW - CHUNK, SinkRule(), 512, torch.bfloat16, torch.device("cpu"))
    return CacheShape(*sizes, kv_dtype=kv_dtype).nbytes()


if __name__ == "__main__":
    raise SystemExit(main())

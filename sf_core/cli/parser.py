"""The arguments of ``python -m sf_core``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import tiny
from ..files.convert import convert
from .bench import run_bench
from .environment import environment_report
from .generate import DEFAULT_SECONDS, DTYPES, generate
from .info import describe
from .train import train


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sf_core", description="Self Forcing: streaming autoregressive video."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    make = commands.add_parser(
        "generate",
        help="make a video, or go on with a session",
        description="Makes a video, by default with the embedded tiny model. Its length is rounded up to whole chunks. "
        "Under torchrun, processes make it together, each with a part of the attention heads.",
    )
    make.add_argument("--prompt", help=f"what to show (default: {tiny.PROMPT!r}); with --session: switch to it")
    make.add_argument("--recache", action="store_true", help="with --session and --prompt: rewrite the window under it")
    make.add_argument("--image", type=Path, help="a picture that the video begins with")
    make.add_argument("--video", type=Path, help="a clip that the video goes on from")
    make.add_argument(
        "--seconds", type=float, help=f"how much to make (default: {DEFAULT_SECONDS:g}, or what was rewound)"
    )
    make.add_argument(
        "--fps", type=float, default=tiny.FPS, help="frames per second of the file (default: %(default)s)"
    )
    make.add_argument(
        "--size", type=int, nargs=2, metavar=("W", "H"), help="pixels (default: the model's own, or 832 480)"
    )
    make.add_argument("--seed", type=int, help="noise seed (default: 0); with --session: of what is made from here on")
    make.add_argument("--out", type=Path, help="the MP4 or WebM file to write (default: video.mp4)")
    make.add_argument("--webm", action="store_true", help="write video.webm, if --out names no other file")
    make.add_argument("--session", type=Path, metavar="F", help="go on with this session; it is saved back to F")
    make.add_argument("--rewind", type=int, default=0, metavar="N", help="first undo the session's newest N chunks")
    make.add_argument(
        "--fork-to", type=Path, metavar="F", help="save the continued session to F, leaving the old one alone"
    )
    make.add_argument("--save-session", type=Path, metavar="F", help="save the session to F")
    make.add_argument("--model", type=Path, help="a Wan 2.1 checkpoint (default: the embedded tiny model)")
    make.add_argument("--lora", type=Path, help="a LoRA to merge into the model")
    make.add_argument("--lora-strength", type=float, default=1.0, help="default: %(default)s")
    make.add_argument("--vae", type=Path, help="its decoder: a Wan VAE or a TAEHV file")
    make.add_argument(
        "--text-encoder",
        type=Path,
        help="umT5 as safetensors, a trained world's text folder, or a file with the prompt's embeddings",
    )
    make.add_argument("--device", default="cpu", help="where to compute (default: %(default)s)")
    make.add_argument(
        "--dtype",
        choices=list(DTYPES),
        default="float32",
        help="of model and text encoder, and of the decoder on a GPU (default: %(default)s)",
    )
    make.add_argument(
        "--fast", action="store_true", help="compile the model, and on a GPU replay its passes: slower to start"
    )
    _add_threads(make)
    make.set_defaults(run=generate)

    clean = commands.add_parser(
        "convert",
        help="write a checkpoint of any kind as clean safetensors",
        description="Writes a checkpoint's transformer as safetensors, in original names, with its settings inside.",
    )
    clean.add_argument("source", type=Path)
    clean.add_argument("target", type=Path)
    clean.add_argument("--dtype", choices=list(DTYPES), help="of the weights (default: as they are)")
    clean.add_argument("--lora", type=Path, help="a LoRA to merge into them")
    clean.add_argument("--lora-strength", type=float, default=1.0, help="default: %(default)s")
    clean.add_argument("--member", help="which published model this is, such as 'Self Forcing' or 'LongLive'")
    clean.add_argument("--num-heads", type=int, help="if they are not 128 wide each")
    clean.set_defaults(run=_convert)

    learn = commands.add_parser(
        "train",
        help="train by a recipe",
        description="Trains by a recipe: a TOML file, or one that comes along (tiny-world, wan-1.3b-dmd). It may be "
        "killed at any time; --resume goes on. Under torchrun, processes train together, each with a part of all "
        "weights and batches. Needs the extra: pip install '.[train]'.",
    )
    learn.add_argument("--recipe", required=True, help="a TOML file, or the name of a recipe that comes along")
    learn.add_argument("--out", type=Path, metavar="FOLDER", help="where to work (default: runs/<the recipe's name>)")
    learn.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder; under torchrun, begin it if need be"
    )
    learn.add_argument("--smoke", action="store_true", help="a few steps of each stage, anew each time: does it run?")
    learn.add_argument("--threads", type=int, default=_all_threads(), help="CPU threads (default: all, %(default)s)")
    learn.set_defaults(run=train)

    info = commands.add_parser("info", help="describe a session or checkpoint file, or this machine for a bug report")
    info.add_argument("file", type=Path, nargs="?", help="default: none, which describes this machine")
    info.set_defaults(run=lambda args: print(describe(args.file) if args.file else environment_report()))

    bench = commands.add_parser("bench", help="measure the embedded tiny model on this machine")
    bench.add_argument(
        "--chunks", type=int, default=60, help="chunks to measure after the warm-up (default: %(default)s)"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    _add_threads(bench)
    bench.set_defaults(run=lambda args: run_bench(args.chunks, args.json))
    return parser


def _all_threads() -> int:
    """Of this machine; under ``torchrun``, its processes share them."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads (default: 1; more do not help a model this small)"
    )


def _convert(args: argparse.Namespace) -> None:
    heads = {} if args.num_heads is None else {"num_heads": args.num_heads}
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    facts = convert(args.source, args.target, dtype, args.lora, args.lora_strength, args.member, **heads)
    print(f"{args.target}: {', '.join(f'{name}={value}' for name, value in facts.items())}")

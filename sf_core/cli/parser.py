"""The command-line parser of ``python -m sf_core``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from .. import tiny
from ..files.convert import convert
from ..files.file_names import check_new_file
from ..rollout_rules import KV_DTYPES
from ..session.drift import THRESHOLD
from ..session.drift_guard import DriftAction
from ..session.published_noise import AS_PUBLISHED, NOISES, PER_CHUNK
from .bench import run_bench
from .environment import environment_report
from .generate import DEFAULT_SECONDS, DTYPES, generate
from .info import describe
from .model_sizes import ITEMSIZE, SIZES
from .plan import plan_command
from .source import add_source_options
from .train import train
from .verify import verify


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; a parsed command is the attribute ``run``, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m sf_core",
        description="Self Forcing: streaming autoregressive video. COMMAND --help lists the options of a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_convert(commands)
    _add_train(commands)
    _add_info(commands)
    _add_bench(commands)
    _add_verify(commands)
    _add_plan(commands)
    return parser


def _add_generate(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="make a video, or continue a session",
        description="Make a video, by default with the embedded tiny model. Its length is rounded up to whole chunks. "
        "Under torchrun several processes make it together, each with a part of the attention heads.",
    )
    content = parser.add_argument_group("content")
    content.add_argument(
        "--prompt", help=f"what to show (default: {tiny.PROMPT!r}); with --session: the prompt from here on"
    )
    content.add_argument("--image", type=Path, metavar="FILE", help="a picture that the video begins with")
    content.add_argument("--video", type=Path, metavar="FILE", help="a clip to continue")
    content.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"length to make (default: {DEFAULT_SECONDS:g}, or the length removed by --rewind)",
    )
    content.add_argument(
        "--seed", type=int, help="seed of the noise (default: 0); with --session: the seed from here on"
    )
    content.add_argument(
        "--noise",
        choices=NOISES,
        help=f"{PER_CHUNK!r} (default): the same on every device. {AS_PUBLISHED!r}: drawn as the script of the model's "
        "authors does, for a video of this length, so that their video comes again from their seed; on a GPU as theirs",
    )
    _add_size(content)
    content.add_argument("--fps", type=float, help="frames per second (default: 16; of LongLive 2: 24)")

    add_source_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FILE", help="the MP4 or WebM file to write (default: video.mp4)")
    output.add_argument("--webm", action="store_true", help="write video.webm instead of video.mp4")
    output.add_argument("--save-session", type=Path, metavar="FILE", help="save the session to FILE")

    session = parser.add_argument_group("sessions")
    session.add_argument(
        "--session", type=Path, metavar="FILE", help="continue this session, and save it to FILE again"
    )
    session.add_argument("--rewind", type=int, metavar="N", help="remove the newest N chunks first")
    session.add_argument(
        "--fork-to", type=Path, metavar="FILE", help="save the continued session to FILE instead, and keep the old one"
    )
    session.add_argument(
        "--recache",
        action="store_true",
        help="with --prompt: recompute the KV cache of the window under the new prompt",
    )

    drift = parser.add_argument_group("drift")
    drift.add_argument(
        "--on-drift",
        choices=get_args(DriftAction),
        default="measure",
        help="what to do above the threshold; match: give the next chunk the colours of the first chunks; recache: "
        "pass the window again (default: %(default)s)",
    )
    drift.add_argument(
        "--drift-threshold",
        type=float,
        default=THRESHOLD,
        metavar="X",
        help="distance from the first chunks, in units of their spread; 0: every chunk (default: %(default)s)",
    )

    models = parser.add_argument_group("models")
    models.add_argument(
        "--model", type=Path, metavar="FILE", help="a Wan 2.1 checkpoint (default: the embedded tiny model)"
    )
    models.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA to merge into the model")
    models.add_argument("--lora-strength", type=float, metavar="X", help="factor of the LoRA (default: 1.0)")
    models.add_argument("--vae", type=Path, metavar="FILE", help="the model's VAE: Wan's, or a TAEHV")
    models.add_argument(
        "--text-encoder",
        type=Path,
        metavar="PATH",
        help="umT5 as safetensors, the text folder of a trained tiny world, or a file with the prompt's embeddings",
    )

    _add_computing(parser)
    parser.set_defaults(run=generate)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint of any kind as clean safetensors",
        description="Write a checkpoint's transformer as safetensors, in Wan's original names and with its settings as "
        "metadata.",
    )
    parser.add_argument("source", type=Path, help="a .safetensors, .pt or .pth file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the weights (default: unchanged)")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA to merge into the weights")
    parser.add_argument("--lora-strength", type=float, metavar="X", help="factor of the LoRA (default: 1.0)")
    parser.add_argument(
        "--member",
        metavar="NAME",
        help="the published model that this is, such as 'Self Forcing' or 'LongLive': adds its rollout settings",
    )
    parser.add_argument("--num-heads", type=int, metavar="N", help="number of heads, if they are not 128 wide")
    parser.set_defaults(run=_convert)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model by a recipe",
        description="Train by a recipe: a TOML file, or an included one (tiny-world, wan-1.3b-dmd ...). A training may "
        "be stopped or killed at any time, and continued with --resume. Under torchrun several processes train "
        "together, each with a part of all weights and batches. Needs the extra: pip install '.[train]'.",
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--recipe", metavar="RECIPE", help="a TOML file, or the name of an included recipe")
    task.add_argument(
        "--plan",
        action="store_true",
        help="train nothing: print the predicted memory and compute of trainings of the published sizes",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run (default: runs/RECIPE'S NAME)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder; under torchrun, start it if there is none",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a test: a few steps of each stage, from the start each time"
    )
    parser.add_argument("--threads", type=int, default=_all_threads(), help="CPU threads (default: all, %(default)s)")
    parser.set_defaults(run=train)


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="describe a session, a checkpoint, a LoRA or a training; or this machine",
        description="Describe a file: a session, a checkpoint, a LoRA, or the state of a training. Without a file, "
        "describe this machine, for a bug report.",
    )
    parser.add_argument("file", type=Path, nargs="?", help="default: none, which describes this machine")
    parser.set_defaults(run=lambda args: print(describe(args.file) if args.file else environment_report()))


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure how fast a model streams on this machine",
        description="Stream a video with a model, by default the embedded tiny one; print rates, times of each stage "
        "and memory. The prompt of another model is random numbers, which take as long.",
    )
    parser.add_argument(
        "--chunks", type=int, default=60, metavar="N", help="chunks to measure after the warm-up (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE, too")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a Wan 2.1 checkpoint (default: the tiny model)")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="the model's VAE: Wan's, or a TAEHV")
    _add_size(parser)
    _add_computing(parser)
    nothing = dict.fromkeys(("prompt", "image", "video", "seed", "lora", "lora_strength", "text_encoder", "session"))
    parser.set_defaults(run=run_bench, **nothing)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="check that this machine plays a checkpoint as it should",
        description="Play a recorded run of the checkpoint's family with a tiny model, and compare the numbers. Then "
        "make a video with the checkpoint itself, and check what sessions promise: the same seed makes the same video, "
        "also after a rewind and after the cache was lost, and the cache takes the memory that was predicted. Prints "
        "a certificate, and exits with 1 if a check failed.",
    )
    parser.add_argument("file", type=Path, help="a causal Wan checkpoint")
    parser.add_argument("--preset", metavar="NAME", help="the published model that it is, if the file does not tell")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the certificate to FILE, too, as JSON")
    parser.add_argument(
        "--case-only", action="store_true", help="only play the recorded run; do not load the checkpoint"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="of the checkpoint's video in pixels (default: 128 128 on a CPU, else 832 480)",
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (default: %(default)s)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the computation (default: float32)")
    parser.add_argument("--threads", type=int, default=_all_threads(), help="CPU threads (default: all, %(default)s)")
    parser.set_defaults(run=verify)


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="settings with which a video fits a card, or is made in real time",
        description="Find settings with which a published model's video fits this machine's device or a card of a "
        "given size, changed as little as possible, and predict memory, work and frames a second. The speed of the "
        "device is measured in two seconds, once.",
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--size-of", choices=list(SIZES), help="size of a published model (default: 1.3B)")
    model.add_argument(
        "--model", type=Path, metavar="FILE", help="a checkpoint, whose sizes and dtype are read, not its weights"
    )
    parser.add_argument("--preset", metavar="NAME", help="rollout settings to begin with (default: the model's)")
    parser.add_argument("--weights", choices=list(ITEMSIZE), help="dtype (default: the file's, or bf16)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="of the video in pixels (default: the model's own, or 832 480)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="length, for an unbounded window (default: %(default)g)",
    )
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--memory", type=float, metavar="GIB", help="plan for a card of so much memory, not this one")
    device.add_argument("--real-time", action="store_true", help="make frames as fast as they are shown")
    device.add_argument("--calibrate", action="store_true", help="measure this device anew")
    device.add_argument("--table", action="store_true", help="print what fits cards of usual sizes")
    parser.add_argument(
        "--ram", type=float, metavar="GIB", help="RAM beside --memory, for a cache there (default: enough)"
    )
    parser.add_argument("--device", help="such as cpu or cuda (default: cuda where there is one)")
    parser.set_defaults(run=plan_command)


def _all_threads() -> int:
    """Count the CPU threads of this machine; under ``torchrun`` its processes share them."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _add_size(parser: Any) -> None:
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="in pixels (default: the model's own, or 832 480)",
    )


def _add_computing(parser: Any) -> None:
    computing = parser.add_argument_group("computing")
    computing.add_argument("--device", default="cpu", help="such as cpu or cuda (default: %(default)s)")
    computing.add_argument(
        "--dtype",
        choices=list(DTYPES),
        help="with --model: of model and text encoder, and of the VAE on a GPU (default: float32)",
    )
    computing.add_argument(
        "--kv-dtype",
        choices=KV_DTYPES,
        help="number format of the KV cache (default: the model's); int8 and fp8 halve it, int4 takes a quarter",
    )
    computing.add_argument(
        "--kv-offload",
        action="store_true",
        help="keep the KV cache in RAM, and two layers of it on the GPU: the same video, more slowly",
    )
    computing.add_argument(
        "--fast",
        action="store_true",
        help="compile the model, and on a GPU replay its passes as CUDA graphs; it starts more slowly",
    )
    _add_threads(computing)


def _add_threads(parser: Any) -> None:
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads (default: 1; the tiny model is no faster with more)",
    )


def _convert(args: argparse.Namespace) -> None:
    check_new_file(args.target)
    heads = {} if args.num_heads is None else {"num_heads": args.num_heads}
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    strength = 1.0 if args.lora_strength is None else args.lora_strength
    facts = convert(args.source, args.target, dtype, args.lora, strength, args.member, **heads)
    print(f"{args.target}: {', '.join(f'{name}={value}' for name, value in facts.items())}")

"""Rules of the command line: which options go together, and the ranges of numbers. No option is ignored silently."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..files.file_names import check_new_file
from ..files.video import check_video_name
from ..ranges import FPS, LENGTH, PIXELS, Range

THREADS = Range(1, 1024, whole=True)
BENCH_CHUNKS = Range(2, 1_000_000, whole=True, words="2 or more, and at most 1,000,000")
_CHUNKS = Range(0, 1_000_000, whole=True)
_MEMORY = Range(0.1, 10_000.0)  # GiB
_STRENGTH = Range(-100.0, 100.0)
_SHARE = Range(0.0, 1.0)

# options, the one that they need, and the reason
_GO_WITH: dict[str, Sequence[tuple[Sequence[str], str, str]]] = {
    "generate": (
        (("rewind", "fork_to", "recache"), "session", "name the session to go on with"),
        (("recache",), "prompt", "it recomputes the cache under a new prompt"),
        (
            ("vae", "text_encoder", "lora", "dtype"),
            "model",
            "without one the embedded tiny model is used, in float32",
        ),
        (("lora_strength",), "lora", "it is the factor of one"),
        (("strength", "source_end", "source_fit", "source_schedule"), "source", "they say how it is used"),
    ),
    "bench": ((("vae", "dtype"), "model", "without one the embedded tiny model is used, in float32"),),
    "convert": ((("lora_strength",), "lora", "it is the factor of one"),),
    "train": ((("out", "resume", "smoke"), "recipe", "--plan trains nothing"),),
    "plan": ((("ram",), "memory", "this machine's is known"),),
}
_READ = (
    "image",
    "video",
    "source",
    "session",
    "model",
    "lora",
    "vae",
    "text_encoder",
)  # files that no output may replace
_BEGINNINGS = ("image", "video", "size", "kv_dtype", "kv_offload", "noise")  # a session has its own
_ALTERNATIVES = {"generate": (("image", "video"), ("fork_to", "save_session"))}


def check_options(args: argparse.Namespace) -> None:
    """Check the arguments of any command before its work.

    Raises:
        ValueError: An option is out of range, or would be ignored beside the others; the message says what to do.
    """
    for options, needed, why in _GO_WITH.get(args.command, ()):
        given = [option for option in options if _given(args, option)]
        if given and not _given(args, needed):
            rule = f"{_listed(options)} {'goes' if len(options) == 1 else 'go'} with {_flag(needed)}: {why}"
            raise ValueError(rule if given == list(options) else f"{_listed(given)} without {_flag(needed)}. {rule}")
    for one, other in _ALTERNATIVES.get(args.command, ()):
        if _given(args, one) and _given(args, other):
            raise ValueError(f"give {_flag(one)} or {_flag(other)}, not both")
    if getattr(args, "threads", None) is not None:
        THREADS.check("--threads", args.threads)
    if getattr(args, "lora_strength", None) is not None:
        _STRENGTH.check("--lora-strength", args.lora_strength)
    if args.command == "bench":
        _check_bench(args)
    if args.command == "generate":
        _check_generate(args)
    if args.command == "verify":
        _check_verify(args)
    if args.command == "plan":
        _check_plan(args)


def _check_size(args: argparse.Namespace) -> None:
    for name, pixels in zip(("width", "height"), args.size or (), strict=False):
        PIXELS.check(f"the {name} of --size", pixels)


def _check_bench(args: argparse.Namespace) -> None:
    BENCH_CHUNKS.check("--chunks", args.chunks)
    _check_size(args)
    if args.json is not None:
        check_new_file(args.json)
    _check_device(args.device)


def _check_plan(args: argparse.Namespace) -> None:
    if args.memory is not None:
        _MEMORY.check("--memory", args.memory)
    if args.ram is not None:
        _MEMORY.check("--ram", args.ram)
    LENGTH.check("--seconds", args.seconds)
    _check_size(args)
    if args.device is not None:
        _check_device(args.device)


def _check_verify(args: argparse.Namespace) -> None:
    if args.case_only and args.size is not None:
        raise ValueError("--size is of the checkpoint's own video, which --case-only does not make: leave one out")
    _check_size(args)
    if args.out is not None:
        check_new_file(args.out)
        if os.path.realpath(args.out) == os.path.realpath(args.file):
            raise ValueError(f"the checkpoint and --out are both {args.out}: choose another file for --out")
    _check_device(args.device)


def _check_generate(args: argparse.Namespace) -> None:
    if _given(args, "session") and (given := [option for option in _BEGINNINGS if _given(args, option)]):
        begins = "begins" if len(given) == 1 else "begin"
        raise ValueError(
            f"{_listed(given)} {begins} a video, and a session has begun already: leave one of the two out"
        )
    if args.seconds is not None:
        LENGTH.check("--seconds", args.seconds)
    if args.fps is not None:
        FPS.check("--fps", args.fps)
    if args.strength is not None:
        _SHARE.check("--strength", args.strength)
    if args.rewind is not None:
        _CHUNKS.check("--rewind", args.rewind)
    _check_size(args)
    if args.fast and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--fast is for one process; leave it out, or start one")
    out = output_path(args)
    if args.webm and out.suffix.lower() != ".webm":
        raise ValueError(f"--webm, and --out names {out}: leave --webm out, or let the name end in .webm")
    check_new_file(out, needs_folder=False)
    check_video_name(out)
    for path in (args.fork_to, args.save_session):
        if path is not None:
            check_new_file(path, needs_folder=False)
    _check_files_apart(args, out)
    _check_device(args.device)


def output_path(args: argparse.Namespace) -> Path:
    """Return the path of the video to write."""
    return args.out or Path("video.webm" if args.webm else "video.mp4")


def _check_files_apart(args: argparse.Namespace, out: Path) -> None:
    """Raise ValueError if a file would be written over another one that the arguments name."""
    written = {"out": out, "save_session": args.save_session, "fork_to": args.fork_to}
    others = {name: getattr(args, name) for name in _READ}
    names = {os.path.realpath(path): name for name, path in others.items() if path is not None}
    for name, path in written.items():
        if path is None:
            continue
        same = names.setdefault(os.path.realpath(path), name)  # a link leads to the file that it names
        if same != name and (same, name) != ("session", "save_session"):  # which saves it under its own name
            raise ValueError(f"{_flag(same)} and {_flag(name)} both name {path}: choose another file for {_flag(name)}")


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=torch.device(name)).cpu()
    except Exception as error:  # a backend that is not there fails in a way of its own
        available = [kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available()]
        raise ValueError(
            f"--device is {name!r}, which this torch cannot use here. Available: {', '.join(['cpu', *available])}"
        ) from error


def _given(args: argparse.Namespace, option: str) -> bool:
    value = getattr(args, option)
    return value is not None and value is not False


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _listed(options: Sequence[str]) -> str:
    flags = [_flag(option) for option in options]
    return flags[0] if len(flags) == 1 else f"{', '.join(flags[:-1])} and {flags[-1]}"

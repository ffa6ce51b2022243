"""The command line: ``python -m sf_core generate | info | bench``."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from sf_core import Session, tiny
from sf_core.bench import run_bench
from sf_core.describe import describe
from sf_core.video import VideoWriter

DEFAULT_SECONDS = 5.0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sf_core", description="Self Forcing: streaming autoregressive video."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    make = commands.add_parser(
        "generate",
        help="make a video, or go on with a session",
        description="Makes a video with the embedded tiny model. Its length is rounded up to whole chunks.",
    )
    make.add_argument("--prompt", help=f"what to show (default: {tiny.PROMPT!r}); with --session: switch to it")
    make.add_argument(
        "--recache", action="store_true", help="with --session and --prompt: rewrite the window under the new prompt"
    )
    make.add_argument(
        "--seconds", type=float, help=f"how much to make (default: {DEFAULT_SECONDS:g}, or what was rewound)"
    )
    make.add_argument(
        "--fps", type=float, default=tiny.FPS, help="frames per second of the file (default: %(default)s)"
    )
    make.add_argument(
        "--seed", type=int, help="noise seed (default: 0); with --session: noise of what is made from here on"
    )
    make.add_argument(
        "--out", type=Path, default=Path("video.mp4"), help="the MP4 file to write (default: %(default)s)"
    )
    make.add_argument("--session", type=Path, metavar="F", help="go on with this session; it is saved back to F")
    make.add_argument("--rewind", type=int, default=0, metavar="N", help="first undo the session's newest N chunks")
    make.add_argument(
        "--fork-to", type=Path, metavar="F", help="save the continued session to F, leaving the old one alone"
    )
    make.add_argument("--save-session", type=Path, metavar="F", help="save the session to F")
    _add_threads(make)
    make.set_defaults(run=generate)

    info = commands.add_parser("info", help="say what a file is: a session or a checkpoint")
    info.add_argument("file", type=Path)
    info.set_defaults(run=lambda args: print(describe(args.file)))

    bench = commands.add_parser("bench", help="measure the embedded tiny model on this machine")
    bench.add_argument(
        "--chunks", type=int, default=60, help="chunks to measure after the warm-up (default: %(default)s)"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    _add_threads(bench)
    bench.set_defaults(run=lambda args: run_bench(args.chunks, args.json))
    return parser


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads (default: 1; more do not help a model this small)"
    )


def generate(args: argparse.Namespace) -> None:
    """Make or continue a video, show progress, write the file, save the session. Ctrl-C keeps what was made."""
    for name in ("seconds", "fps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value:g}; expected more than 0")
    session = _begin(args)
    vae = tiny.load_vae()
    seconds = args.seconds
    if seconds is None:
        seconds = DEFAULT_SECONDS if not args.rewind else args.rewind * session.config.chunk_frames / args.fps
    chunks = max(1, -(-round(seconds * args.fps) // session.config.chunk_frames))
    before = session.chunks
    try:
        with VideoWriter(args.out, args.fps) as writer:
            for latents in session.iter_latents():
                writer.write(vae.decode(latents)[0])
            for longer in _sample(session, chunks, vae, writer):
                session = longer  # whatever ends the loop, the newest is kept
        print(f"video: {args.out} ({writer.frames} frames, {writer.frames / args.fps:.1f} s at {args.fps:g} fps)")
    finally:
        if session.chunks > before:
            _save(session, args)


def _save(session: Session, args: argparse.Namespace) -> None:
    target = args.fork_to or args.save_session or args.session
    if target is None:
        return
    if target == args.session and args.rewind:
        backup = target.with_name(target.name + ".bak")
        shutil.copyfile(target, backup)
        print(f"the session as it was before the rewind: {backup}")
    session.save(target)
    print(f"session: {target} ({session.chunks} chunks)")


def _begin(args: argparse.Namespace) -> Session:
    """The session to go on from, with all that the arguments set."""
    if args.session is None:
        if args.rewind or args.fork_to or args.recache:
            raise ValueError("--rewind, --fork-to and --recache go with --session: name the session to go on with")
        text = tiny.load_text().encode(args.prompt or tiny.PROMPT)
        return Session.start(tiny.load_transformer(), text, seed=args.seed or 0)
    session = Session.load(args.session, tiny.load_transformer()).rewind(args.rewind)
    if args.seed is not None:
        session = session.with_seed(args.seed)
    if args.prompt is not None:
        session = session.with_prompt(tiny.load_text().encode(args.prompt), recache=args.recache)
    return session


def _sample(session: Session, chunks: int, vae: tiny.FrameAutoencoder, writer: VideoWriter) -> Iterator[Session]:
    """Sample and write ``chunks`` chunks with a progress bar; gives each longer session."""
    started, first = time.perf_counter(), 0.0
    before = writer.frames
    with tqdm(
        total=chunks,
        unit="chunk",
        bar_format="{l_bar}{bar}| chunk {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    ) as bar:
        for _ in range(chunks):
            try:
                session, latents = session.next_chunk()
            except KeyboardInterrupt:
                bar.write(f"interrupted in chunk {session.chunks}; what was made before it is kept")
                break
            writer.write(vae.decode(latents)[0])
            elapsed = time.perf_counter() - started
            first = first or elapsed
            bar.set_postfix_str(f"{(writer.frames - before) / elapsed:.1f} fps, first frame {first:.2f} s")
            bar.update()
            yield session


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(getattr(args, "threads", 1))
    try:
        args.run(args)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

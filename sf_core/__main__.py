"""The command line: ``python -m sf_core generate | convert | train | info | bench | verify``."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .cli.options import check_options
from .cli.parser import build_parser
from .out_of_memory import is_out_of_memory

INTERRUPTED = 130  # the exit status of a command that Ctrl-C or SIGTERM ended
_TRACEBACK = "SF_DEBUG"  # this environment variable set to 1 shows where an error was raised


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit status: 1 if the command failed with an error for the user, or a check failed; 130 after Ctrl-C or
        SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        check_options(args)
        if getattr(args, "threads", None) is not None:
            torch.set_num_threads(args.threads)
        with _sigterm_as_ctrl_c():
            status: int | None = args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(_TRACEBACK) == "1":
            raise
        print(f"error: {_in_words(error)}", file=sys.stderr)
        return 1
    return status or 0


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM (of ``kill``, a container or a job queue that ends) do in the block what Ctrl-C does."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_words(error: Exception) -> str:
    if isinstance(error, (ValueError, OSError, FloatingPointError)):  # these are written for the user
        return str(error)
    if is_out_of_memory(error):
        return (
            "the memory is not enough. Lower --size, take a model with a smaller window, or another --device "
            f"({_first_line(error)})"
        )
    return (
        f"a fault of this program, {type(error).__name__}: {_first_line(error)}. Please report it, with what "
        f"{_TRACEBACK}=1 in the environment prints"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``python -m sf_core generate | convert | train | info | bench``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from .cli.parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit status: 1 if the command failed with an error for the user.
    """
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

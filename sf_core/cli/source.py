"""The options of ``generate`` for video to video, and the source that they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..files.clips import FITS
from ..session.session import Session
from ..session.source import SCHEDULES
from ..sources.clip import AT_END, ClipFrames
from ..sources.file_clip import FileClip
from ..sources.video_source import SCHEDULE, STRENGTH, VideoSource
from ..vae.video_vae import VideoVAE

TINY_STRENGTH, TINY_SCHEDULE = 0.8, "repeated"  # the embedded model knows the noise of its own steps alone


def add_source_options(parser: Any) -> None:
    """Add the group to the parser of ``generate``."""
    source = parser.add_argument_group("video to video")
    source.add_argument(
        "--source", type=Path, metavar="FILE", help="a clip: each chunk is made from what it shows at the same time"
    )
    source.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="how much is made anew, from 0 (the clip as it is) to 1 (default: "
        f"{STRENGTH:g}; with the tiny model {TINY_STRENGTH:g})",
    )
    source.add_argument(
        "--source-end",
        choices=AT_END,
        help="behind the clip's end: hold its last frame, loop it, or stop the video with it (default: stop)",
    )
    source.add_argument(
        "--source-fit", choices=FITS, help="fill the frame, or show all of the clip with black edges (default: crop)"
    )
    source.add_argument(
        "--source-schedule",
        choices=SCHEDULES,
        help="rescaled: all steps, from less noise; truncated: the last steps; repeated: the last step again and again "
        f"(default: {SCHEDULE}; with the tiny model {TINY_SCHEDULE})",
    )


def source_of(args: argparse.Namespace, session: Session, vae: VideoVAE) -> VideoSource | None:
    """Return the source of a video's chunks, ready for the next one; None without ``--source``.

    Raises:
        ValueError: The session or the VAE has no room for one, or the clip cannot be read or is over.
        OSError: The clip cannot be read.
    """
    if args.source is None:
        return None
    VideoSource.check_takes_source(session)
    rows, columns = (length * vae.spatial_factor for length in session.latent_size)
    clip = FileClip(args.source, (rows, columns), args.fps, args.source_fit or FITS[0])
    usual = (TINY_STRENGTH, TINY_SCHEDULE) if args.model is None else (STRENGTH, SCHEDULE)
    strength = usual[0] if args.strength is None else args.strength
    source = VideoSource(ClipFrames(clip, args.source_end or "stop"), vae, strength, args.source_schedule or usual[1])
    source.begin(session)
    return source

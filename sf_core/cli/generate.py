"""The command ``generate``: make a video, or go on with one."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from .. import tiny
from ..files.checkpoint import load_model
from ..files.video import VideoWriter
from ..model.wan import CausalWan
from ..session.frame_counts import fitting_video_frames, video_frames
from ..session.session import Session, for_one_image
from ..session.session_file import events_in, record_of
from ..session.streaming import Decoder, chunks_for, stream
from ..text.encoders import load_text_encoder
from ..vae.taehv import load_taehv
from ..vae.wan_vae import load_vae

DEFAULT_SECONDS = 5.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Parts:
    """Model, text encoder and decoder: the tiny ones, or those that the arguments name."""

    def __init__(self, args: argparse.Namespace) -> None:
        device, dtype = args.device, DTYPES[args.dtype]
        self.vae: Any
        self.encode: Callable[[str], Tensor]
        if args.model is None:
            if args.vae or args.text_encoder:
                raise ValueError(
                    "--vae and --text-encoder go with --model; without one the embedded tiny model is used"
                )
            self.model: CausalWan = tiny.load_transformer(device)
            self.vae = tiny.load_vae(device)
            self.encode = tiny.load_text().encode
            return
        if args.vae is None or args.text_encoder is None:
            raise ValueError("--model needs --vae (a Wan VAE or a TAEHV file) and --text-encoder (umT5, or embeddings)")
        self.model = load_model(args.model, device, dtype, lora=args.lora, lora_strength=args.lora_strength)
        # CPUs are slow in half precision
        self.vae = _load_decoder(args.vae, device, torch.float32 if device == "cpu" else dtype)
        self.encode = load_text_encoder(args.text_encoder, device, dtype)


def _load_decoder(path: Path, device: str, dtype: torch.dtype) -> Any:
    try:
        return load_vae(path, device, dtype)
    except ValueError as no_wan_vae:
        try:
            return load_taehv(path, device, dtype)
        except ValueError:
            raise no_wan_vae from None


def generate(args: argparse.Namespace) -> None:
    """Make or continue a video, show progress, write the file, save the session. Ctrl-C keeps what was made."""
    _check(args)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        parts = Parts(args)
        if args.fast:
            parts.model.compile()
            parts.model.record()
        _generate(args, parts)
        return
    from ..model.sequence_parallel import HeadParallelWan, joined

    with joined(args.device) as args.device:
        parts = Parts(args)
        parts.model = HeadParallelWan.of(parts.model)
        _generate(args, parts, first=os.environ["RANK"] == "0")


def _generate(args: argparse.Namespace, parts: Parts, first: bool = True) -> None:
    """first: of the processes that sample together: the one that decodes, writes and tells."""
    out = args.out or Path("video.webm" if args.webm else "video.mp4")
    session = _begin(args, parts)
    decoder: Decoder = parts.vae.stream_decoder()
    seconds = args.seconds
    if seconds is None:
        latents = args.rewind * session.config.chunk_frames  # the first of a video is one frame
        seconds = video_frames(latents, decoder.temporal_factor) / args.fps if latents else DEFAULT_SECONDS
    if not first:
        for _ in range(chunks_for(session, seconds, args.fps, decoder.temporal_factor)):
            session, _ = session.next_chunk()
        return
    before = session.chunks
    try:
        with VideoWriter(out, args.fps) as writer:
            writer.record = _record(args, session)
            at = 0
            for latents in session.iter_latents():
                writer.write(decoder(latents, at=at)[0])
                at += latents.shape[2]
            for longer in _sample(session, decoder, writer, seconds, args.fps):
                session = longer  # whatever ends the loop, the newest is kept
                writer.record = _record(args, session)
            writer.record |= _past(session)
        print(f"video: {out} ({writer.frames} frames, {writer.frames / args.fps:.1f} s at {args.fps:g} fps)")
    finally:
        if session.chunks > before:
            _save(session, args)


def _check(args: argparse.Namespace) -> None:
    for name in ("seconds", "fps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value:g}; expected more than 0")
    if args.session is None and (args.rewind or args.fork_to or args.recache):
        raise ValueError("--rewind, --fork-to and --recache go with --session: name the session to go on with")
    if args.session is not None and (args.image or args.video):
        raise ValueError("--image and --video begin a video; a session has begun already")
    if args.fast and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--fast is for one process; leave it out, or start one")
    if args.image and args.video:
        raise ValueError("give --image or --video, not both")


def _begin(args: argparse.Namespace, parts: Parts) -> Session:
    """The session to go on from, with all that the arguments set."""
    if args.session is None:
        return _start(args, parts)
    session = Session.load(args.session, parts.model).rewind(args.rewind)
    if args.seed is not None:
        session = session.with_seed(args.seed)
    if args.prompt is not None:
        session = session.with_prompt(parts.encode(args.prompt), recache=args.recache)
    return session


def _start(args: argparse.Namespace, parts: Parts) -> Session:
    text = parts.encode(args.prompt or tiny.PROMPT)
    factor = parts.vae.spatial_factor
    size = None if args.size is None else (args.size[1] // factor, args.size[0] // factor)
    session = Session.start(parts.model, text, size or parts.model.latent_size or (60, 104), seed=args.seed or 0)
    if not args.image and not args.video:
        return session
    pixels = (session.latent_size[1] * factor, session.latent_size[0] * factor)
    if args.image:
        return for_one_image(session).with_context(parts.vae.encode(_read_image(args.image, pixels)))
    frames = _read_video(args.video, pixels, session, parts.vae.temporal_factor)
    return session.with_context(parts.vae.encode(frames))


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


@contextmanager
def _progress(chunks: int) -> Iterator[tqdm[Any]]:
    layout = "{l_bar}{bar}| chunk {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=chunks, unit="chunk", bar_format=layout) as bar:
        yield bar


def _sample(session: Session, decoder: Decoder, writer: VideoWriter, seconds: float, fps: float) -> Iterator[Session]:
    """Sample, decode and write with a progress bar; gives each longer session."""
    started, first, before = time.perf_counter(), 0.0, writer.frames
    with _progress(chunks_for(session, seconds, fps, decoder.temporal_factor)) as bar:
        try:
            for event in stream(session, decoder, seconds, fps):
                writer.write(event.frames[0])
                elapsed = time.perf_counter() - started
                first = first or elapsed
                bar.set_postfix_str(f"{(writer.frames - before) / elapsed:.1f} fps, first frame {first:.2f} s")
                bar.update()
                yield event.session
        except KeyboardInterrupt:
            bar.write("interrupted; what was made before is kept")


def _record(args: argparse.Namespace, session: Session) -> dict[str, Any]:
    """What a video's metadata says of how it was made; of a session's past, what the session itself says."""
    head = session.head
    new = args.session is None
    prompt, seed = args.prompt or (tiny.PROMPT if new else None), args.seed if args.seed is not None or not new else 0
    return {
        **({} if prompt is None else {"prompt": prompt}),
        **({} if seed is None else {"seed": seed}),
        "chunks": session.chunks,
        "model": session.model.fingerprint,
        "session": head.lineage.hex() if head else "",
    }


def _past(session: Session) -> dict[str, Any]:
    """Seeds and events of the whole video; walks through all of it."""
    record, _ = record_of(session)
    return {"seeds": record["seeds"], "timeline": events_in(record)}


def _read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Frames [1, 1, H, W, 3] in 0..1 of the picture, filling ``size`` (width, height); what sticks out is cut off."""
    try:
        with Image.open(path) as picture:
            filled = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.LANCZOS)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read") from error
    return torch.from_numpy(np.asarray(filled).copy()).float()[None, None] / 255


def _read_video(path: Path, size: tuple[int, int], session: Session, factor: int) -> Tensor:
    """The longest end of a clip that cuts into whole blocks, as frames [1, T, H, W, 3] in 0..1."""
    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_image() for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video that can be read: {error}") from error
    try:
        count = fitting_video_frames(session.config, len(pictures), factor)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    fitted = [np.asarray(ImageOps.fit(picture, size, Image.Resampling.LANCZOS)) for picture in pictures[-count:]]
    return torch.from_numpy(np.stack(fitted)).float()[None] / 255

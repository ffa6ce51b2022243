"""The command ``generate``: make a video, or continue one."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
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
from ..files.atomic_write import atomic_write, part_of
from ..files.checkpoint import load_model
from ..files.disk import check_room, make_folder
from ..files.file_names import check_new_file
from ..files.video import VideoWriter, expected_bytes
from ..model.wan import CausalWan
from ..session.frame_counts import fitting_video_frames, video_frames
from ..session.session import Session, for_one_image
from ..session.session_file import events_in, record_of, session_bytes
from ..session.streaming import Decoder, chunks_for, stream
from ..text.encoders import load_text_encoder
from ..vae.taehv import load_taehv
from ..vae.wan_vae import load_vae

DEFAULT_SECONDS = 5.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadedModels:
    """Transformer, VAE and text encoder: the tiny ones, or those that the arguments name.

    Raises:
        ValueError: Only some of the three are named.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        device, dtype = args.device, DTYPES[args.dtype]
        self.vae: Any
        self.encode: Callable[[str], Tensor]
        if args.model is None:
            if args.vae or args.text_encoder:
                raise ValueError(
                    "--vae and --text-encoder go with --model; without one the embedded tiny model is used"
                )
            self.transformer: CausalWan = tiny.load_transformer(device)
            self.vae = tiny.load_vae(device)
            self.encode = tiny.load_text().encode
            return
        if args.vae is None or args.text_encoder is None:
            raise ValueError("--model needs --vae (a Wan VAE or a TAEHV file) and --text-encoder (umT5, or embeddings)")
        self.transformer = load_model(args.model, device, dtype, lora=args.lora, lora_strength=args.lora_strength)
        # CPUs are slow in half precision
        self.vae = _load_decoder(args.vae, device, torch.float32 if device == "cpu" else dtype)
        self.encode = load_text_encoder(args.text_encoder, device, dtype)


def _load_decoder(path: Path, device: str, dtype: torch.dtype) -> Any:
    try:
        return load_vae(path, device, dtype)
    except ValueError as not_a_wan_vae:
        try:
            return load_taehv(path, device, dtype)
        except ValueError:
            raise not_a_wan_vae from None


def generate(args: argparse.Namespace) -> None:
    """Make or continue a video with a progress bar, and save the session; Ctrl-C keeps the chunks made so far."""
    _check(args)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        models = LoadedModels(args)
        if args.fast:
            models.transformer.compile()
            models.transformer.record()
        _generate(args, models)
        return
    from ..model.sequence_parallel import HeadParallelWan, joined

    with joined(args.device) as args.device:
        models = LoadedModels(args)
        models.transformer = HeadParallelWan.of(models.transformer)
        _generate(args, models, first=os.environ["RANK"] == "0")


def _generate(args: argparse.Namespace, models: LoadedModels, first: bool = True) -> None:
    """Sample, decode and write; of processes that sample together, only the ``first`` decodes and writes."""
    out = _output(args)
    session = _begin(args, models)
    decoder: Decoder = models.vae.stream_decoder()
    seconds = args.seconds
    if seconds is None:
        latents = args.rewind * session.config.chunk_frames  # the first of a video is one frame
        seconds = video_frames(latents, decoder.temporal_factor) / args.fps if latents else DEFAULT_SECONDS
    if first:
        _check_room(args, session, models, seconds)
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
                session = longer  # the newest session is saved, whatever ends the loop
                writer.record = _record(args, session)
            writer.record |= _history(session)
        print(f"video: {out} ({writer.frames} frames, {writer.frames / args.fps:.1f} s at {args.fps:g} fps)")
    finally:
        if session.chunks > before:
            _save(session, args)


def _output(args: argparse.Namespace) -> Path:
    return args.out or Path("video.webm" if args.webm else "video.mp4")


def _check(args: argparse.Namespace) -> None:
    check_new_file(_output(args), needs_folder=False)
    for path in (args.fork_to, args.save_session):
        if path is not None:
            check_new_file(path, needs_folder=False)
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
    for path in (_output(args), _saved_to(args)):
        if path is not None:
            make_folder(path.parent)


def _check_room(args: argparse.Namespace, session: Session, models: LoadedModels, seconds: float) -> None:
    """Raise OSError if the disks have too little room for the video and the session."""
    factor, config = models.vae.temporal_factor, session.config
    rows, columns = session.latent_size
    frames = session.frames + chunks_for(session, seconds, args.fps, factor) * config.chunk_frames
    size = models.vae.spatial_factor
    sizes = {_output(args): expected_bytes(columns * size, rows * size, video_frames(frames, factor))}
    target = _saved_to(args)
    if target is not None:
        sizes[target] = session_bytes(session, frames)
    check_room(sizes)


def _begin(args: argparse.Namespace, models: LoadedModels) -> Session:
    """Return the session to continue, with everything that the arguments set."""
    if args.session is None:
        return _start(args, models)
    session = Session.load(args.session, models.transformer).rewind(args.rewind)
    if args.seed is not None:
        session = session.with_seed(args.seed)
    if args.prompt is not None:
        session = session.with_prompt(models.encode(args.prompt), recache=args.recache)
    return session


def _start(args: argparse.Namespace, models: LoadedModels) -> Session:
    text = models.encode(args.prompt or tiny.PROMPT)
    factor = models.vae.spatial_factor
    size = None if args.size is None else (args.size[1] // factor, args.size[0] // factor)
    session = Session.start(
        models.transformer, text, size or models.transformer.latent_size or (60, 104), seed=args.seed or 0
    )
    if not args.image and not args.video:
        return session
    pixels = (session.latent_size[1] * factor, session.latent_size[0] * factor)
    if args.image:
        return for_one_image(session).with_context(models.vae.encode(_read_image(args.image, pixels)))
    frames = _read_video(args.video, pixels, session, models.vae.temporal_factor)
    return session.with_context(models.vae.encode(frames))


def _saved_to(args: argparse.Namespace) -> Path | None:
    target: Path | None = args.fork_to or args.save_session or args.session
    return target


def _save(session: Session, args: argparse.Namespace) -> None:
    """Save the session where the arguments say. If that fails, keep it elsewhere, and say where in the error."""
    target = _saved_to(args)
    if target is None:
        return
    try:
        if target == args.session and args.rewind:
            backup = target.with_name(target.name + ".bak")
            with atomic_write(backup) as part:
                shutil.copyfile(target, part)
            print(f"the session as it was before the rewind: {backup}")
        session.save(target)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}. {_keep_elsewhere(session, target, args)}") from error
    print(f"session: {target} ({session.chunks} chunks)")


def _keep_elsewhere(session: Session, target: Path, args: argparse.Namespace) -> str:
    """Save the session beside the video or in the system's folder for temporary files, and say where it is."""
    for folder in (_output(args).parent, Path(tempfile.gettempdir())):
        kept = part_of(folder / target.name).with_suffix(".session")
        try:
            session.save(kept)
        except OSError:
            continue
        return f"It is kept in {kept.absolute()}"
    return f"It cannot be kept in {_output(args).parent} or {tempfile.gettempdir()} either"


@contextmanager
def _progress(chunks: int) -> Iterator[tqdm[Any]]:
    layout = "{l_bar}{bar}| chunk {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=chunks, unit="chunk", bar_format=layout) as bar:
        yield bar


def _sample(session: Session, decoder: Decoder, writer: VideoWriter, seconds: float, fps: float) -> Iterator[Session]:
    """Sample, decode and write with a progress bar; yields the session after each chunk."""
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
            bar.write("interrupted; the chunks made before are kept")


def _record(args: argparse.Namespace, session: Session) -> dict[str, Any]:
    """Build the metadata of the video; prompt and seed of a continued session only if the arguments set them."""
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


def _history(session: Session) -> dict[str, Any]:
    """Return seeds and events of the whole session; takes time in proportion to its length."""
    record, _ = record_of(session)
    return {"seeds": record["seeds"], "timeline": events_in(record)}


def _read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Read a picture as frames [1, 1, H, W, 3] in 0..1, scaled and cropped to ``size`` (width, height)."""
    try:
        with Image.open(path) as picture:
            filled = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.LANCZOS)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read") from error
    return torch.from_numpy(np.asarray(filled).copy()).float()[None, None] / 255


def _read_video(path: Path, size: tuple[int, int], session: Session, factor: int) -> Tensor:
    """Read the longest end of a clip that divides into whole blocks, as frames [1, T, H, W, 3] in 0..1."""
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

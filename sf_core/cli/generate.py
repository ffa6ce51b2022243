"""The command ``generate``: make a video, or continue one."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from .. import tiny
from ..config import RolloutConfig
from ..files.atomic_write import atomic_write, part_of
from ..files.checkpoint import load_model, open_source
from ..files.clips import read_clip
from ..files.disk import check_room, make_folder
from ..files.pictures import read_picture
from ..files.published_models import WAN22_CHANNELS, frame_rate
from ..files.recognition import recognise
from ..files.video import VideoWriter, expected_bytes
from ..model.wan import CausalWan
from ..session.beginning import frames_to_begin_with
from ..session.drift_guard import DriftGuard, GuardedHost
from ..session.frame_counts import video_frames
from ..session.published_noise import AS_PUBLISHED, PublishedNoise, check_length
from ..session.reencoding import with_vae
from ..session.saved_record import events_in
from ..session.session import Session
from ..session.session_file import file_bytes, record_of
from ..session.stream_host import Decoder, Source, StreamHost
from ..session.streaming import chunks_for, frames_after, stream
from ..text.encoders import load_text_encoder
from ..vae.loading import load_vae
from ..vae.taehv import load_taehv
from .options import output_path
from .source import source_of

DEFAULT_SECONDS = 5.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadedModels:
    """Transformer, VAE and text encoder: the tiny ones, or those that the arguments name.

    Args:
        args: The arguments.
        without_text: Every prompt gets the same random embeddings, which is enough to measure speed.

    Raises:
        ValueError: A model is named without the others.
    """

    def __init__(self, args: argparse.Namespace, without_text: bool = False) -> None:
        device, dtype = args.device, DTYPES[args.dtype or "float32"]
        self.vae: Any
        self.encode: Callable[[str], Tensor]
        if args.model is None:
            self.transformer: CausalWan = tiny.load_transformer(device)
            self.vae = tiny.load_vae(device)
            self.encode = tiny.load_text().encode
            return
        if args.vae is None or (args.text_encoder is None and not without_text):
            text = "" if without_text else " and --text-encoder (umT5, or embeddings)"
            raise ValueError(f"--model needs --vae (a Wan VAE or a TAEHV file){text}")
        strength = 1.0 if args.lora_strength is None else args.lora_strength
        self.transformer = load_model(args.model, device, dtype, lora=args.lora, lora_strength=strength)
        if self.transformer.rollout_config is None and getattr(args, "session", None) is None:
            self.transformer.rollout_config = recognised_settings(args.model)
        # CPUs are slow in half precision
        self.vae = _load_decoder(args.vae, device, torch.float32 if device == "cpu" else dtype)
        if without_text:
            rows, width = min(64, self.transformer.arch.text_len), self.transformer.arch.text_dim
            self.encode = lambda prompt: torch.randn(1, rows, width, generator=torch.Generator().manual_seed(0))
        else:
            self.encode = load_text_encoder(args.text_encoder, device, dtype)


def recognised_settings(path: Path) -> RolloutConfig | None:
    """Return the settings of the published model that a file looks like, and say on stderr which one it is.

    Raises:
        ValueError: It is a Wan 2.2 5B that is not made for streaming.
    """
    tensors, metadata = open_source(path)
    model = recognise(path, tensors, metadata, None)
    if model.config is None and model.channels == WAN22_CHANNELS:
        raise ValueError(
            f"{path}: {model.text()}. If it is another model, write its settings into the file: convert --member NAME"
        )
    if os.environ.get("RANK", "0") == "0":
        print(f"model: {model.text()}", file=sys.stderr)
    return model.config


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
    for path in (output_path(args), _saved_to(args)):
        if path is not None:
            make_folder(path.parent)
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
    out = output_path(args)
    args.fps = frame_rate(models.transformer.arch.in_dim) if args.fps is None else args.fps
    session = _begin(args, models)
    decoder: Decoder = models.vae.stream_decoder()
    seconds = args.seconds
    if seconds is None:
        latents = (args.rewind or 0) * session.config.chunk_frames  # the first of a video is one frame
        seconds = video_frames(latents, decoder.temporal_factor) / args.fps if latents else DEFAULT_SECONDS
    chunks = chunks_for(session, seconds, args.fps, decoder.temporal_factor)
    if args.noise == AS_PUBLISHED:
        clip = frames_after(session, chunks)
        session = session.with_noise(PublishedNoise.of(session, args.seed or 0, clip))
    check_length(session, chunks)
    if first:
        _check_room(args, session, models, seconds)
    source = source_of(args, session, models.vae)
    guard = DriftGuard(session.config, args.on_drift, args.drift_threshold)
    if not first:
        for _ in range(chunks):
            if source is not None and source.is_over(session):
                break
            session = session if source is None else source.give(session)
            session, _ = guard.boundary(session).next_chunk()
        return
    host = GuardedHost(guard)
    before = session.chunks
    try:
        with VideoWriter(out, args.fps) as writer:
            writer.record = _record(args, session)
            at = 0
            for latents in session.iter_latents():
                writer.write(decoder(latents, at=at)[0])
                at += latents.shape[2]
            for longer in _sample(session, decoder, writer, seconds, args.fps, host, source):
                session = longer  # the newest session is saved, whatever ends the loop
                writer.record = _record(args, session)
            writer.record |= {**_history(session), "drift": host.curve.points}
        print(f"video: {out} ({writer.frames} frames, {writer.frames / args.fps:.1f} s at {args.fps:g} fps)")
        if host.curve.points:
            chunk, drift = max(host.curve.points, key=lambda point: point[1])
            print(f"drift: at most {drift:.2f}, in chunk {chunk + 1} (limit {args.drift_threshold:g})")
    finally:
        if session.chunks > before:
            _save(session, args)


def _check_room(args: argparse.Namespace, session: Session, models: LoadedModels, seconds: float) -> None:
    """Raise OSError if the disks have too little room for the video and the session."""
    factor, config = models.vae.temporal_factor, session.config
    rows, columns = session.latent_size
    frames = session.frames + chunks_for(session, seconds, args.fps, factor) * config.chunk_frames
    size = models.vae.spatial_factor
    sizes = {output_path(args): expected_bytes(columns * size, rows * size, video_frames(frames, factor))}
    target = _saved_to(args)
    if target is not None:
        sizes[target] = file_bytes(session, frames)
    check_room(sizes)


def _begin(args: argparse.Namespace, models: LoadedModels) -> Session:
    """Return the session to continue, with everything that the arguments set."""
    if args.session is None:
        return with_vae(start_session(args, models), models.vae)
    session = with_vae(Session.load(args.session, models.transformer), models.vae).rewind(args.rewind or 0)
    if args.seed is not None:
        session = session.with_seed(args.seed)
    if args.prompt is not None:
        session = session.with_prompt(models.encode(args.prompt), recache=args.recache)
    return session


def start_session(args: argparse.Namespace, models: LoadedModels) -> Session:
    """Return the new session that the arguments describe, with its picture or clip, if they name one."""
    text = models.encode(tiny.PROMPT if args.prompt is None else args.prompt)
    transformer, factor = models.transformer, models.vae.spatial_factor
    size = None if args.size is None else transformer.arch.latent_size(args.size[0], args.size[1], factor)
    usual = transformer.arch.latent_size(832, 480, factor)
    config = transformer.rollout_config or RolloutConfig()
    if args.kv_dtype is not None:
        config = replace(config, kv_dtype=args.kv_dtype)
    if args.kv_offload:
        config = replace(config, kv_offload=True)
    session = Session.start(transformer, text, size or transformer.latent_size or usual, config, seed=args.seed or 0)
    if args.image is None and args.video is None:
        return session
    height, width = (length * factor for length in session.latent_size)
    if args.image is not None:
        filled = ImageOps.fit(read_picture(args.image), (width, height), Image.Resampling.LANCZOS)
        frames = torch.from_numpy(np.asarray(filled).copy())[None]
    else:
        frames = read_clip(args.video, (height, width), args.fps)
    try:
        session, frames = frames_to_begin_with(session, frames[None], models.vae.temporal_factor)
    except ValueError as error:
        raise ValueError(f"{args.video}, at {args.fps:g} frames per second: {error}") from None
    return session.with_context(models.vae.encode_pixels(frames))


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
    for folder in (output_path(args).parent, Path(tempfile.gettempdir())):
        kept = part_of(folder / target.name).with_suffix(".session")
        try:
            session.save(kept)
        except OSError:
            continue
        return f"It is kept in {kept.absolute()}"
    return f"It cannot be kept in {output_path(args).parent} or {tempfile.gettempdir()} either"


@contextmanager
def _progress(chunks: int) -> Iterator[tqdm[Any]]:
    layout = "{l_bar}{bar}| chunk {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=chunks, unit="chunk", bar_format=layout) as bar:
        yield bar


def _sample(
    session: Session,
    decoder: Decoder,
    writer: VideoWriter,
    seconds: float,
    fps: float,
    host: StreamHost,
    source: Source | None,
) -> Iterator[Session]:
    """Sample, decode and write with a progress bar; yields the session after each chunk."""
    started, first, before = time.perf_counter(), 0.0, writer.frames
    newest, end = session, writer.frames  # the session that ends with frame ``end``
    with _progress(chunks_for(session, seconds, fps, decoder.temporal_factor)) as bar:
        try:
            for event in stream(session, decoder, seconds, fps, host=host, source=source):
                newest, end = event.session, writer.frames + event.frames.shape[1]
                writer.write(event.frames[0])
                elapsed = time.perf_counter() - started
                first = first or elapsed
                bar.set_postfix_str(f"{(writer.frames - before) / elapsed:.1f} fps, first frame {first:.2f} s")
                bar.update()
                yield event.session
        except KeyboardInterrupt:
            bar.write("interrupted; the chunks made before are kept")
            if writer.frames == end:  # it came when the chunk was written, and before it was handed out
                yield newest


def _record(args: argparse.Namespace, session: Session) -> dict[str, Any]:
    """Build the metadata of the video; prompt and seed of a continued session only if the arguments set them."""
    head = session.head
    new = args.session is None
    prompt = tiny.PROMPT if args.prompt is None and new else args.prompt
    seed = 0 if args.seed is None and new else args.seed
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

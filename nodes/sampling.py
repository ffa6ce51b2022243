"""The node that samples chunks without decoding them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..sf_core.cancellation import Cancellation
from ..sf_core.files.published_models import frame_rate
from ..sf_core.memory_ledger import DecoderCost
from ..sf_core.session.drift import THRESHOLD
from ..sf_core.session.drift_guard import DriftAction, DriftGuard
from ..sf_core.session.published_noise import check_length
from ..sf_core.session.reencoding import with_vae
from ..sf_core.session.session import Session
from ..sf_core.session.streaming import history_for
from ..sf_core.sources.video_source import VideoSource
from ..sf_core.vae.video_vae import VideoVAE
from .adapters import host
from .adapters.model import comfy_model
from .adapters.source import GraphSource, cost_with
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import GraphSession, SessionWire
from .inputs import checked, drift_threshold_input, fps_input, on_drift_input, schema, source_input
from .live.run import Run, autosaved, times_steered


class SFSampleChunks(io.ComfyNode):
    """Samples the next chunks of a session."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSampleChunks",
            display_name="Sample Chunks",
            description="Samples the next chunks of a session. Stream Video samples and decodes at the same time.",
            search_aliases=["autoregressive sampler", "self forcing sampler", "next chunk"],
            inputs=[
                SessionWire.Input(
                    "session", tooltip="The session to extend; other nodes that use it are not affected."
                ),
                io.Int.Input(
                    "chunks",
                    default=7,
                    min=1,
                    max=100_000,
                    tooltip="Number of chunks to make; 7 chunks of 3 latent frames are 81 frames, or 5 s of Wan video.",
                ),
                io.Vae.Input(
                    "preview_vae",
                    optional=True,
                    tooltip="Shows each chunk as soon as it is made; a TAEHV costs little. Without it, no preview.",
                ),
                fps_input(optional=True),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="For Krea alone, which encodes a picture of its past anew before each chunk.",
                ),
                on_drift_input(),
                drift_threshold_input(),
                source_input(),
            ],
            outputs=[
                SessionWire.Output(display_name="session", tooltip="The longer session."),
                io.Latent.Output(display_name="new latents", tooltip="The latents of the new chunks alone."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return times_steered()

    @classmethod
    @checked
    def execute(
        cls,
        session: GraphSession,
        chunks: int,
        preview_vae: Any = None,
        fps: float | None = None,
        vae: Any = None,
        on_drift: DriftAction = "measure",
        drift_threshold: float = THRESHOLD,
        source: GraphSource | None = None,
    ) -> Any:
        core, wan = session.core, comfy_model(session.core)
        check_length(core, chunks)
        guard = DriftGuard(core.config, on_drift, drift_threshold)
        cancellation = host.HostCancellation()
        encoder = _own_vae(core, vae, cancellation)
        decoder = _own_vae(core, preview_vae, cancellation)  # before the run begins: it may not fit
        core = core if encoder is None else with_vae(core, encoder)
        rate = frame_rate(wan.arch.in_dim) if fps is None else fps
        feed = None if source is None else source.open(core, rate, cancellation)
        run = Run(cls, session, chunks, rate, cancellation, guard)
        if encoder is not None and core.reencode is not None:
            run.decoder_cost = DecoderCost.of(encoder)
        new_latents: list[torch.Tensor] = []
        with run.view.until_end(), autosaved(run):
            preview = _Preview(run, decoder)
            if feed is not None:
                run.decoder_cost = cost_with(feed.vae, decoder or encoder)
                run.make_ready(core)
                feed.begin(core)
            while len(new_latents) < chunks and not (new_latents and _is_over(core, run, feed)):
                core = run.boundary(core)
                core, latents = run.make(core if feed is None else feed.give(core))
                new_latents.append(host.intermediate(latents))
                run.finished_chunk(latents.shape[2] * wan.temporal_factor)
                preview.show(core, latents)
        samples = wan.patcher.model.process_latent_out(torch.cat(new_latents, dim=2))
        core = replace(core, reencode=None)  # the VAE is this run's
        return io.NodeOutput(session.grown(core, tuple(run.timings)), {"samples": samples}, ui=run.view.on_node())


def _is_over(session: Session, run: Run, feed: VideoSource | None) -> bool:
    """Whether the run ends before its last chunk."""
    return run.cancellation.finishing or (feed is not None and feed.is_over(session))


def _own_vae(session: Session, vae: Any, cancellation: Cancellation) -> VideoVAE | None:
    """Return the network of ``vae``. Raises ValueError if it does not decode what the model makes."""
    if vae is None:
        return None
    ours = open_vae(vae, cancellation)
    check_fits(ours, comfy_model(session))
    return ours


class _Preview:
    """A preview of chunks as they are sampled, by a decoder that starts at the session's end."""

    def __init__(self, run: Run, vae: VideoVAE | None) -> None:
        self._run = run
        if vae is not None:
            run.decoder, run.decoder_cost = vae.stream_decoder(), DecoderCost.of(vae)

    def show(self, session: Session, latents: torch.Tensor) -> None:
        chunk, finished, decoder = session.chunks - 1, self._run.finished, self._run.decoder
        if decoder is None:
            self._run.view.tell(chunk=finished, cache_bytes=self._run.cache_bytes)
            return
        at = session.frames - latents.shape[2]
        frames = decoder(latents, at=at, history=history_for(decoder, session, at))
        self._run.view.show(frames[0], chunk, finished, self._run.cache_bytes)


NODES = [SFSampleChunks]

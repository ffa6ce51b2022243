"""The node that samples chunks and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.v0_0_2 import io

from . import host
from .hosted_vae import hosted
from .running import Run, kept_if_broken, times_stopped
from .values import GraphSession, SessionWire


class SFSampleChunks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="SFSampleChunks",
            display_name="Sample Chunks",
            description="Makes the next chunks of a session. Stream Video does this and decodes meanwhile.",
            search_aliases=["autoregressive sampler", "self forcing sampler", "next chunk"],
            inputs=[
                SessionWire.Input(
                    "session", tooltip="The session to go on with; other nodes that use it keep it as it is."
                ),
                io.Int.Input(
                    "chunks",
                    default=7,
                    min=1,
                    max=100_000,
                    tooltip="How many chunks to make; 7 of 3 latent frames each are 81 frames or 5 s of Wan video.",
                ),
            ],
            outputs=[
                SessionWire.Output(display_name="session", tooltip="The longer session."),
                io.Latent.Output(display_name="new latents", tooltip="The latents of the new chunks alone."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return times_stopped()

    @classmethod
    def execute(cls, session: GraphSession, chunks: int) -> Any:
        core, wan = session.core, hosted(session.core)
        run = Run(cls, session, chunks)
        made: list[torch.Tensor] = []
        with kept_if_broken(run):
            while len(made) < chunks and not (made and run.stopped):
                core, latents = run.make(run.boundary(core))
                made.append(host.intermediate(latents))
                run.finished_chunk(latents.shape[2] * wan.temporal_factor)
        samples = wan.patcher.model.process_latent_out(torch.cat(made, dim=2))
        return io.NodeOutput(session.grown(core, tuple(run.timings)), {"samples": samples})


NODES = [SFSampleChunks]

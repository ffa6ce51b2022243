"""The node that decodes a session to images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..sf_core.memory_ledger import DecoderCost
from .adapters import host, memory
from .adapters.memory_report import freed_if_out_of_memory
from .adapters.model import comfy_model
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import GraphSession, SessionWire
from .inputs import checked, fps_input, schema
from .live import results, thumbnails
from .live.decoder import decode_rest
from .live.preview_video import PreviewVideo
from .live.view import LiveView


class SFDecodeChunks(io.ComfyNode):
    """Decodes the part of a session that has not been decoded."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFDecodeChunks",
            display_name="Decode Chunks",
            description="Decodes the part of a session that was not decoded yet. For long videos use Stream Video.",
            search_aliases=["streaming vae decode", "decode session"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to decode; it records how far it has been decoded."),
                io.Vae.Input("vae", tooltip="Wan 2.1's VAE, a TAEHV loaded with Load VAE, or the tiny demo's."),
                fps_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="frames",
                    tooltip="The new frames, seamless with the frames before them.",
                ),
                SessionWire.Output(display_name="session", tooltip="The session, decoded up to its end."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(cls, session: GraphSession, vae: Any, fps: float) -> Any:
        core, cancellation = session.core, host.HostCancellation()
        ours = open_vae(vae, cancellation)
        wan, cost = comfy_model(core), DecoderCost.of(ours)
        check_fits(ours, wan)
        if session.decoded >= core.frames:
            raise ValueError(
                "this session has no frames that were not decoded yet: put Sample Chunks before Decode Chunks"
            )
        missing = cost.decoding(wan.setup(core, cost)) - wan.shared.decoder_bytes
        memory.make_room(missing, wan.device, last=wan.shared.idle)
        progress = host.NodeProgress(core.frames - session.decoded, cancellation)
        blocks = sum(block.place.end > session.decoded for block in core.head.back()) if core.head else 0
        path, parts = results.new_video("chunks"), []
        view = LiveView(cls, fps, blocks)
        with view.until_end(path), freed_if_out_of_memory(core, cost), PreviewVideo(path, fps, view.say) as video:
            for block, (end, frames) in enumerate(decode_rest(session, ours, vae)):
                parts.append(host.intermediate(frames[0]))
                video.write(frames[0])
                view.show(frames[0], block, block + 1)
                progress.at(end - session.decoded)
        thumbnails.remember(core, parts[-1][-1])
        decoded = replace(session, decoded=core.frames)
        return io.NodeOutput(torch.cat(parts), decoded, ui=view.on_node())


NODES = [SFDecodeChunks]

"""The node that takes a clip as the source of a video: video to video."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..sf_core.files.clips import CROP, FITS
from ..sf_core.session.source import SCHEDULES
from ..sf_core.sources.clip import AT_END
from ..sf_core.sources.video_source import SCHEDULE, STRENGTH
from .adapters.source import GraphSource
from .adapters.wire_types import SourceWire
from .inputs import checked, schema, with_extra


class SFVideoSource(io.ComfyNode):
    """Takes a clip that chunks are made from."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFVideoSource",
            display_name="Video Source",
            description="Video to video: each chunk is made from what a clip shows at its time. For Stream Video.",
            search_aliases=["video to video", "v2v", "vid2vid", "restyle video", "self forcing source"],
            inputs=[
                io.Vae.Input(
                    "vae", tooltip="The VAE that belongs to the model; it encodes the frames as they are used."
                ),
                io.Float.Input(
                    "strength",
                    default=STRENGTH,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="How much is made anew: 0 keeps the clip as it is, 1 ignores it.",
                ),
                io.Combo.Input(
                    "at_end",
                    options=list(AT_END),
                    default="stop",
                    tooltip="Behind the clip's end: 'hold' its last frame, 'loop' it, or 'stop' the video with it.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=CROP,
                    tooltip="To the session's size: 'crop' fills it, 'pad' shows all of the frame with black edges.",
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="A clip of any size and rate, upright; it is read as it goes."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="In place of 'video': a batch of frames, at the session's rate."
                ),
                with_extra(
                    io.Combo.Input(
                        "schedule",
                        options=list(SCHEDULES),
                        default=SCHEDULE,
                        optional=True,
                        tooltip="'rescaled' takes all steps (Krea), 'truncated' the last ones, 'repeated' the last "
                        "again (tiny demo).",
                    ),
                    advanced=True,
                ),
            ],
            outputs=[SourceWire.Output(display_name="source", tooltip="For Stream Video or Sample Chunks.")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        vae: Any,
        strength: float,
        at_end: str,
        fit: str,
        video: Any = None,
        image: Tensor | None = None,
        schedule: str = SCHEDULE,
    ) -> Any:
        given = [clip for clip in (video, image) if clip is not None]
        if len(given) != 1:
            raise ValueError(
                f"Video Source has {'both a video and images' if given else 'neither a video nor images'}: connect "
                "one of 'video' and 'image'"
            )
        return io.NodeOutput(GraphSource(given[0], vae, strength, schedule, fit, at_end))


NODES = [SFVideoSource]

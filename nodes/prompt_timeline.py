"""The node that sets prompts by time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.v0_0_2 import io

from ..sf_core.session.timeline import Timeline, parse_rows
from .adapters.conditioning import embeddings, encode
from .adapters.wire_types import TimelineWire
from .inputs import checked, schema

_EXAMPLE = """0: a red circle moving left quickly on a black background
2.5: a blue square moving up slowly on a white background"""


class SFPromptTimeline(io.ComfyNode):
    """Reads rows of text, and encodes their prompts."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFPromptTimeline",
            display_name="Prompt Timeline",
            description="Sets prompts by time: which prompt is used from which second on. For Stream Video.",
            search_aliases=["prompt travel", "prompt schedule", "prompt switch"],
            inputs=[
                io.String.Input(
                    "rows",
                    multiline=True,
                    default=_EXAMPLE,
                    tooltip="One prompt a row, 'second: prompt'; it is used from the next chunk on.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.Boolean.Input(
                    "recache",
                    default=False,
                    tooltip="At each change, rebuild the window's cache under the new prompt: the video turns faster.",
                ),
            ],
            outputs=[TimelineWire.Output(display_name="timeline", tooltip="For Stream Video.")],
        )

    @classmethod
    @checked
    def execute(cls, rows: str, clip: Any, recache: bool) -> Any:
        parsed = parse_rows(rows)
        prompts = dict.fromkeys(row.prompt for row in parsed if row.prompt)
        encoded = {prompt: embeddings(encode(clip, prompt)) for prompt in prompts}
        return io.NodeOutput(Timeline(tuple(replace(row, recache=row.recache or recache) for row in parsed), encoded))


NODES = [SFPromptTimeline]

"""The node that says which prompt holds when."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from . import host
from .session import embeddings
from .values import PromptAt, Timeline, TimelineWire

_EXAMPLE = """0: a red circle moving left quickly on a black background
2.5: a blue square moving up slowly on a white background"""


def parse_rows(text: str) -> list[tuple[float, str]]:
    """(second, prompt) of each row ``second: prompt``, earliest first, without empty rows and those that begin with #.

    Raises ValueError naming a row that is none.
    """
    rows: dict[float, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        time, colon, prompt = line.partition(":")
        second = _second(time)
        if not colon or second is None or not prompt.strip():
            raise ValueError(
                f"row {number} of the timeline is {line.strip()!r}; expected 'second: prompt', as in '2.5: a cat'"
            )
        if second in rows:
            raise ValueError(f"the timeline has two prompts at second {second:g}; row {number} is the second one")
        rows[second] = prompt.strip()
    if not rows:
        raise ValueError("the timeline is empty; write rows such as '0: a cat' and '2.5: a dog'")
    return sorted(rows.items())


def _second(words: str) -> float | None:
    try:
        second = float(words)
    except ValueError:
        return None
    return second if second >= 0 and math.isfinite(second) else None


class SFPromptTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="SFPromptTimeline",
            display_name="Prompt Timeline",
            description="Which prompt holds from which second of the video on. For Stream Video.",
            search_aliases=["prompt travel", "prompt schedule", "prompt switch"],
            inputs=[
                io.String.Input(
                    "rows",
                    multiline=True,
                    default=_EXAMPLE,
                    tooltip="One prompt a row, 'second: prompt'; it holds from the next chunk on.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.Boolean.Input(
                    "recache",
                    default=False,
                    tooltip="At each change, pass the window again under the new prompt: the video turns faster.",
                ),
            ],
            outputs=[TimelineWire.Output(display_name="timeline", tooltip="For Stream Video.")],
        )

    @classmethod
    def execute(cls, rows: str, clip: Any, recache: bool) -> Any:
        encoded: dict[str, Tensor] = {}
        prompts = []
        for second, text in parse_rows(rows):
            if text not in encoded:
                encoded[text] = embeddings(clip.encode_from_tokens_scheduled(clip.tokenize(text)))
            prompts.append(PromptAt(second, text, encoded[text]))
        return io.NodeOutput(Timeline(tuple(prompts), recache))


NODES = [SFPromptTimeline]

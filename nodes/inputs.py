"""Declarations that several nodes share: schema, inputs, units."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.v0_0_2 import io

FPS = 16.0  # of Wan 2.1 and of the tiny demo
CATEGORY = "video/self forcing"
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**settings: Any) -> Any:
    """Return a node's schema without the fields that this ComfyUI does not know yet (such as search_aliases)."""
    settings.setdefault("category", CATEGORY)
    return io.Schema(**{name: value for name, value in settings.items() if name in _SCHEMA_FIELDS})


def with_extra(widget: Any, **extra: Any) -> Any:
    """Return an input with extra values for the pack's own JavaScript."""
    widget.extra_dict = {**widget.extra_dict, **extra}
    return widget


def fps_input(optional: bool = False) -> Any:
    """Return the input for frames a second."""
    return io.Float.Input(
        "fps",
        optional=optional,
        default=FPS,
        min=1.0,
        max=240.0,
        step=0.5,
        tooltip="Frames a second at which the video plays; Wan 2.1 and the tiny demo are made for 16.",
    )

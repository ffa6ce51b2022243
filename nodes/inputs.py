"""Declarations that several nodes share: schema, inputs, units."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import numpy as np
from comfy_api.v0_0_2 import io

from ..sf_core import ranges
from ..sf_core.ranges import Range
from ..sf_core.session.drift import THRESHOLD
from ..sf_core.session.drift_guard import DriftAction
from .adapters.wire_types import SourceWire

FPS = 16.0  # of Wan 2.1 and of the tiny demo
CATEGORY = "video/self forcing"
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**settings: Any) -> Any:
    """Return a node's schema without the fields that this ComfyUI does not know yet (such as search_aliases).

    ``has_intermediate_output`` makes ComfyUI send a node's ``ui`` again when the node's result is cached.
    """
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
        min=ranges.FPS.least,
        max=ranges.FPS.most,
        step=0.5,
        tooltip="Frames a second at which the video plays: 16 for Wan 2.1 and the tiny demo, 24 for LongLive 2.",
    )


def on_drift_input() -> Any:
    """Return the input that says what a `DriftGuard` does."""
    return with_extra(
        io.Combo.Input(
            "on_drift",
            options=list(get_args(DriftAction)),
            default="measure",
            optional=True,
            tooltip="When colours move away from the beginning: measure shows it, warn says it, recache passes the "
            "window again, match gives the next chunk the colours of the first ones.",
        ),
        advanced=True,
    )


def drift_threshold_input() -> Any:
    """Return the input for the drift above which it acts."""
    return with_extra(
        io.Float.Input(
            "drift_threshold",
            default=THRESHOLD,
            min=0.0,
            max=10.0,
            step=0.05,
            optional=True,
            tooltip="Drift above which that is done, in units of the first chunks' spread; 0: before every chunk.",
        ),
        advanced=True,
    )


def source_input() -> Any:
    """Return the input for what chunks are made from."""
    return SourceWire.Input(
        "source", optional=True, tooltip="Video to video: what the chunks are made from, from Video Source."
    )


_LISTED = ("model_name", "file")  # names of files, which are checked against their folder


def checked(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a node's ``execute`` so that its schema holds for wires and API clients as it does for widgets.

    ComfyUI checks the values of widgets only. Nothing of the node runs before all values are checked.
    """
    inputs: list[Any] = []  # of the schema, which lists files of the disk: it is made once

    @functools.wraps(execute)
    def checked_execute(node: Any, **values: Any) -> Any:
        inputs[:] = inputs or node.define_schema().inputs
        return execute(node, **{**values, **_checked_values(inputs, values)})

    return checked_execute


def _is_either(value: Any) -> bool:
    """Whether a value is a boolean of any library, or 0 or 1."""
    return isinstance(value, (bool, int, np.bool_)) and value in (0, 1)


def _checked_values(inputs: Iterable[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of widgets, whole numbers as int. Raises ValueError, naming input, value and range."""
    checked_values = {}
    for one in inputs:
        if one.id not in values or (values[one.id] is None and one.optional):
            continue
        value, name = values[one.id], f"'{one.id}'"
        if isinstance(one, io.Int.Input):
            Range(one.min, one.max, whole=True).check(name, value)
            value = int(value)
        elif isinstance(one, io.Float.Input):
            Range(one.min, one.max).check(name, value)
            value = float(value)
        elif isinstance(one, io.Combo.Input) and one.id not in _LISTED and value not in one.options:
            raise ValueError(f"{name} is {str(value)[:40]!r}; expected one of {', '.join(map(str, one.options))}")
        elif isinstance(one, io.Boolean.Input):
            if not _is_either(value):
                raise ValueError(f"{name} is {str(value)[:40]!r}, a {type(value).__name__}; expected true or false")
            value = bool(value)
        elif isinstance(one, (io.String.Input, io.Combo.Input)) and not isinstance(value, str):
            raise ValueError(f"{name} is {str(value)[:40]!r}, a {type(value).__name__}; expected text")
        checked_values[one.id] = value
    return checked_values

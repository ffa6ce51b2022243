"""Rollout settings of published models, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..sf_core.config import RolloutConfig
from ..sf_core.files.published_models import PUBLISHED_MODELS, model_by_name, remark_on

FROM_MODEL = "from the model"
CUSTOM = "custom"
_WEB_DEMO = "Self Forcing, web demo (shift 8)"


def _presets() -> dict[str, RolloutConfig]:
    named = {member.name: member.config for member in PUBLISHED_MODELS if member.config is not None}
    first = {"Self Forcing": named.pop("Self Forcing")}
    return {**first, _WEB_DEMO: replace(first["Self Forcing"], shift=8.0), **named}


PRESETS = _presets()
MODEL_PRESETS = [FROM_MODEL, *PRESETS]


def preset_config(name: str, own: RolloutConfig | None) -> RolloutConfig | None:
    """Return the settings called ``name``; ``own`` are the model's. Raises ValueError for an unknown name."""
    if name == FROM_MODEL:
        return own
    return PRESETS.get(name) or model_by_name(name).config


def preset_remark(name: str) -> str:
    """Return what a user should know of the preset called ``name``; empty if there is nothing to say."""
    return remark_on(next((model for model in PUBLISHED_MODELS if model.name == name), None))


def chosen_settings(preset: str, values: Mapping[str, Any], wired: Collection[str]) -> tuple[RolloutConfig, str]:
    """Return the settings of Rollout Settings, and a note on values that contradict the preset ("" if none does).

    A value that was wired or set replaces the preset's. A default that was not wired does not: it was left as it was.

    Args:
        preset: Name of a preset, or `CUSTOM`.
        values: The values below the preset, by name of input.
        wired: Names of the inputs that are wired.

    Raises:
        ValueError: The settings are not possible; the message says why.
    """
    if preset == CUSTOM:
        return _config(values), ""
    own = widget_values(PRESETS[preset])
    differing = [name for name, value in own.items() if _spelled(values[name]) != _spelled(value)]
    used = {name for name in differing if name in wired or _spelled(values[name]) != _spelled(_DEFAULTS[name])}
    notes = [
        f"{name} is {values[name]} in place of {own[name]}, the preset's"
        if name in used
        else f"{name} is {own[name]}, the preset's, and not {values[name]}: choose '{CUSTOM}' to set it"
        for name in differing
    ]
    config = _config({**own, **{name: values[name] for name in used}}) if used else PRESETS[preset]
    return config, f"{preset}: {'; '.join(notes)}" if notes else ""


def _spelled(value: Any) -> Any:
    """Return ``value`` for comparison: steps may be between commas or blanks."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _config(values: Mapping[str, Any]) -> RolloutConfig:
    changes = {
        "denoising_steps": steps_from_words(values["denoising_steps"]),
        "first_chunk_steps": steps_from_words(values["first_chunk_steps"]) or None,
        "window_frames": values["window_frames"] or None,
        "first_chunk_frames": values["first_chunk_frames"] or None,
    }
    return RolloutConfig(**{**values, **changes})


def widget_values(config: RolloutConfig) -> dict[str, object]:
    """Return a configuration as the widgets of Rollout Settings show it."""
    return {
        "chunk_frames": config.chunk_frames,
        "window_frames": config.window_frames or 0,
        "sink_frames": config.sink_frames,
        "sink_position": config.sink_position,
        "denoising_steps": steps_in_words(config.denoising_steps),
        "shift": config.shift,
        "warp_steps": config.warp_steps,
        "context_noise": config.context_noise,
        "first_chunk_frames": config.first_chunk_frames or 0,
        "first_chunk_steps": steps_in_words(config.first_chunk_steps or ()),
    }


def steps_in_words(steps: tuple[float, ...]) -> str:
    """Return timesteps as text."""
    return ", ".join(f"{step:.12g}" for step in steps)


def steps_from_words(words: str) -> tuple[int, ...]:
    """Read timesteps from text. Raises ValueError for anything but whole numbers between commas or blanks."""
    parts = words.replace(",", " ").split()
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"denoising steps are {words!r}; expected whole numbers such as 1000, 750, 500, 250")
    return tuple(int(part) for part in parts)


_DEFAULTS = widget_values(RolloutConfig())  # of the inputs of Rollout Settings

"""Rollout settings of published models by name, as widgets show them, and what a node says of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from ..sf_core.config import RolloutConfig
from ..sf_core.files.published_models import (
    PUBLISHED_MODELS,
    WAN22_CHANNELS,
    format_settings,
    frame_rate,
    model_by_name,
    preset,
    presets,
    remark_on,
)
from ..sf_core.files.recognition import Recognition
from ..sf_core.message import NOTHING, Message, clauses, sentences

FROM_MODEL = "from the model"
CUSTOM = "custom"
AS_THE_MODEL = "as the model"  # the kv_dtype None
_WIDGETS = (  # settings with a widget
    *("chunk_frames", "window_frames", "sink_frames", "sink_position", "denoising_steps", "shift"),
    *("warp_steps", "context_noise", "first_chunk_frames", "first_chunk_steps"),
)
_PAPER = RolloutConfig()
_OF_THE_CACHE = ("kv_dtype", "kv_offload")  # settings with a widget that no preset sets
# settings without a widget of their own: they are written into the widget "rules"
_RULES = {field.name: field for field in fields(RolloutConfig) if field.name not in (*_WIDGETS, *_OF_THE_CACHE)}


def _presets() -> dict[str, RolloutConfig]:
    names = presets()
    first = [name for name in names if name in ("Self Forcing", "Self Forcing, web demo (shift 8)")]
    return {name: preset(name) for name in (*first, *(name for name in names if name not in first))}


PRESETS = _presets()
MODEL_PRESETS = [FROM_MODEL, *PRESETS]
# frames a second by preset, which `fps` of a new node follows
RATES = {name: frame_rate(model_by_name(name).channels) for name in PRESETS}


def preset_config(name: str, own: RolloutConfig | None) -> RolloutConfig | None:
    """Return the settings called ``name``; ``own`` are the model's. Raises ValueError for an unknown name."""
    if name == FROM_MODEL:
        return own
    return PRESETS.get(name) or model_by_name(name).config


def preset_remark(name: str) -> Message:
    """Return what a user should know of the preset called ``name``; empty if there is nothing to say."""
    return remark_on(next((model for model in PUBLISHED_MODELS if model.name == name), None))


def check_preset(chosen: str, channels: int) -> None:
    """Raise ValueError if a preset would stream a Wan 2.2 5B with the settings of a model of another kind.

    Args:
        chosen: `FROM_MODEL`, or the name of a preset.
        channels: Of the MODEL's latents.
    """
    if channels == WAN22_CHANNELS and (misfit := _misfit(chosen, channels)):
        raise ValueError(misfit)


def _misfit(chosen: str, channels: int | None) -> Message:
    """Say that a preset is of models with other latents than these; "" if it is not, or they are not known."""
    if chosen == FROM_MODEL or channels is None:
        return NOTHING
    expected = model_by_name(chosen).channels
    if (expected == WAN22_CHANNELS) == (channels == WAN22_CHANNELS):
        return NOTHING
    difference = Message(
        "the preset {preset} is of models with latents of {expected} channels, and this one has {channels}",
        **{"preset": repr(chosen), "expected": expected, "channels": channels},
    )
    if channels != WAN22_CHANNELS:
        return difference
    names = " or ".join(repr(name) for name in PRESETS if model_by_name(name).channels == channels)
    return Message(
        "{difference}, as Wan 2.2's 5B model: a few steps with these settings give no usable video. Choose the preset "
        "{names} if the weights are of that model, or {from_model} if the file has settings of its own",
        **{"difference": difference, "names": names, "from_model": repr(FROM_MODEL)},
    )


def said_of(recognised: Recognition | None, chosen: str, channels: int | None) -> Message:
    """Say which model a file is taken for, why, its settings, and what contradicts the preset that was chosen.

    Args:
        recognised: What the file is; None if the file is not known.
        chosen: `FROM_MODEL`, or the name of a preset.
        channels: Of the model's latents; None if they are not known.
    """
    if chosen == FROM_MODEL:
        return recognised.text() if recognised is not None else NOTHING
    model = model_by_name(chosen)
    first = Message("{preset}: the preset that was chosen", preset=chosen)
    parts = [first, format_settings(model.config or _PAPER), model.remark]
    misfit = _misfit(chosen, channels)
    if misfit and channels == WAN22_CHANNELS:
        return misfit
    if misfit:
        parts.append(Message("Mind: {misfit}", misfit=misfit))
    if recognised is not None and recognised.refusal:
        parts.insert(0, recognised.refusal)
    elif recognised is not None and recognised.name and chosen not in (recognised.name, *recognised.could_be):
        model_and_why = {"name": recognised.name, "why": recognised.why}
        parts.append(Message("Mind: the file looks like {name}: {why}", **model_and_why))
    if recognised is not None:
        parts.append(recognised.group)
    return sentences(parts)


def chosen_settings(chosen: str, values: Mapping[str, Any], wired: Collection[str]) -> tuple[RolloutConfig, Message]:
    """Return the settings of Rollout Settings, and a note on values that contradict the preset (empty if none does).

    A value that was wired or set replaces the preset's. A default that was not wired does not: it was left as it was.

    Args:
        chosen: Name of a preset, or `CUSTOM`.
        values: The values below the preset, by name of input.
        wired: Names of the inputs that are wired.

    Raises:
        ValueError: The settings are not possible; the message says why.
    """
    config, note = _without_the_cache(chosen, {**_DEFAULTS, **values}, wired)
    kv_dtype = values.get("kv_dtype", AS_THE_MODEL)
    kv_dtype = None if kv_dtype == AS_THE_MODEL else kv_dtype
    return replace(config, kv_dtype=kv_dtype, kv_offload=bool(values.get("kv_offload", False))), note


def _without_the_cache(chosen: str, values: Mapping[str, Any], wired: Collection[str]) -> tuple[RolloutConfig, Message]:
    """Do as `chosen_settings` says, without the settings of the cache, which go with every preset."""
    if chosen == CUSTOM:
        return _config(values), NOTHING
    own = widget_values(PRESETS[chosen])
    differing = [name for name, value in own.items() if _spelled(values[name]) != _spelled(value)]
    used = {name for name in differing if name in wired or _spelled(values[name]) != _spelled(_DEFAULTS[name])}
    config = _config({**own, **{name: values[name] for name in used}}) if used else PRESETS[chosen]
    if not differing:
        return config, NOTHING
    notes = clauses(_difference(name, values[name], own[name], name in used) for name in differing)
    return config, Message("{preset}: {notes}", preset=chosen, notes=notes)


def _difference(name: str, value: Any, own: Any, is_used: bool) -> Message:
    what = {"name": name, "value": _shown(value), "own": _shown(own)}
    if is_used:
        return Message("{name} is {value} in place of {own}, the preset's", **what)
    return Message("{name} is {own}, the preset's, and not {value}: choose 'custom' to set it", **what)


def _shown(value: Any) -> Any:
    return value if value != "" else Message("empty")


def _spelled(value: Any) -> Any:
    """Return ``value`` for comparison: steps may be between commas or blanks."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _config(values: Mapping[str, Any]) -> RolloutConfig:
    changes: dict[str, Any] = {
        "denoising_steps": steps_from_words(values["denoising_steps"]),
        "first_chunk_steps": steps_from_words(values["first_chunk_steps"]) or None,
        "window_frames": values["window_frames"] or None,
        "first_chunk_frames": values["first_chunk_frames"] or None,
    }
    shown = {name: values[name] for name in _WIDGETS}
    return RolloutConfig(**{**shown, **changes, **rules_from_words(values["rules"])})


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
        "rules": rules_in_words(config),
    }


def steps_in_words(steps: tuple[float, ...]) -> str:
    """Return timesteps as text."""
    return ", ".join(f"{step:.15g}" for step in steps)


def steps_from_words(words: str) -> tuple[float, ...]:
    """Read timesteps from text. Raises ValueError for anything but numbers between commas or blanks."""
    parts = words.replace(",", " ").split()
    if not all(part.isascii() and part.replace(".", "", 1).isdigit() and len(part) <= 20 for part in parts):
        raise ValueError(f"denoising steps are {words[:80]!r}; expected numbers such as 1000, 750, 500, 250")
    return tuple(float(part) if "." in part else int(part) for part in parts)


def rules_in_words(config: RolloutConfig) -> str:
    """Return the settings that have no widget of their own, where they are not the default, as text."""
    values = {name: getattr(config, name) for name, field in _RULES.items() if getattr(config, name) != field.default}
    return ", ".join(f"{name}={value}" for name, value in values.items())


def rules_from_words(words: str) -> dict[str, Any]:
    """Read settings such as ``schedule=rolling, sink_average=0.999``.

    Raises:
        ValueError: A part is no such setting; the message names those that there are.
    """
    rules: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in words.replace(";", ",").split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not value or name not in _RULES or name in rules:
            known = ", ".join(_RULES) or "none in this version"
            raise ValueError(f"rules have {part[:60]!r}; expected name=value, each name once. The names: {known}")
        rules[name] = _value(value)
    return rules


def _value(word: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if word.lower() in named:
        return named[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word.strip("'\"")


_DEFAULTS = widget_values(_PAPER)  # of the inputs of Rollout Settings

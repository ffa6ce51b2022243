"""Rollout settings that a MODEL carries, from its loader to the session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import comfy.model_sampling
from comfy.patcher_extension import WrappersMP

from ...sf_core.config import RolloutConfig
from . import host

ATTACHMENT = "self_forcing"


@dataclass(frozen=True)
class Settings:
    """Rollout settings attached to a MODEL, as far as its loader or the user set them."""

    config: RolloutConfig | None = None
    latent_size: tuple[int, int] | None = None


def with_settings(patcher: Any, settings: Settings) -> Any:
    """Return a MODEL with the same weights that carries ``settings``."""
    clone = patcher.clone()
    clone.set_attachments(ATTACHMENT, settings)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, ATTACHMENT)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, ATTACHMENT, _explain_to_guiders)
    return clone


def _explain_to_guiders(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Warn of core's samplers, which make all frames of a clip at once. Raises ValueError for a cfg other than 1."""
    guidance = getattr(executor.class_obj, "cfg", 1.0)
    if guidance != 1.0:
        raise ValueError(
            f"a Self Forcing model was wired into a sampler with cfg {guidance:g}. Such models have guidance trained "
            "in: at any cfg but 1 they burn out, and they make video chunk by chunk, which this sampler does not. Wire "
            "the MODEL into Self Forcing Session, and that into Sample Chunks or Stream Video"
        )
    host.log.warning("a Self Forcing model in a core sampler makes all frames at once, without its cache of the past")
    return executor(*args, **kwargs)


def settings_of(patcher: Any) -> Settings:
    """Return the settings attached to a MODEL."""
    return patcher.get_attachment(ATTACHMENT) or Settings()


def config_for(patcher: Any, given: RolloutConfig | None) -> RolloutConfig:
    """Return the connected rollout settings, else the model's own, with the shift of ModelSamplingSD3.

    Raises:
        ValueError: The MODEL has the noise schedule of another kind of model.
    """
    sampling = patcher.object_patches.get("model_sampling")
    shift = None if sampling is None else _flow_shift(sampling)
    if given is not None:
        return given
    config = settings_of(patcher).config or RolloutConfig()
    return config if shift is None else replace(config, shift=shift)


def _flow_shift(sampling: Any) -> float:
    """Return the shift of a flow-matching schedule, as ModelSamplingSD3 sets it. Raises ValueError for another one."""
    known = comfy.model_sampling
    if not (isinstance(sampling, known.ModelSamplingDiscreteFlow) and isinstance(sampling, known.CONST)):
        kind = ", ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(
            f"a ModelSampling node gave this MODEL the noise schedule of another kind of model ({kind}). "
            "A Self Forcing model needs flow matching with a shift: use ModelSamplingSD3, or remove the node"
        )
    return float(sampling.shift)

"""*Fit to my card* and *Real time on my card*: rollout settings that a session gets from the planner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...sf_core.byte_units import GIB
from ...sf_core.config import RolloutConfig
from ...sf_core.device_rates import DeviceRates, known_rates, remembered_rates
from ...sf_core.files.published_models import WAN22_CHANNELS, frame_rate
from ...sf_core.memory_ledger import DecoderCost, Setup
from ...sf_core.message import NOTHING, Message, sentences
from ...sf_core.plan_in_words import in_words
from ...sf_core.planner import plan
from ...sf_core.vae.wan_vae import WAN_MEAN
from . import host, memory
from .model import HostedWan
from .running_prompt import executing_node
from .wire_types import SettingsToFit

SECONDS = 60.0  # of the video that is planned where the cache grows with its length
FOR_MEASURING = 2 * GIB  # of a GPU, while it is measured


@dataclass(frozen=True)
class Fitted:
    """What was chosen.

    Attributes:
        config: The settings.
        decoder: The decoder that is planned with them. None: it is not counted.
        frames: Latent frames that are planned, which matter without a window only.
        words: What was chosen and changed, and how fast it is.
    """

    config: RolloutConfig
    decoder: DecoderCost | None
    frames: int
    words: Message


def fit(wan: HostedWan, wish: SettingsToFit, latent_size: tuple[int, int]) -> Fitted:
    """Fit settings to the device of a model: the same ones on the same device, whatever is loaded there.

    Args:
        wan: The model.
        wish: The settings, and what is wished for.
        latent_size: Height and width of the latents.

    Raises:
        ValueError: Nothing fits; the message says what would.
    """
    fps = frame_rate(wan.arch.in_dim) if wish.real_time else 0.0
    rates, trouble = _rates(wan, measure=wish.real_time)
    frames = 1 + math.ceil(SECONDS * frame_rate(wan.arch.in_dim) / wan.temporal_factor)
    asked, ledger = Setup(wish.config, latent_size, frames=frames, decoder=_own_decoder(wan)), wan.ledger
    try:
        chosen = plan(ledger, asked, rates, fps)
    except ValueError as error:
        raise ValueError(f"{error}. With 'fit' off in Rollout Settings, the settings are tried as they are") from None
    said = sentences((in_words(ledger.device, asked, chosen, rates, fps), trouble))
    return Fitted(chosen.setup.config, chosen.setup.decoder, frames, said)


def _own_decoder(wan: HostedWan) -> DecoderCost | None:
    """The VAE that belongs to the model. None: it is not one of Wan's."""
    mean = wan.latents_mean.float().cpu()
    of_wan21 = mean.shape == (len(WAN_MEAN),) and torch.allclose(mean, torch.tensor(WAN_MEAN), rtol=0, atol=0.02)
    if not of_wan21 and wan.arch.in_dim != WAN22_CHANNELS:
        return None
    return DecoderCost.published(wan.arch.in_dim, memory.vae_dtype(wan.device), wan.device.type)


def _rates(wan: HostedWan, measure: bool) -> tuple[DeviceRates | None, Message]:
    """The rates of the device, measured if they are not known and ``measure`` is set; and why they could not be."""
    known = remembered_rates(wan.device, wan.dtype)
    name = wan.ledger.device.name
    if known is not None:
        return known, NOTHING
    if not measure:
        return None, Message("'real time on my card' measures it, once")
    host.say(executing_node(), Message("Measuring how fast this computer is: two seconds, once"))
    try:
        if name == "GPU":
            memory.make_room(FOR_MEASURING, wan.device)
        with host.normal_tensors():
            return known_rates(wan.device, wan.dtype), NOTHING
    except RuntimeError as error:  # out of memory, or an operation that the device does not have
        reason = str(error).splitlines()[0][:200]
        return None, Message("It could not be measured: {reason}", reason=reason)


def plain(settings: RolloutConfig | SettingsToFit | None) -> RolloutConfig | None:
    """Return settings for a node that fits none. Raises ValueError where they are to be fitted."""
    if isinstance(settings, SettingsToFit):
        raise ValueError(
            "these settings are to be fitted to the card, which Self Forcing Session does: set 'fit' of Rollout "
            "Settings to 'off' here"
        )
    return settings

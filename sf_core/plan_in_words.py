"""A plan in words: what it chose, what it changed for that, and how fast it is predicted to be."""

from __future__ import annotations

from .device_rates import DeviceRates
from .memory_advice import changes_of
from .memory_ledger import DeviceMemory, Setup
from .message import NOTHING, Message, listed, sentences
from .planner import Plan


def in_words(device: DeviceMemory, asked: Setup, chosen: Plan, rates: DeviceRates | None, fps: float) -> Message:
    """Say what a plan chose, changed and predicts; `memory_advice` says what it takes.

    Args:
        device: The device that was planned for.
        asked: The settings that were wished for.
        chosen: The plan.
        rates: What the device does in a second. None: not known.
        fps: Frames a second that were asked for; 0: however many.
    """
    changes = changes_of(asked, chosen.setup)
    settings = {"device": device.name, "settings": _settings(device, chosen.setup)}
    if changes:
        head = Message("Fitted to your {device}: {settings}; changed: {changes}", **settings, changes=listed(changes))
    else:
        head = Message("Fitted to your {device}: {settings}; nothing had to be changed", **settings)
    if not device.total:
        head = Message("Your {device} does not tell its memory: {settings}, as they were set", **settings)
    return sentences((head, _decoder(asked, chosen.setup), _length(asked), _speed(device, chosen, rates, fps)))


def _settings(device: DeviceMemory, setup: Setup) -> Message:
    """The settings that a plan may choose, as they are now."""
    config = setup.config
    window = Message("window {n}", n=config.window_frames) if config.window_frames is not None else Message("no window")
    format_ = config.kv_dtype or Message("as the model")
    in_ram = config.kv_offload or device.name == "RAM"
    place = Message("in RAM") if in_ram else Message("on the {device}", device=device.name)
    cache = Message("cache {format} {place}", format=format_, place=place)
    steps = Message("{n} steps", n=len(config.timesteps(1)))
    return listed((window, Message("sink {n}", n=config.sink_frames), cache, steps))


def _decoder(asked: Setup, chosen: Setup) -> Message:
    """Say which decoder is planned, which the session cannot choose by itself."""
    if chosen.decoder is None:
        return Message("The decoder is not counted")
    if chosen.decoder != asked.decoder:
        return Message("Decode with a TAEHV (taew2_1, by Load VAE): it is planned with that one")
    return Message("It is planned with the {decoder} as decoder", decoder=chosen.decoder.name)


def _length(asked: Setup) -> Message:
    """Say how long a video is planned, where that matters."""
    if asked.config.window_frames is not None:
        return NOTHING
    return Message("Without a window the cache grows: {n} latent frames were planned", n=asked.frames)


def _speed(device: DeviceMemory, chosen: Plan, rates: DeviceRates | None, fps: float) -> Message:
    """Say how fast the plan is."""
    if rates is None or chosen.fps is None:
        return Message("Its speed is not predicted, since this {device} was not measured", device=device.name)
    rate = {"fps": f"{chosen.fps:.3g}", "name": rates.name}
    predicted = Message("At best {fps} frames a second are predicted, by what was measured on {name}", **rate)
    if chosen.in_time:
        return predicted
    short = Message("That is less than the {fps} of real time: take a smaller picture", fps=f"{fps:g}")
    return sentences((predicted, short))

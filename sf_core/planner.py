"""The planner: settings with which a run fits a device, and runs in real time if that is asked for.

It changes as little as it can: an int8 cache first, then the cache in RAM, a smaller decoder, a smaller window, an int4
cache, fewer steps. What it returns the memory ledger accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from .byte_units import format_bytes
from .device_rates import DeviceRates
from .memory_advice import advice
from .memory_ledger import Ledger, Parts, Setup
from .work import Work, work_of

LAYERS_SHARE = 0.89  # of the time of sampling, that linear layers and attention take; measured on an H200
WINDOWS = 8  # that are tried, evenly from the whole one to the smallest
# what a change costs a video, as the order in which changes are made
INT8, INT4, IN_RAM, SMALL_DECODER, A_STEP_LESS = 1.0, 6.0, 2.5, 3.0, 8.0
ANOTHER_WINDOW, NO_WINDOW = 0.5, 12.0  # however little smaller; and for all of it


@dataclass(frozen=True)
class Plan:
    """Settings of a run, and what is predicted of it.

    Attributes:
        setup: The settings.
        parts: Its memory.
        work: The work of a chunk.
        fps: Frames a second, end to end. None: the device's rates are not known.
        in_time: Whether that is what was asked for.
        offloaded: Bytes of the weights that stay in RAM.
    """

    setup: Setup
    parts: Parts
    work: Work
    fps: float | None
    in_time: bool
    offloaded: int


def plan(ledger: Ledger, setup: Setup, rates: DeviceRates | None = None, fps: float = 0.0) -> Plan:
    """Plan a run: ``setup``, changed as little as possible.

    Args:
        ledger: The memory that runs of the model take on the device.
        setup: The settings that are wished for.
        rates: What the device does in a second. None: not known, and ``fps`` is not read.
        fps: Frames a second that the run shall make; 0: however many.

    Returns:
        The first plan that fits, with all weights on the device if one does, and that makes ``fps``. If none makes
        them, the fastest one.

    Raises:
        ValueError: Nothing fits; the message says what would.
    """
    fastest: Plan | None = None
    for offloading in (False, True)[: 1 + ledger.device.offloads]:
        for candidate in _candidates(ledger, setup, fewer_steps=bool(fps and rates)):
            if not ledger.fits(candidate, offloading):
                continue
            found = planned(ledger, candidate, rates, fps)
            if found.in_time:
                return found
            if fastest is None or (found.fps or 0) > (fastest.fps or 0):
                fastest = found
        if fastest is not None:
            return fastest
    raise ValueError(f"nothing fits the {format_bytes(ledger.device.total)}: {advice(ledger, setup)}")


def planned(ledger: Ledger, setup: Setup, rates: DeviceRates | None = None, fps: float = 0.0) -> Plan:
    """What is predicted of a run as it is set."""
    shape = ledger.model.cache_shape(setup.config, setup.latent_size, setup.batch)
    parts, work = ledger.parts(setup), work_of(ledger.model.arch, shape, setup)
    rate = None if rates is None else work.frames / _seconds(work, rates, parts.at_once)
    return Plan(setup, parts, work, rate, not fps or rate is None or rate >= fps, ledger.offloaded(setup) or 0)


def _seconds(work: Work, rates: DeviceRates, at_once: bool) -> float:
    """Seconds that a chunk takes; ``at_once``: one is decoded while the next is sampled, on the same processor."""
    sampling = (work.products / rates.products + work.attention / rates.attention) / LAYERS_SHARE
    return max(sampling, work.copied / rates.copies) + work.decoding / rates.convolution


def _candidates(ledger: Ledger, setup: Setup, fewer_steps: bool) -> Iterator[Setup]:
    """``setup`` and all changes of it, the least harmful first."""
    config = setup.config
    formats = {None: 0.0, "int8": INT8, "int4": INT4} if config.kv_dtype is None else {config.kv_dtype: 0.0}
    places = {False: 0.0, True: IN_RAM} if ledger.device.name == "GPU" and not config.kv_offload else {}
    decoders = {setup.decoder: 0.0}
    if setup.decoder is not None and setup.decoder.replaceable:
        decoders[setup.decoder.small()] = SMALL_DECODER
    choices = product(
        formats.items(),
        (places or {config.kv_offload: 0.0}).items(),
        decoders.items(),
        _windows(ledger, setup).items(),
        (_steps(setup) if fewer_steps else {config.denoising_steps: 0.0}).items(),
    )
    changed: list[tuple[float, Setup]] = []
    for (kind, a), (place, b), (decoder, c), (window, d), (steps, e) in choices:
        changed_config = replace(config, kv_dtype=kind, kv_offload=place, window_frames=window, denoising_steps=steps)
        changed.append((a + b + c + d + e, replace(setup, decoder=decoder, config=changed_config)))
    for _, candidate in sorted(changed, key=lambda one: one[0]):
        yield candidate


def _windows(ledger: Ledger, setup: Setup) -> dict[int | None, float]:
    """Windows, and what each one costs."""
    config = setup.config
    most = config.window_frames or ledger.held_frames(setup)
    smaller = config.windows_below(most)
    step = max(1, -(-len(smaller) // WINDOWS))
    costs: dict[int | None, float] = {config.window_frames: 0.0}
    for window in [*smaller[::-1][::step], *smaller[:1]]:
        costs[window] = ANOTHER_WINDOW + NO_WINDOW * (1 - window / most)
    return costs


def _steps(setup: Setup) -> dict[tuple[float, ...], float]:
    """Denoising steps with none, one, two … left out, the first and the last but for one kept."""
    config = setup.config
    costs: dict[tuple[float, ...], float] = {config.denoising_steps: 0.0}
    if config.schedule == "rolling" or config.solver != "renoise":  # there the number of steps is the algorithm
        return costs
    given = config.denoising_steps
    for count in range(len(given) - 1, 1, -1):
        kept = [round(i * (len(given) - 1) / (count - 1)) for i in range(count)]
        costs[tuple(given[i] for i in kept)] = A_STEP_LESS * (len(given) - count)
    return costs

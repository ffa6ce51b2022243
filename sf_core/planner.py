"""The planner: settings with which a run fits a device, and runs in real time if that is asked for.

It changes as little as it can, see `concessions`. What it returns the memory ledger accepts.
"""

from __future__ import annotations

from dataclasses import dataclass

from .byte_units import format_bytes
from .concessions import fitting
from .device_rates import DeviceRates
from .memory_advice import advice
from .memory_ledger import Ledger, Parts, Setup
from .work import Work, passes_of, work_of

LAYERS_SHARE = 0.89  # of the time of sampling, that linear layers and attention take; measured on an H200


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
        for candidate in fitting(ledger, setup, offloading, speed=bool(fps and rates)):
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
    offloaded = ledger.offloaded(setup) or 0
    moved = offloaded * len(passes_of(setup))  # weights in RAM are copied for each pass
    rate = None if rates is None else work.frames / _seconds(work, rates, moved)
    return Plan(setup, parts, work, rate, not fps or rate is None or rate >= fps, offloaded)


def _seconds(work: Work, rates: DeviceRates, moved: int) -> float:
    """Seconds that a chunk takes, for which ``moved`` bytes of weights are copied.

    A CPU decodes a chunk while it samples the next: the sum of both is the same.
    """
    sampling = (work.products / rates.products + work.attention / rates.attention) / LAYERS_SHARE
    return max(sampling, work.copied / rates.copies) + moved / rates.copies + work.decoding / rates.convolution

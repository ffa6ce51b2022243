"""What a run can give up so that it fits a device, the least harmful first: the one order of plans and advice.

Each change has a cost, which says what it does to the video and to its speed. Costs of several changes add up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from .memory_ledger import Ledger, Setup

# an int8 cache leaves a video nearly the same, one in RAM the same to the bit, but slower
INT8, CHUNKWISE, IN_RAM, SMALL_DECODER, INT4, A_STEP_LESS = 1.0, 1.0, 2.8, 3.0, 6.0, 8.0
ANOTHER_WINDOW, NO_WINDOW = 1.0, 12.0  # however little smaller; and in proportion to how much smaller
WINDOWS = 8  # that are tried for speed, evenly from the largest to the smallest
Changed = Iterable[tuple[float, Setup]]  # costs, and setups with one more change


class Kind(Protocol):
    """A kind of change."""

    def __call__(self, ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
        """The changes of ``setup`` of this kind; ``speed``: also those that make a run faster, and no smaller."""


def fitting(
    ledger: Ledger, setup: Setup, offloading: bool, most: int | None = None, speed: bool = False, in_ram: bool = True
) -> Iterator[Setup]:
    """Yield ``setup`` and changes of it that fit, the least harmful first.

    Args:
        ledger: The memory that runs of the model take.
        setup: The settings of the run.
        offloading: Whether weights may stay in RAM.
        most: Settings that may be changed at once. None: any number.
        speed: Whether to yield changes, too, that make a run faster and no smaller.
        in_ram: Whether the cache may go to RAM.
    """
    kinds: list[Kind] = [_formats, _recaches, _decoders, *([_places] if in_ram else []), *([_steps] if speed else [])]
    options = [(0.0, 0, setup)]
    for kind in (*kinds, _windows):  # the window last: how large it may be depends on the others
        options += [
            (cost + more, count + 1, changed)
            for cost, count, one in options
            if most is None or count < most
            for more, changed in kind(ledger, one, offloading, speed)
        ]
    for _, _, option in sorted(options, key=lambda one: one[0]):
        if ledger.fits(option, offloading):
            yield option


def smaller_picture(ledger: Ledger, setup: Setup, offloading: bool) -> Setup | None:
    """The largest smaller picture of about the same shape that fits."""
    arch = ledger.model.arch
    _, patch_rows, patch_columns = arch.patch_size
    rows, columns = arch.token_grid(setup.latent_size)

    def sized(width: int) -> Setup:
        height = max(1, round(rows * width / columns))
        return replace(setup, latent_size=(height * patch_rows, width * patch_columns))

    widths = range(1, columns)
    fit = bisect_right(widths, 0, key=lambda width: 0 if ledger.fits(sized(width), offloading) else 1)
    return sized(widths[fit - 1]) if fit else None


def _formats(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    if setup.config.kv_dtype is None:
        for cost, kind in ((INT8, "int8"), (INT4, "int4")):
            yield cost, replace(setup, config=replace(setup.config, kv_dtype=kind))


def _recaches(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    if setup.joint_frames:
        yield CHUNKWISE, replace(setup, joint_frames=0)


def _places(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    if ledger.device.name == "GPU" and not setup.config.kv_offload:
        yield IN_RAM, replace(setup, config=replace(setup.config, kv_offload=True))


def _decoders(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    if setup.decoder is not None and setup.decoder.replaceable:
        yield SMALL_DECODER, replace(setup, decoder=setup.decoder.small())


def _steps(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    """Denoising steps with one, two … left out; the first and the last stay."""
    config, given = setup.config, setup.config.denoising_steps
    if config.schedule == "rolling" or config.solver != "renoise":  # there the number of steps is the algorithm
        return
    for count in range(len(given) - 1, 1, -1):
        kept = tuple(given[round(i * (len(given) - 1) / (count - 1))] for i in range(count))
        yield A_STEP_LESS * (len(given) - count), replace(setup, config=replace(config, denoising_steps=kept))


def _windows(ledger: Ledger, setup: Setup, offloading: bool, speed: bool) -> Changed:
    """The largest smaller window that fits; for speed, smaller ones too."""
    whole = setup.config.window_frames or ledger.held_frames(setup)
    smaller = setup.config.windows_below(whole)
    # fits() is monotone: a larger window takes more
    fit = bisect_right(smaller, 0, key=lambda n: 0 if ledger.fits(_with_window(setup, n), offloading) else 1)
    if not fit:
        return
    evenly = smaller[:fit][:: -max(1, -(-fit // WINDOWS))]
    for window in dict.fromkeys([*evenly, smaller[0]] if speed else evenly[:1]):
        yield ANOTHER_WINDOW + NO_WINDOW * (1 - window / whole), _with_window(setup, window)


def _with_window(setup: Setup, frames: int) -> Setup:
    return replace(setup, config=replace(setup.config, window_frames=frames))

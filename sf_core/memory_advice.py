"""The memory ledger in words: what a run takes, and the one setting to change if that is too much."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace

from .byte_units import format_bytes
from .memory_ledger import Ledger, Setup


def in_words(ledger: Ledger, setup: Setup) -> str:
    """Compare a run with the memory of the device, in a sentence that a user can act on."""
    parts, window, device = ledger.parts(setup), setup.config.window_frames, ledger.device
    reach = f"at window {window}" if window else f"with {setup.frames} frames and no window"
    lines = [
        f"cache {format_bytes(parts.cache)} {reach}",
        f"weights {format_bytes(parts.weights)}",
        f"a chunk {format_bytes(parts.sampling)}",
    ]
    if setup.decoder is not None:
        lines += [f"decoder {format_bytes(parts.decoding)}", f"VAE {format_bytes(parts.vae)}"]
    takes = f"{', '.join(lines)}; {format_bytes(parts.total)} in all"
    takes += "" if setup.decoder else ", without a decoder"
    of_device = f"the {format_bytes(device.total)} of your {device.name}"
    if not device.total:
        return f"Takes {takes}"
    missing = ledger.offloaded(setup)
    if missing is None:
        return f"Too much for {of_device}: {takes}. {advice(ledger, setup)}"
    if missing:
        whole = remedy(ledger, setup, offloading=False)
        named = whole and name_change(ledger, setup, whole)
        hint = f". To keep all weights on the {device.name}, take {named[0]}: {named[1]}" if named else ""
        return f"Fits {of_device} with {format_bytes(missing)} of the weights offloaded, which is slower: {takes}{hint}"
    return f"Fits {of_device}: {takes}"


def advice(ledger: Ledger, setup: Setup) -> str:
    """Say which one setting makes a run fit."""
    changed = remedy(ledger, setup)
    if changed is None:
        least = format_bytes(ledger.least_weights)
        return (
            f"No window and no size fits: {least} of the weights have to be on the {ledger.device.name}. Use fp8 "
            "weights (weight_dtype of Load Self Forcing Model), or a smaller model"
        )
    what, details = name_change(ledger, setup, changed)
    with_weights = "" if ledger.fits(changed, offloading=False) else " with weights offloaded"
    return f"{what[0].upper()}{what[1:]} would fit{with_weights}: {details}"


def name_change(ledger: Ledger, setup: Setup, changed: Setup) -> tuple[str, str]:
    """Name the one setting of ``changed`` that differs from ``setup``, and say more about it."""
    if changed.decoder is not None and changed.decoder != setup.decoder:
        takes = format_bytes(changed.decoder.decoding(changed))
        return "a TAEHV (taew2_1) as decoder", f"it takes {takes} (Load VAE)"
    if changed.config != setup.config:
        cache = format_bytes(ledger.cache(changed))
        return f"a window of {changed.config.window_frames} latent frames", f"its cache is {cache} (Rollout Settings)"
    (rows, columns), (old_rows, old_columns) = (
        (height * ledger.spatial_factor, width * ledger.spatial_factor)
        for height, width in (changed.latent_size, setup.latent_size)
    )
    return f"{columns} x {rows} pixels", f"no window fits at {old_columns} x {old_rows} (Self Forcing Session)"


# The setting to change ------------------------------------------------------------------------------------------------


def remedy(ledger: Ledger, setup: Setup, offloading: bool = True) -> Setup | None:
    """The setup, changed in one setting, that fits; it does the least harm of those that do.

    A window of at least half the size comes first (of any size, if it was unbounded), then a smaller decoder, then any
    window, each with all weights on the device if possible. A smaller picture comes last.

    Args:
        ledger: The memory that runs of the model take.
        setup: The settings of the run.
        offloading: Whether weights may stay in RAM.
    """
    half = (setup.config.window_frames or 0) // 2
    for changes in ((_windows(half), _decoders), (_windows(0),), (_sizes,)):
        for offloads in (False, True)[: 1 + offloading]:
            for change in changes:
                for changed in change(ledger, setup, offloads):
                    if ledger.fits(changed, offloads):
                        return changed
    return None


def _windows(least: int) -> Callable[[Ledger, Setup, bool], Iterator[Setup]]:
    """The largest smaller window that fits, of at least ``least`` frames."""

    def windows(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
        config = setup.config
        smaller = config.windows_below(config.window_frames or ledger.held_frames(setup), least)
        # fits() is monotone: a larger window takes more
        fitting = bisect_right(smaller, 0, key=lambda n: 0 if ledger.fits(_with_window(setup, n), offloading) else 1)
        if fitting:
            yield _with_window(setup, smaller[fitting - 1])

    return windows


def _with_window(setup: Setup, frames: int) -> Setup:
    return replace(setup, config=replace(setup.config, window_frames=frames))


def _decoders(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
    if setup.decoder is not None and setup.decoder.replaceable:
        yield replace(setup, decoder=setup.decoder.small())


def _sizes(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
    """The largest smaller picture of about the same shape that fits."""
    arch = ledger.model.arch
    _, patch_rows, patch_columns = arch.patch_size
    rows, columns = arch.token_grid(setup.latent_size)

    def sized(width: int) -> Setup:
        height = max(1, round(rows * width / columns))
        return replace(setup, latent_size=(height * patch_rows, width * patch_columns))

    widths = range(1, columns)
    fitting = bisect_right(widths, 0, key=lambda width: 0 if ledger.fits(sized(width), offloading) else 1)
    if fitting:
        yield sized(widths[fitting - 1])

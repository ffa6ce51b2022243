"""The memory ledger in words: what a run takes, and the one setting to change if that is too much."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace

from .byte_units import format_bytes
from .memory_ledger import Ledger, Setup
from .message import Message, Sentence, listed, sentences


def in_words(ledger: Ledger, setup: Setup) -> Message:
    """Compare a run with the memory of the device, in a sentence that a user can act on."""
    device, takes = ledger.device, _takes(ledger, setup)
    of_device = Message("the {size} of your {device}", size=format_bytes(device.total), device=device.name)
    if not device.total:
        return Message("Takes {takes}", takes=takes)
    missing = ledger.offloaded(setup)
    if missing is None:
        too_much = Message("Too much for {memory}: {takes}", memory=of_device, takes=takes)
        return sentences((too_much, advice(ledger, setup)))
    if not missing:
        return Message("Fits {memory}: {takes}", memory=of_device, takes=takes)
    fits = Message(
        "Fits {memory} with {missing} of the weights offloaded, which is slower: {takes}",
        **{"memory": of_device, "missing": format_bytes(missing), "takes": takes},
    )
    whole = remedy(ledger, setup, offloading=False)
    if not whole:
        return fits
    what, details = name_change(ledger, setup, whole)
    hint = Message(
        "To keep all weights on the {device}, take {what}: {details}", device=device.name, what=what, details=details
    )
    return sentences((fits, hint))


def _takes(ledger: Ledger, setup: Setup) -> Message:
    """What a run takes, in all and in parts."""
    parts, window = ledger.parts(setup), setup.config.window_frames
    kind = setup.config.kv_dtype
    size = format_bytes(parts.cache) + (f" ({kind})" if kind else "")
    cache = (
        Message("cache {size} at window {window}", size=size, window=window)
        if window
        else Message("cache {size} with {n} frames and no window", size=size, n=setup.frames)
    )
    if parts.host_cache:
        cache = Message("{cache}, and {size} in RAM", cache=cache, size=format_bytes(parts.host_cache))
    entries = [
        cache,
        Message("weights {size}", size=format_bytes(parts.weights)),
        Message("a chunk {size}", size=format_bytes(parts.sampling)),
    ]
    if parts.recache > parts.sampling:
        entries.append(Message("a joint recache {size}", size=format_bytes(parts.recache)))
    total = format_bytes(parts.total)
    if setup.decoder is None:
        return Message("{parts}; {total} in all, without a decoder", parts=listed(entries), total=total)
    entries += [
        Message("decoder {size}", size=format_bytes(parts.decoding)),
        Message("VAE {size}", size=format_bytes(parts.vae)),
    ]
    return Message("{parts}; {total} in all", parts=listed(entries), total=total)


def advice(ledger: Ledger, setup: Setup) -> Message:
    """Say which one setting makes a run fit."""
    changed = remedy(ledger, setup)
    if changed is None and ledger.decodes_only:
        return Message("No size fits: close other programs that use the {device}", device=ledger.device.name)
    if changed is None:
        least = format_bytes(ledger.least_weights)
        return Message(
            "No window and no size fits: {least} of the weights have to be on the {device}. Use fp8 weights "
            "(weight_dtype of Load Self Forcing Model), or a smaller model",
            **{"least": least, "device": ledger.device.name},
        )
    what, details = name_change(ledger, setup, changed)
    if ledger.fits(changed, offloading=False):
        return Sentence("{what} would fit: {details}", what=what, details=details)
    return Sentence("{what} would fit with weights offloaded: {details}", what=what, details=details)


def name_change(ledger: Ledger, setup: Setup, changed: Setup) -> tuple[Message, Message]:
    """Name the one setting of ``changed`` that differs from ``setup``, and say more about it."""
    if changed.decoder is not None and changed.decoder != setup.decoder:
        takes = format_bytes(changed.decoder.decoding(changed))
        return Message("a TAEHV (taew2_1) as decoder"), Message("it takes {size} (Load VAE)", size=takes)
    if changed.joint_frames != setup.joint_frames:
        recache = Message("'recache' in place of 'joint'")
        return recache, Message("it passes the window chunk by chunk (Switch Prompt, Prompt Timeline)")
    if changed.config.kv_dtype != setup.config.kv_dtype:
        takes = format_bytes(ledger.cache(changed))
        kind = Message("an {format} cache", format=changed.config.kv_dtype)
        return kind, Message("it takes {size} (kv_dtype of Rollout Settings)", size=takes)
    if changed.config.kv_offload != setup.config.kv_offload:
        parts = ledger.parts(changed)
        taken = {"size": format_bytes(parts.cache), "host": format_bytes(parts.host_cache)}
        details = Message(
            "it takes {size} of the {device} and {host} of RAM, and is slower (kv_offload of Rollout Settings)",
            **{"device": ledger.device.name, **taken},
        )
        return Message("the cache in RAM"), details
    if changed.config != setup.config:
        cache = format_bytes(ledger.cache(changed))
        window = Message("a window of {n} latent frames", n=changed.config.window_frames)
        return window, Message("its cache is {size} (Rollout Settings)", size=cache)
    sizes = (
        (height * ledger.spatial_factor, width * ledger.spatial_factor)
        for height, width in (changed.latent_size, setup.latent_size)
    )
    smaller, larger = (Message("{columns} x {rows} pixels", columns=columns, rows=rows) for rows, columns in sizes)
    if ledger.decodes_only:
        return smaller, Message("the VAE takes more at {size} (Self Forcing Session)", size=larger)
    return smaller, Message("no window fits at {size} (Self Forcing Session)", size=larger)


# The setting to change ------------------------------------------------------------------------------------------------


def remedy(ledger: Ledger, setup: Setup, offloading: bool = True) -> Setup | None:
    """The setup, changed in one setting, that fits; it does the least harm of those that do.

    An int8 cache comes first, since a video stays nearly the same. Then come a recache chunk by chunk, a window of at
    least half the size (of any size, if it was unbounded) and a smaller decoder, then the cache in RAM, which is
    slower, then any window, each with all weights on the device if possible. A smaller picture comes last.

    Args:
        ledger: The memory that runs of the model take.
        setup: The settings of the run.
        offloading: Whether weights may stay in RAM.
    """
    half = (setup.config.window_frames or 0) // 2
    harmless, small = (_formats,), (_chunkwise, _windows(half), _decoders)
    for changes in (harmless, small, (_offloaded,), (_windows(0),), (_sizes,)):
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


def _formats(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
    if setup.config.kv_dtype is None:
        yield replace(setup, config=replace(setup.config, kv_dtype="int8"))


def _chunkwise(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
    if setup.joint_frames:
        yield replace(setup, joint_frames=0)


def _offloaded(ledger: Ledger, setup: Setup, offloading: bool) -> Iterator[Setup]:
    if ledger.device.name == "GPU" and not setup.config.kv_offload:
        yield replace(setup, config=replace(setup.config, kv_offload=True))


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

"""The memory ledger in words: what a run takes, and what to change if that is too much."""

from __future__ import annotations

from .byte_units import format_bytes
from .concessions import fitting, smaller_picture
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
        if ledger.fills_ram(setup):
            of_device = Message("the {size} of your {device}", size=format_bytes(device.ram), device="RAM")
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
    """Say which one setting makes a run fit, or which several do, if no single one but the size does."""
    changed = remedy(ledger, setup)
    if changed is None or changed.latent_size != setup.latent_size:
        several = together(ledger, setup)
        if several is not None:
            changes = listed(changes_of(setup, several))
            return Message("Together would fit: {changes} ('fit' of Rollout Settings finds them)", changes=changes)
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


# What to change -------------------------------------------------------------------------------------------------------


def remedy(ledger: Ledger, setup: Setup, offloading: bool = True) -> Setup | None:
    """The setup, changed in one setting, that fits; it does the least harm of those that do.

    Changes come in the order of `concessions`, with all weights on the device if possible. A smaller picture comes
    last.

    Args:
        ledger: The memory that runs of the model take.
        setup: The settings of the run.
        offloading: Whether weights may stay in RAM. If not, the cache may not either: that is as slow.
    """
    stays = (False, True)[: 1 + offloading]
    for offloads in stays:
        for changed in fitting(ledger, setup, offloads, most=1, in_ram=offloading):
            if changed != setup:
                return changed
    return next(filter(None, (smaller_picture(ledger, setup, offloads) for offloads in stays)), None)


def together(ledger: Ledger, setup: Setup) -> Setup | None:
    """The setup, changed in several settings but the size, that fits; it does the least harm of those that do."""
    return next((changed for offloads in (False, True) for changed in fitting(ledger, setup, offloads)), None)


def changes_of(asked: Setup, chosen: Setup) -> list[Message]:
    """Name the settings but the size that differ."""
    old, new = asked.config, chosen.config
    changes = []
    if new.kv_dtype != old.kv_dtype:
        changes.append(Message("an {format} cache", format=new.kv_dtype))
    if new.kv_offload != old.kv_offload:
        changes.append(Message("the cache in RAM"))
    if chosen.decoder != asked.decoder and chosen.decoder is not None:
        changes.append(Message("a TAEHV as decoder"))
    if chosen.joint_frames != asked.joint_frames:
        changes.append(Message("'recache' in place of 'joint'"))
    if new.window_frames != old.window_frames:
        before = old.window_frames or Message("none")
        changes.append(Message("window {new} in place of {old}", new=new.window_frames, old=before))
    if new.denoising_steps != old.denoising_steps:
        counts = {"new": len(new.denoising_steps), "old": len(old.denoising_steps)}
        changes.append(Message("{new} steps in place of {old}", **counts))
    return changes

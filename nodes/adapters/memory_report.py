"""Memory needs of a session, as sentences that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ...sf_core.byte_units import format_bytes
from ...sf_core.memory_advice import advice, in_words
from ...sf_core.memory_ledger import DecoderCost
from ...sf_core.message import Message
from ...sf_core.session.session import Session
from . import memory
from .model import comfy_model


def memory_in_words(
    session: Session, decoder: DecoderCost | None = None, frames: int = 0, joint: bool = False
) -> Message:
    """Compare what a run of ``session`` takes with the memory of its device.

    Args:
        session: The session that is extended.
        decoder: The decoder, if the run decodes.
        frames: Latent frames that the run will reach, where that is known.
        joint: Whether the run makes a joint recache later than before its next chunk.
    """
    wan = comfy_model(session)
    return in_words(wan.ledger, wan.setup(session, decoder, frames, joint))


def _what_would_fit(session: Session, decoder: DecoderCost | None, decodes_only: bool) -> Message:
    """Say which one setting makes a run fit into the memory that is free now, with all models unloaded."""
    wan = comfy_model(session)
    ledger = wan.ledger.without_sampling() if decodes_only else wan.ledger
    free = memory.free_memory(wan.device)
    free += 0 if decoder is None else decoder.weights  # the decoder is in use, so it was not unloaded
    free += 0 if ledger.device.offloads else ledger.weights
    setup = wan.setup(session, decoder)
    # what has just run out takes less than it did, whatever the device says is free
    ran_out = ledger.parts(setup).total - 1
    room = min(free, ran_out) if ledger.device.total else ran_out
    device = replace(ledger.device, total=max(1, room), spare=0)
    return advice(replace(ledger, device=device), setup)


def out_of_memory_error(
    error: BaseException, session: Session, decoder: DecoderCost | None, kept: str = "", decodes_only: bool = False
) -> BaseException:
    """Free everything that ran out of memory, then return the error to raise, which says what fits into what is free.

    Args:
        error: What was raised.
        session: The session at work.
        decoder: The decoder, if the run decodes.
        kept: What is not lost, as the end of a sentence.
        decodes_only: Whether the VAE worked alone: a smaller cache does not help it, since the cache made way.
    """
    wan = comfy_model(session)
    cache = "" if decodes_only else f" (the cache is {format_bytes(wan.next_cache_bytes(session))})"
    wan.shared.release()
    memory.free_all(error)
    return memory.out_of_memory(
        error,
        f"the {wan.ledger.device.name} ran out of memory{cache}; it has been freed{kept}. "
        f"{_what_would_fit(session, decoder, decodes_only)}",
    )


@contextmanager
def freed_if_out_of_memory(session: Session, decoder: DecoderCost) -> Iterator[None]:
    """Do as `out_of_memory_error` says if the block, which decodes or encodes, runs out of memory."""
    try:
        yield
    except BaseException as error:
        if not memory.is_out_of_memory(error):
            raise
        raise out_of_memory_error(error, session, decoder, decodes_only=True) from None

"""Noise sources as a session's file records them: a seed, the facts of a `PublishedNoise`, or None for a caller's."""

from __future__ import annotations

from typing import Any

from ..noise import MAX_SEED, NoiseSource, SeededNoise
from .draw_orders import ORDERS
from .published_noise import AS_PUBLISHED, MOST_FRAMES, PublishedNoise

NoiseFacts = int | dict[str, Any] | None

_KEYS = {"source", "seed", "frames", "given", "order", "drawn_by"}


def facts_of(noise: NoiseSource) -> NoiseFacts:
    """Return everything that the noise is a function of, besides the session's settings. None: it is not known."""
    if isinstance(noise, SeededNoise):
        return noise.seed
    return noise.record if isinstance(noise, PublishedNoise) else None


def are_facts(facts: Any, with_published: bool) -> bool:
    """Whether a value of a file is what `facts_of` gives; ``with_published``: it may be of a `PublishedNoise`."""
    if facts is None:
        return True
    if not isinstance(facts, dict):
        return _is_whole(facts, 0, MAX_SEED)
    return (
        with_published
        and set(facts) == _KEYS
        and facts["source"] == AS_PUBLISHED
        and facts["order"] in ORDERS
        and type(facts["drawn_by"]) is str
        and _is_whole(facts["seed"], 0, MAX_SEED)
        and _is_whole(facts["frames"], 1, MOST_FRAMES)
        and _is_whole(facts["given"], 0, facts["frames"] - 1)
    )


def noise_in_words(facts: NoiseFacts) -> str:
    """Describe recorded noise: its seed, and what else decides it."""
    if facts is None:
        return "the caller's noise"
    if isinstance(facts, int):
        return str(facts)
    return f"{facts['seed']} {AS_PUBLISHED} ({facts['frames']} latent frames, drawn by {facts['drawn_by']})"


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most

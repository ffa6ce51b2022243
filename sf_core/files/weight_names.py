"""Original names of a Wan 2.1 transformer's weights, from the names that trainers, ComfyUI and diffusers give them.

Training code wraps a model, and each wrapper adds a word to every name below it; ComfyUI and diffusers add or change
words of their own. No word that is removed here occurs in an original name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..model.two_sets import PREFIX

Value = TypeVar("Value")

# Groups of a trainer's file. If a file has one of these, the first is loaded and all other tensors are skipped.
MODEL_GROUPS = ("generator_ema", "generator", "net_ema", "model.diffusion_model")
LORA_GROUPS = ("generator_lora",)
SKIPPED_GROUPS = ("critic", "critic_lora")

_WRAPPERS = {
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_orig_mod",
    "base_layer",  # of PEFT, which keeps the changes beside it
    "base_model",
    "diffusion_model",
    "model",
    "module",
    "net",  # also inside diffusers' feed-forward
    "state_dict",
    "transformer",
}
# Parts of the discriminator that a GAN objective trains on top of the transformer.
_GAN_EXTRAS = {"_cls_pred_branch", "_register_tokens", "_gan_ca_blocks"}

_FROM_DIFFUSERS = [
    (re.compile(pattern), original)
    for pattern, original in (
        (r"\battn1\b", "self_attn"),
        (r"\battn2\b", "cross_attn"),
        (r"\bto_([qkv])\b", r"\1"),
        (r"\bto_out\.0\b", "o"),
        (r"\badd_([kv])_proj\b", r"\1_img"),
        (r"\bffn\.0\.proj\b", "ffn.0"),
        (r"^(blocks\.\d+)\.norm2\b", r"\1.norm3"),  # the only norm of a block that has weights
        (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
        (r"^scale_shift_table$", "head.modulation"),
        (r"^proj_out\b", "head.head"),
        (r"^condition_embedder\.time_proj\b", "time_projection.1"),
        (r"^condition_embedder\.(text|time)_embedder\.linear_1\b", r"\1_embedding.0"),
        (r"^condition_embedder\.(text|time)_embedder\.linear_2\b", r"\1_embedding.2"),
        (r"^condition_embedder\.image_embedder\b", "img_emb"),
    )
]


def original_name(name: str) -> str:
    """Remove wrappers from ``name``, and translate it if it is diffusers'."""
    name = ".".join(word for word in name.split(".") if word not in _WRAPPERS)
    for pattern, original in _FROM_DIFFUSERS:
        name = pattern.sub(original, name)
    return name


def wrappers_in(names: Iterable[str]) -> list[str]:
    """List the words that `original_name` removes from ``names``."""
    return sorted({word for name in names for word in name.split(".") if word in _WRAPPERS and ".ffn.net." not in name})


def is_gan_extra(name: str) -> bool:
    """Return whether this is a weight of a GAN discriminator on top of the transformer."""
    return not _GAN_EXTRAS.isdisjoint(name.split("."))


def is_counter(name: str) -> bool:
    """Return whether this is a counter of Causal-rCM's trainer, not a weight."""
    return any(word.startswith("accum_") for word in name.split("."))


def split_sets(state: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Split the weights of a file with two sets (SGF+), and return both under the same names.

    The second set has ``memory_`` before a word of each name; it writes the cache. A file with one set has none of it.

    Raises:
        ValueError: A weight is in one set only.
    """
    sets: tuple[dict[str, Value], dict[str, Value]] = ({}, {})
    for name, value in state.items():
        words = name.split(".")
        plain = ".".join(word.removeprefix(PREFIX) for word in words)
        sets[plain != name][plain] = value
    alone = sorted(sets[0].keys() ^ sets[1].keys()) if sets[1] else []
    if alone:
        where = "memory_ set" if alone[0] in sets[1] else "plain set"
        raise ValueError(
            f"this file has two sets of weights, but {len(alone)} of them are in one set only ({alone[0]}, in the "
            f"{where}): it is not whole"
        )
    return sets


def groups_in(names: Iterable[str], groups: Iterable[str] = MODEL_GROUPS) -> list[str]:
    """List those of ``groups`` that any name begins with, in the same order."""
    starts = {".".join(words[:n]) for words in (name.split(".") for name in names) for n in (1, 2)}
    return [group for group in groups if group in starts]


def group_of(names: Iterable[str], groups: Iterable[str]) -> str | None:
    """Return the first of ``groups`` that any name begins with, or None."""
    return next(iter(groups_in(names, groups)), None)


def select_weights(state: Mapping[str, Value], groups: Iterable[str] = MODEL_GROUPS) -> dict[str, Value]:
    """Select the weights to load, renamed to Wan's names.

    Args:
        state: All tensors of a file, by name.
        groups: Names of groups in the order of preference. If the file has none of them, all tensors outside of
            ``SKIPPED_GROUPS`` are selected.

    Raises:
        ValueError: Two names become the same.
    """
    group = group_of(state, groups)
    selected: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for name, value in state.items():
        if group is None:
            if name.split(".")[0] in SKIPPED_GROUPS:
                continue
        elif not name.startswith(f"{group}."):
            continue
        if is_gan_extra(name) or is_counter(name):
            continue
        original = original_name(name.removeprefix(f"{group}."))
        if original in selected:
            raise ValueError(f"{sources[original]!r} and {name!r} are both {original!r}: the file holds several models")
        selected[original], sources[original] = value, name
    return selected

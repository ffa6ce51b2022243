"""The names that a Wan 2.1 transformer's weights go by, brought back to the original ones.

Training code wraps a model, and each wrapper adds a word to every name below it; ComfyUI and diffusers add or change
words of their own. No word that is dropped here occurs in an original name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

# Parts of a file. Where one of these is in a file, it is what is meant, and all others are passed over.
GROUPS = ("generator_ema", "generator", "model.diffusion_model")
LORA_GROUPS = ("generator_lora",)
NEVER_MEANT = ("critic", "critic_lora")

_WRAPPERS = {
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_orig_mod",
    "base_model",
    "diffusion_model",
    "model",
    "module",
    "net",  # also inside diffusers' feed-forward
    "state_dict",
    "transformer",
}
# Of the discriminator that a GAN objective trains on top of the transformer.
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
    """``name`` without wrappers, and as in the original where it is diffusers'."""
    name = ".".join(word for word in name.split(".") if word not in _WRAPPERS)
    for pattern, original in _FROM_DIFFUSERS:
        name = pattern.sub(original, name)
    return name


def wrappers_in(names: Iterable[str]) -> list[str]:
    """The words that `original_name` drops from ``names``."""
    return sorted({word for name in names for word in name.split(".") if word in _WRAPPERS and ".ffn.net." not in name})


def is_gan_extra(name: str) -> bool:
    return not _GAN_EXTRAS.isdisjoint(name.split("."))


def group_of(names: Iterable[str], groups: Iterable[str]) -> str | None:
    """The first of ``groups`` that any name begins with; None: the names stand in no group."""
    starts = {".".join(words[:n]) for words in (name.split(".") for name in names) for n in (1, 2)}
    return next((group for group in groups if group in starts), None)


def meant(state: Mapping[str, Value], groups: Iterable[str] = GROUPS) -> dict[str, Value]:
    """What a file is about, under original names. Raises ValueError if two names come out alike."""
    group = group_of(state, groups)
    found: dict[str, Value] = {}
    whence: dict[str, str] = {}
    for name, value in state.items():
        if group is None:
            if name.split(".")[0] in NEVER_MEANT:
                continue
        elif not name.startswith(f"{group}."):
            continue
        if is_gan_extra(name):
            continue
        original = original_name(name.removeprefix(f"{group}."))
        if original in found:
            raise ValueError(f"{whence[original]!r} and {name!r} are both {original!r}: the file holds several models")
        found[original], whence[original] = value, name
    return found

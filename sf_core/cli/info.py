"""The command ``info``: describe a session, a checkpoint, a LoRA or a training run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.checkpoint import REAL_HEAD_DIM, empty_model, open_source, rollout_settings
from ..files.lora import is_lora, lora_parts
from ..files.published_models import PublishedModel, format_settings, model_by_name, model_by_words
from ..files.recognition import recognise, slice_name
from ..files.safetensors_file import Value
from ..files.weight_names import LORA_GROUPS, MODEL_GROUPS, SKIPPED_GROUPS, group_of, is_gan_extra, wrappers_in
from ..files.weights import Weight, transformer_weights
from ..model.architecture import WanArchitecture
from ..session.noise_record import noise_in_words
from ..session.saved_record import events_in, read_record
from ..session.session_file import KEY

_UNKNOWN = "unknown; where none are given, Self Forcing's are used"
_SIZES = {(1536, 30): "1.3B", (5120, 40): "14B"}  # by width and layers


def describe(path: Path) -> str:
    """Describe a file line by line.

    Raises:
        ValueError: The file is none of these.
    """
    tensors, metadata = open_source(path)
    if KEY in metadata:
        return _describe_session(read_record(path))
    if "sf.recipe" in metadata:
        return _describe_training(path, metadata)
    if is_lora(tensors):
        return _describe_lora(path, tensors, metadata)
    weights = transformer_weights(tensors)
    arch, heads = _architecture(weights, metadata)
    size = _SIZES.get((arch.dim, arch.num_layers))
    dtypes = Counter(str(weight.stored.dtype).removeprefix("torch.") for weight in weights.values())
    scaled = any(weight.scaling is not None for weight in weights.values())
    lines = {
        "kind": "Wan 2.1 text-to-video transformer" + (f", {size}" if size else ""),
        "parameters": f"{sum(math.prod(w.shape) for w in weights.values()) / 1e6:.2f} million, "
        + ", ".join(sorted(dtypes))
        + (", with scales" if scaled else ""),
        "width, layers, heads": f"{arch.dim}, {arch.num_layers}, {heads}",
        "text": f"{arch.text_len} rows of {arch.text_dim}",
        **_layout(tensors),
        **_origin(path, tensors, metadata, published=size is not None),
        **{k: v for k, v in sorted(metadata.items()) if k.startswith("sf.") and k not in ("sf.rollout", "sf.member")},
    }
    return _table(lines)


def _architecture(weights: Mapping[str, Weight], metadata: Mapping[str, str]) -> tuple[WanArchitecture, str]:
    """Detect the architecture, and format the number of heads; the architecture has 1 where the file has no number."""
    width = weights["patch_embedding.weight"].shape[:1] if "patch_embedding.weight" in weights else ()
    if "sf.num_heads" not in metadata and any(n % REAL_HEAD_DIM for n in width):
        return empty_model(weights, metadata, {"num_heads": 1}).arch, "unknown (give num_heads to load it)"
    arch = empty_model(weights, metadata, {}).arch
    return arch, str(arch.num_heads)


def _layout(tensors: Mapping[str, Value]) -> dict[str, str]:
    """Describe groups, wrappers and foreign names of the tensors, if there are any."""
    lines = {}
    if group := group_of(tensors, (*MODEL_GROUPS, *LORA_GROUPS)):
        counts = Counter(
            g for g in (*MODEL_GROUPS, *LORA_GROUPS, *SKIPPED_GROUPS) for n in tensors if n.startswith(f"{g}.")
        )
        others = len(tensors) - sum(counts.values())
        parts = [f"{g}: {n} tensors" + (" (these are loaded)" if g == group else "") for g, n in counts.items()]
        lines["groups"] = "; ".join(parts + ([f"{others} others"] if others else []))
    if any(".attn1." in name for name in tensors):
        lines["names"] = "diffusers'"
    if wrappers := wrappers_in(tensors):
        lines["wrapped in"] = ", ".join(wrappers)
    if extras := sum(map(is_gan_extra, tensors)):
        lines["not loaded"] = f"{extras} tensors of a GAN discriminator"
    return lines


def _origin(path: Path, tensors: Mapping[str, Value], metadata: Mapping[str, str], published: bool) -> dict[str, str]:
    """Name the model that this may be, the evidence for it, and its settings."""
    found = recognise(path, tensors, metadata, rollout_settings(metadata)[0])
    size = "" if published else "; none that is published has this size"
    lines = {"looks like": f"{found.name or 'no model that is known here'}, {found.why}{size}"}
    if found.could_be:
        lines["could be"] = f"{'; '.join(found.could_be)} (say which, with --member of convert)"
    if found.refusal:
        return {**lines, "settings": "none", "mind": found.refusal}
    settings = format_settings(found.config) if found.config else _UNKNOWN
    lines |= {"settings": settings, **({"mind": found.remark} if found.remark else {})}
    return {**lines, "slice": slice_name(tensors)}


def _settings(member: PublishedModel | None) -> dict[str, str]:
    if member is None:
        return {"settings": _UNKNOWN}
    settings = format_settings(member.config) if member.config else "none"
    return {"settings": settings, **({"mind": member.remark} if member.remark else {})}


def _describe_lora(path: Path, tensors: Mapping[str, Value], metadata: Mapping[str, str]) -> str:
    parts = lora_parts(tensors)
    ranks = Counter(part["down"].shape[0] for part in parts.values() if "down" in part and part["down"].shape)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    peft = any(".lora_A." in name for name in tensors)
    member, config = model_by_words(f"{path.absolute().parent.name}/{path.name}"), rollout_settings(metadata)[0]
    if "sf.trained" in metadata:
        looks = f"{metadata['sf.trained']}, as the file says of itself"
    elif member:
        looks = f"{member.name}, by the name of the file"
    elif group_of(tensors, LORA_GROUPS) and set(ranks) == {256}:
        looks = "LongLive, by its group and rank; other trainers could write the same"
        member = model_by_name("LongLive")
    else:
        looks = "any LoRA of a Wan 2.1 transformer; nothing in it says of which"
    lines = {
        "kind": "LoRA of a Wan 2.1 transformer, to be loaded with its base",
        "parameters": f"{sum(math.prod(t.shape) for t in tensors.values()) / 1e6:.2f} million, {', '.join(dtypes)}",
        "layers": str(len(parts)),
        "ranks": ", ".join(f"{rank} ({count} layers)" for rank, count in sorted(ranks.items())) or "none",
        "alpha": "in the file" if any("alpha" in part for part in parts.values()) else "not in the file: the rank",
        "names": "PEFT's" if peft else "kohya's or ComfyUI's",
        **_layout(tensors),
        "looks like": looks,
        **(_settings(member) if member and config is None else {}),
        **({"settings": f"{format_settings(config)} (the file's own)"} if config else {}),
    }
    return _table(lines)


def _describe_session(record: dict[str, Any]) -> str:
    chunks = [block for block in record["blocks"] if block[0] == "chunk"]
    context = sum(block[1] for block in record["blocks"] if block[0] == "context")
    rows, columns = record["latent_size"]
    seeds = [noise_in_words(facts) for facts in record["seeds"]]
    lines = {
        "kind": f"session, format {record['version']}",
        "made by": ", ".join([record["model"], *record["other_models"]]),
        "chunks": f"{len(chunks)} sampled, {context} latent frames of context",
        "latents": f"{sum(b[1] for b in record['blocks'])} frames of {rows} x {columns}, batch {record['batch']}",
        "seeds": ", ".join(seeds),
        "events": events_in(record),
        **{name: value for name, value in record["config"].items() if value is not None},
    }
    return _table(lines)


def _describe_training(path: Path, facts: Mapping[str, str]) -> str:
    try:
        recipe = json.loads(facts["sf.recipe"])
        kinds = [stage["kind"] for stage in recipe["stages"]]
        name, number, step = recipe["name"], int(facts["sf.stage"]), facts["sf.step"]
        of = recipe["stages"][number]["steps"] if number < len(kinds) else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} says that it is the state of a training, but not which ({error!r})") from error
    lines = {
        "kind": "a training at rest; `train --resume` goes on with it",
        "recipe": name,
        "stage": "all done" if of is None else f"{number + 1}-{kinds[number]}, step {step} of {of}",
        "stages": ", ".join(kinds),
    }
    return _table(lines)


def _table(lines: dict[str, Any]) -> str:
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())

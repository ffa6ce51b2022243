"""Which published model a file holds: by what it says of itself, by its tensors, and only then by its name.

Most models of the family have the same names and shapes, so their tensors tell them apart only by their values.
`KNOWN_WEIGHTS` is for that. Nothing is guessed silently: a `Recognition` says why, and what else it could be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import RolloutConfig
from ..message import NOTHING, Message, sentences
from ..model.identity import weights_name
from ..model.two_sets import PREFIX
from .published_models import PUBLISHED_MODELS, WAN22_CHANNELS, PublishedModel, format_settings, model_by_words
from .safetensors_file import Value
from .weight_names import group_of, groups_in, is_counter, select_weights, split_sets
from .weights import with_scales

# Names of published weights, as `slice_name` gives them and ``python -m sf_core info`` prints them ("slice"), and the
# model of each, as in PUBLISHED_MODELS. To add one: take a file from its authors' page, and the line that info prints.
KNOWN_WEIGHTS: dict[str, str] = {}

_SLICES = ("patch_embedding.bias", "blocks.0.self_attn.q.weight", "head.head.weight", "head.modulation")
_PATCH = "patch_embedding.weight"


@dataclass(frozen=True)
class Recognition:
    """What a file is taken for.

    Args:
        name: Name of the model; "" if nothing tells.
        config: Its settings. None: it has none, and Self Forcing's are used.
        why: What tells so.
        remark: What a user should know before running it.
        could_be: Names of presets, of which a user has to choose one.
        refusal: Why it is not run here; "" if it is.
        channels: Of its latents; None if they are not known.
        group: Which group of weights is loaded, in words; "" if the file has one only.
    """

    name: str
    config: RolloutConfig | None
    why: Message
    remark: Message = NOTHING
    could_be: tuple[str, ...] = ()
    refusal: Message = NOTHING
    channels: int | None = None
    group: Message = NOTHING

    def text(self) -> Message:
        """Say all of it, the most important first."""
        if self.refusal:
            return sentences((self.refusal, self.why, self.group))
        settings = format_settings(self.config or RolloutConfig())
        return sentences((self._first_sentence(), settings, self.remark, self.group))

    def _first_sentence(self) -> Message:
        if not self.name:
            return Message("Choose the preset: {why}. Without it, Self Forcing's settings are used", why=self.why)
        if not self.could_be:
            return Message("{name}: {why}", name=self.name, why=self.why)
        return Message(
            "Choose the preset: {why}. It could be: {names}. Without it, it is taken for {name}",
            **{"why": self.why, "names": "; ".join(self.could_be), "name": self.name},
        )


def recognise(
    path: Path | None, tensors: Mapping[str, Value], metadata: Mapping[str, str], own: RolloutConfig | None
) -> Recognition:
    """Recognise the model of a file.

    Args:
        path: The file; its name and that of its folder are the last hint. None: there is none.
        tensors: All tensors of the file by name; they are not read but for a few values.
        metadata: Of the file.
        own: Rollout settings in its metadata, if it has any.

    Raises:
        ValueError: The tensors are not a model's.
    """
    by_name = model_by_words(f"{path.absolute().parent.name}/{path.name}") if path is not None else None
    patch = select_weights(tensors).get(_PATCH)
    channels = patch.shape[1] if patch is not None and len(patch.shape) == 5 else None
    if own is not None:
        name = metadata.get("sf.member") or metadata.get("sf.trained") or "Trained with this pack"
        found = Recognition(name, own, Message("the file says so of itself"))
    elif known := _by_values(tensors):
        found = _recognised(known, Message("by its values, which are those of the published file"))
    else:
        found = _by_names_and_shapes(tensors, by_name, channels) or _by_file_name(tensors, by_name)
    return replace(found, channels=channels, group=_group(tensors))


def slice_name(tensors: Mapping[str, Value]) -> str:
    """Return a name of weights that a few of their values make, the same in float32, bf16 and fp16."""
    state = split_sets(select_weights(tensors))[0]
    layers = {name.removesuffix(".weight").removesuffix(".bias") for name in _SLICES}
    others = {name for name in state if name.rpartition(".")[2] not in ("weight", "bias")}  # factors, for example
    wanted = {name for name in state if name in _SLICES or (name in others and name.rpartition(".")[0] in layers)}
    weights = with_scales({name: state[name] for name in wanted})
    return weights_name({name: (weights[name].shape, weights[name].sampled_values()) for name in _SLICES})


def _group(tensors: Mapping[str, Value]) -> Message:
    groups = groups_in(tensors)
    if len(groups) < 2:
        return NOTHING
    return Message(
        "Of its groups {first} and {others}, {first} is loaded", first=groups[0], others=" and ".join(groups[1:])
    )


def _by_values(tensors: Mapping[str, Value]) -> PublishedModel | None:
    name = KNOWN_WEIGHTS.get(slice_name(tensors)) if KNOWN_WEIGHTS else None
    return next((model for model in PUBLISHED_MODELS if model.name == name), None)


def _by_names_and_shapes(
    tensors: Mapping[str, Value], by_name: PublishedModel | None, channels: int | None
) -> Recognition | None:
    """Recognise what only some of the models have: two sets of weights, a Linear embedding, other latents."""
    state = select_weights(tensors)
    hint = by_name.name if by_name is not None else ""
    if any(word.startswith(PREFIX) for name in state for word in name.split(".")):
        return _one_of(("SGF+", "SGF+, frame-wise"), hint, Message("it has two sets of weights, as SGF+ alone has"))
    patch = state.get(_PATCH)
    if (patch is not None and len(patch.shape) == 2) or any(map(is_counter, tensors)):
        names = tuple(model.name for model in PUBLISHED_MODELS if model.name.startswith("Causal-rCM"))
        return _one_of(names, hint, Message("its patch embedding is a Linear layer, as Causal-rCM's alone is"))
    if channels == WAN22_CHANNELS:
        why = Message("its latents have {channels} channels, as Wan 2.2's", channels=channels)
        if hint == "LongLive 2":
            return _one_of((hint,), hint, _and_by_name(why))
        if _is_trainers(tensors):
            return _one_of(("LongLive 2",), hint, Message("{why}, and a trainer saved it", why=why))
        return _one_of(("Wan 2.2 itself",), hint, why)
    return None


def _and_by_name(why: Message) -> Message:
    return Message("{why}, and by the name of the file", why=why)


def _one_of(names: tuple[str, ...], hint: str, why: Message) -> Recognition:
    """Recognise the model of these names that the file's name hints at; without a hint, ask."""
    models = {model.name: model for model in PUBLISHED_MODELS}
    if hint in names:
        return _recognised(models[hint], _and_by_name(why) if len(names) > 1 else why)
    if len(names) == 1:
        return _recognised(models[names[0]], why)
    first = models[names[0]]
    return Recognition(first.name, first.config, why, first.remark, names)


def _by_file_name(tensors: Mapping[str, Value], by_name: PublishedModel | None) -> Recognition:
    if by_name is not None and by_name.channels == WAN22_CHANNELS:
        why = Message(
            "its name is one of {name}, whose latents have {channels} channels, and its own have not",
            **{"name": by_name.name, "channels": by_name.channels},
        )
        return Recognition("", None, why)
    if by_name is not None:
        return _recognised(by_name, Message("by the name of the file; the weights of such models look alike"))
    if _is_trainers(tensors):
        why = Message("a trainer saved this file, and neither its weights nor its name tell the model")
        return Recognition("", None, why)
    return Recognition("", None, Message("neither the weights nor the name of this file tell the model"))


def _is_trainers(tensors: Mapping[str, Value]) -> bool:
    return group_of(tensors, ("generator_ema", "generator")) is not None


def _recognised(model: PublishedModel, why: Message) -> Recognition:
    return Recognition(model.name, model.config, why, model.remark, model.ask, model.refusal)

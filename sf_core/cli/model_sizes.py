"""The models that ``plan`` plans for: the published sizes, and the model in a file, whose weights are not loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..byte_units import format_bytes
from ..config import RolloutConfig
from ..files.checkpoint import empty_model, latent_normalisation, open_source, rollout_settings
from ..files.lora import is_lora
from ..files.published_models import LONGLIVE2, WAN22_CHANNELS, frame_rate, preset
from ..files.recognition import recognise
from ..files.weights import Weight, memory_weights, transformer_weights
from ..memory_ledger import DecoderCost, DeviceMemory, Ledger, Setup
from ..model.architecture import PUBLISHED_SIZES, WanArchitecture
from ..model.wan import CausalWan

PIXELS = 832, 480  # of a video, where the model does not say
WAN_FACTOR, WAN22_FACTOR = 8, 16  # pixels along an edge for each one of a latent
ITEMSIZE = {"bf16": 2, "fp8": 1}  # of weights, by name of their dtype


@dataclass(frozen=True)
class ModelSize:
    """What a plan needs to know of a model.

    Attributes:
        name: The model, in words.
        arch: Sizes of the transformer.
        config: Its rollout settings.
        weights: Bytes of its weights. None: as many as the transformer has, in the dtype that is asked for.
        sets: Sets of weights (SGF+ has two).
        pixels: Width and height of its videos.
        decodes: Whether Wan's own VAE decodes its latents.
    """

    name: str
    arch: WanArchitecture
    config: RolloutConfig
    weights: int | None = None
    sets: int = 1
    pixels: tuple[int, int] = PIXELS
    decodes: bool = True

    @property
    def factor(self) -> int:
        """Pixels along an edge for each one of a latent."""
        return WAN22_FACTOR if self.arch.in_dim == WAN22_CHANNELS else WAN_FACTOR

    @property
    def fps(self) -> float:
        """Frames a second of its videos."""
        return frame_rate(self.arch.in_dim)


def published(name: str) -> ModelSize:
    """A published size."""
    arch = PUBLISHED_SIZES[name]
    return ModelSize(name, arch, preset(LONGLIVE2 if arch.in_dim == WAN22_CHANNELS else "Self Forcing"))


SIZES = {name: published(name) for name in PUBLISHED_SIZES}


def model_in(path: Path) -> ModelSize:
    """The model in a file, by its names, shapes and dtypes.

    Raises:
        ValueError: The file holds no transformer that streams; the message says what it holds.
    """
    tensors, metadata = open_source(path)
    if is_lora(tensors):
        raise ValueError(f"{path} is a LoRA, which takes the memory of its base: give the base to --model")
    sets = [weights for weights in (transformer_weights(tensors), memory_weights(tensors)) if weights]
    arch = empty_model(sets[0], metadata, {}).arch
    own, latent_size = rollout_settings(metadata)
    found = recognise(path, tensors, metadata, own)
    if found.refusal:
        raise ValueError(f"{path}: {found.refusal}")
    weights = [weight for one in sets for weight in one.values()]
    nbytes = sum(_loaded_bytes(weight) for weight in weights)
    known = next((name for name, size in PUBLISHED_SIZES.items() if size == arch), f"{len(sets[0])} tensors")
    said = f"{path.name}: {known}, {found.name or 'of no name that is known here'}; {_dtypes(weights)}"
    model = ModelSize(
        f"{said}, {format_bytes(nbytes)} loaded",
        arch,
        own or found.config or RolloutConfig(),
        nbytes,
        len(sets),
        decodes=latent_normalisation(metadata) is None,
    )
    if latent_size is None:
        return model
    rows, columns = (length * model.factor for length in latent_size)
    return ModelSize(**{**vars(model), "pixels": (columns, rows)})


def _loaded_bytes(weight: Weight) -> int:
    """Bytes of a weight as ComfyUI loads it: quantised ones as they are, larger numbers than 16 bits as bf16."""
    stored = weight.stored
    return math.prod(weight.shape) * 2 if stored.dtype.itemsize > 2 else math.prod(stored.shape) * stored.dtype.itemsize


def _dtypes(weights: Iterable[Weight]) -> str:
    """The dtypes of most of the values, in words."""
    counts = Counter[torch.dtype]()
    for weight in weights:
        counts[weight.stored.dtype] += math.prod(weight.shape)
    (most, _), *_ = counts.most_common(1)
    name = str(most).removeprefix("torch.")
    return f"{name}, which is loaded as bfloat16" if most.itemsize > 2 else name


def wished(
    size: ModelSize,
    config: RolloutConfig,
    device: DeviceMemory,
    pixels: tuple[int, int],
    weights: str | None = None,
    seconds: float = 60.0,
) -> tuple[Ledger, Setup]:
    """The ledger of a model, and the setup that a plan begins with.

    Args:
        size: The model.
        config: Rollout settings that are wished for.
        device: The device.
        pixels: Width and height of the video.
        weights: Dtype of the weights, `ITEMSIZE`. None: the file's, or bf16.
        seconds: Length of the video.
    """
    with torch.device("meta"):
        model = CausalWan(size.arch).to(torch.bfloat16)
    decoder = DecoderCost.published(size.arch.in_dim, torch.bfloat16) if size.decodes else None
    nbytes = size.weights
    if nbytes is None or weights is not None:
        nbytes = size.sets * sum(parameter.numel() for parameter in model.parameters()) * ITEMSIZE[weights or "bf16"]
    frames = 1 + math.ceil(seconds * size.fps / (decoder.temporal_factor if decoder else 4))
    return (
        Ledger(model, nbytes, device, spatial_factor=size.factor),
        Setup(config, size.arch.latent_size(*pixels, size.factor), frames=frames, decoder=decoder),
    )

"""Training inside ComfyUI: the teacher from a MODEL, prompts from a CLIP, samples through a VAE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import torch
from comfy.model_management import cast_to_device
from comfy.model_patcher import get_key_weight
from torch import Tensor

from ...sf_core.cancellation import Cancellation
from ...sf_core.files.safetensors_file import open_tensors, write_tensors
from ...sf_core.model.wan import CausalWan
from ...sf_core.training.engine.process_group import Group
from ...sf_core.training.recipe import Recipe
from ...sf_core.training.stages.run_context import RunContext
from ...sf_core.vae.video_vae import VideoVAE
from .latents import OwnLatents
from .model import HostedWan

_DESCRIPTION = "sf.weights"  # in the metadata of the teacher's file


def teacher_file(wan: HostedWan, folder: Path) -> Path:
    """Return the path of the teacher's weights: other weights, another path, and so another training.

    A file that is there already counts if it was written from these weights, in whatever number format.
    """
    for path in sorted(folder.glob("teacher-*.safetensors")):
        description = open_tensors(path)[1].get(_DESCRIPTION)  # not in the files of the first versions
        if wan.is_model(path.stem.removeprefix("teacher-"), json.loads(description) if description else None):
            return path
    path = folder / f"teacher-{wan.fingerprint}.safetensors"
    return path.with_stem(f"{path.stem}-{wan.description()['contents'][:8]}") if path.exists() else path


def write_teacher(wan: HostedWan, path: Path, cancellation: Cancellation) -> None:
    """Write the transformer's weights, with all patches, as a file for `sf_core.load_model`, unless it exists.

    Raises:
        ValueError: The weights are quantised, which cannot be trained over.
    """
    if path.exists():
        return
    dtype = torch.float32 if wan.dtype == torch.float32 else torch.bfloat16
    with torch.device("meta"):
        layout = {name: (tuple(p.shape), dtype) for name, p in CausalWan(wan.arch).named_parameters()}

    def weights() -> Iterator[Tensor]:
        for name in layout:
            cancellation.raise_if_asked()
            yield _patched(wan.patcher, name).to(dtype)

    facts = {_DESCRIPTION: json.dumps(wan.description())}
    facts |= {"sf.num_heads": str(wan.arch.num_heads), "sf.text_len": str(wan.arch.text_len)}
    latent_format = wan.patcher.model.latent_format
    if isinstance(latent_format, OwnLatents):  # the trained model needs it to be played
        facts |= latent_format.metadata()
    write_tensors(path, layout, weights(), facts)


def _patched(patcher: Any, name: str) -> Tensor:
    """Compute a weight with its patches as ComfyUI does, in float32: unpacked, scaled, patched."""
    key = f"diffusion_model.{name}"
    weight, _, convert = get_key_weight(patcher.model, key)
    weight = patcher.backup[key].weight if key in patcher.backup else weight  # before it was patched in place
    if not weight.dtype.is_floating_point:
        raise ValueError(
            f"{name} of this MODEL is packed as {type(weight).__name__} of {weight.dtype}: a quantised file cannot be "
            "trained over. Load the model in bf16, with Load Diffusion Model"
        )
    plain = cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True)
    plain = plain if convert is None else convert(plain, inplace=True)
    return comfy.lora.calculate_weight(patcher.patches[key], plain, name) if key in patcher.patches else plain


class HostRunContext(RunContext):
    """A run whose text encoder and VAE are ComfyUI's.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        group: The processes that train together.
        embeddings: Of every prompt, the negative one included, [1, rows, width].
        vae: Decodes samples. None: no samples are shown.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, group: Group, embeddings: Mapping[str, Tensor], vae: VideoVAE | None
    ) -> None:
        self._embeddings, self._vae = embeddings, vae
        super().__init__(recipe, folder, group)

    def _embed(self, prompt: str) -> Tensor:
        return self._embeddings[prompt]

    def has_network(self, name: str) -> bool:
        """Whether the network called ``name`` is available."""
        return self._vae is not None if name == "vae" else super().has_network(name)

    @property
    def vae(self) -> VideoVAE:  # type: ignore[override]
        """The decoder of samples."""
        assert self._vae is not None
        return self._vae

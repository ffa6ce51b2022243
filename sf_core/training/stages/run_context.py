"""The files, networks and data that the stages of a run share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...files.checkpoint import LATENTS, load_model
from ...files.safetensors_file import open_tensors, read_value
from ...model.identity import weights_fingerprint
from ...model.wan import CausalWan
from ...noise import noise_key
from ...session.frame_counts import video_frames
from ...text.encoders import load_text_encoder
from ...text.umt5 import TextEncoder
from ...text.word_table import TinyText
from ...tiny.words import write_text
from ...tiny.world import World, prompts
from ...vae.loading import load_vae
from ...vae.wan_vae import WanVAE
from ..data.latent_store import ClipSource, EncodeProgress, LatentStore, encode_clips
from ..data.prompts import Prompts
from ..data.video_folder import VideoFolder
from ..engine.lora_adapters import AdaptedWan
from ..engine.process_group import Group
from ..recipe import Recipe

WORLD_PROMPTS = 4096  # captions of the world, as prompts of rollouts
ADAPTED = ("causal", "model", "critic")  # networks that are LoRA files if the recipe trains adapters
CACHED_EMBEDDINGS = 512  # prompts, in memory: some MB each with umT5


class RunContext:
    """The files, networks and data of one run.

    Args:
        recipe: The recipe.
        folder: Folder of the run: ``<name>.safetensors`` for each network, ``latents/``, ``text/``.
        group: The processes that train together; None: this process alone.
    """

    def __init__(self, recipe: Recipe, folder: Path, group: Group | None = None) -> None:
        self.recipe, self.folder, self.group = recipe, folder, group or Group()
        self.device = torch.device(recipe.device)
        self.config: RolloutConfig = recipe.rollout_config
        self.embed = lru_cache(maxsize=CACHED_EMBEDDINGS)(self._embed)

    def generator(self, *address: int) -> torch.Generator:
        """Return a CPU generator that is seeded with the recipe's seed and up to three numbers."""
        return torch.Generator().manual_seed(self.seed(*address))

    def seed(self, *address: int) -> int:
        """Return a seed that depends on the recipe's seed and up to three numbers alone."""
        first, second, third = (*address, 0, 0, 0)[:3]
        return noise_key(self.recipe.seed, first, second, third)

    def autocast(self) -> torch.autocast:
        """Return autocast to the recipe's dtype. It caches no cast weights: the cache would outlive ``no_grad``."""
        half = self.recipe.dtype == "bfloat16"
        # torch warns of each norm whose input has a narrower dtype than its weight; that is intended
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    @property
    def attention(self) -> str:
        """The attention backend of the networks in training."""
        return "matmul" if self.device.type == "cpu" else "auto"

    # Networks -------------------------------------------------------------------------------------------------------

    def network_path(self, name: str) -> Path:
        """Return the path where a stage of this run writes the network ``name``."""
        adapters = self.recipe.lora is not None and name in ADAPTED
        return self.folder / f"{name}{'.lora' if adapters else ''}.safetensors"

    def find_network(self, *names: str) -> Path:
        """Return the path of the first of these networks that a stage has written or the recipe names.

        Raises:
            ValueError: If there is none.
        """
        for name in names:
            for path in (self.network_path(name), getattr(self.recipe.files, name, None)):
                if path is not None and path.exists():
                    return path
        raise ValueError(
            f"there is no {' and no '.join(names)} to begin with: name its file under [files] of the recipe, or put a "
            "stage that makes it before"
        )

    def has_network(self, name: str) -> bool:
        """Return whether a stage has written the network ``name`` or the recipe names an existing file."""
        named = getattr(self.recipe.files, name, None)
        return self.network_path(name).exists() or (named is not None and named.exists())

    def latent_metadata(self) -> dict[str, str]:
        """Return the metadata about latents that are not normalised as Wan's, from the teacher's file or the VAE's."""
        for name in ("teacher", "vae"):
            if not RunContext.has_network(self, name):  # a host decodes with a VAE that is no file
                continue
            tensors, metadata = open_tensors(self.find_network(name))
            if LATENTS in metadata:
                return {LATENTS: metadata[LATENTS]}
            if "mean" in tensors and "std" in tensors:
                facts = {part: read_value(tensors[part]).float().tolist() for part in ("mean", "std")}
                return {LATENTS: json.dumps(facts)}
        return {}

    def transformer(self, *names: str, dtype: torch.dtype = torch.float32, shard: bool = True) -> CausalWan:
        """Load the first of these networks that exists.

        If the recipe trains adapters, all networks but the teacher share the teacher's weights; without a file their
        adapters start with no effect.

        Args:
            names: Names of networks, in order of preference.
            dtype: Dtype of the weights.
            shard: Shard the weights over the processes.

        Raises:
            ValueError: If none exists, or it does not fit the text encoder.
        """
        if self.recipe.lora is not None:
            if names == ("teacher",):
                return self.base
            model = AdaptedWan(self.base, self.recipe.lora, self.recipe.seed)
            adapted = [name for name in names if name != "teacher"]
            if any(map(self.has_network, adapted)):
                model.load_lora(self.find_network(*adapted))
            return model
        return self._load(names, dtype, shard)

    @cached_property
    def base(self) -> CausalWan:
        """The frozen teacher, in the recipe's dtype, whose weights all adapters share."""
        half = self.recipe.dtype == "bfloat16"
        return self._load(("teacher",), torch.bfloat16 if half else torch.float32, shard=False).requires_grad_(False)

    def _load(self, names: Sequence[str], dtype: torch.dtype, shard: bool) -> CausalWan:
        path = self.find_network(*names)
        model = load_model(path, self.device, dtype)
        model.attention = self.attention
        embedding = self.embed(self.recipe.negative)
        if embedding.shape[2] != model.arch.text_dim:
            raise ValueError(
                f"{path} reads prompts of width {model.arch.text_dim}, the text encoder gives {embedding.shape[2]}"
            )
        return self.group.shard(model) if shard else model

    @cached_property
    def vae(self) -> WanVAE:
        """The VAE of an earlier stage or of the recipe."""
        return load_vae(self.find_network("vae"), self.device)

    def drop_networks(self) -> None:
        """Drop the loaded networks, after a stage has written new ones."""
        self.__dict__.pop("vae", None)
        self.__dict__.pop("base", None)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of latents. Raises ValueError if the recipe does not determine it."""
        if self.recipe.latent_size is not None:
            return self.recipe.latent_size
        if self.recipe.world is None:
            raise ValueError("the recipe lacks latent_size = [height, width] (in latents: pixels / 8)")
        side = self.recipe.world.size // self.vae.spatial_factor
        return side, side

    # Text -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _encoder(self) -> TextEncoder:
        if self.recipe.files.text_encoder is not None:
            dtype = torch.bfloat16 if self.recipe.dtype == "bfloat16" else torch.float32
            return load_text_encoder(self.recipe.files.text_encoder, self.device, dtype)
        if self.recipe.world is None:
            raise ValueError("the recipe names no text_encoder under [files]")
        return self.tiny_text.encode

    @cached_property
    def tiny_text(self) -> TinyText:
        """The word table of the world."""
        folder = self.folder / "text"
        folder.mkdir(exist_ok=True)
        write_text(folder, self.recipe.world.seed if self.recipe.world else 0)
        return TinyText(folder / "text.json", folder / "text.safetensors")

    def _embed(self, prompt: str) -> Tensor:
        """Return the embeddings [1, rows, width] of one prompt, on the CPU."""
        with torch.no_grad():
            return self._encoder(prompt).float().cpu()

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Return the embeddings [B, rows, width] of several prompts, padded with zeros to the longest."""
        embeddings = [self.embed(prompt)[0] for prompt in prompts]
        return torch.nn.utils.rnn.pad_sequence(embeddings, batch_first=True).to(self.device)

    # Data -----------------------------------------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> Prompts:
        """The prompts of rollouts."""
        if self.recipe.files.prompts is not None:
            return Prompts.read(self.recipe.files.prompts, self.recipe.seed)
        if self.recipe.world is None:
            raise ValueError("the recipe names no prompts under [files]: a text file, one prompt a line")
        return Prompts(prompts(WORLD_PROMPTS, self.recipe.seed), self.recipe.seed)

    @property
    def sample_prompts(self) -> Sequence[str]:
        """The prompts of samples."""
        return self.recipe.samples.prompts or self.prompts.prompts[:4]

    def world(self, frames: int) -> World:
        """Return clips of ``frames`` video frames. Raises ValueError if the recipe has no world."""
        if self.recipe.world is None:
            raise ValueError("this stage needs a [world] in the recipe")
        return World(self.recipe.world.size, frames, self.recipe.world.clips, self.recipe.world.seed)

    def clips(self) -> tuple[ClipSource, str]:
        """Return the videos to encode, of the training length, and a string that identifies them."""
        recipe, vae = self.recipe, self.vae
        frames = video_frames(recipe.frames, vae.temporal_factor)
        if recipe.files.videos is not None:
            rows, columns = self.latent_size
            size = (rows * vae.spatial_factor, columns * vae.spatial_factor)
            videos = VideoFolder(recipe.files.videos, frames, size, recipe.fps)
            videos.check()
            return videos, videos.fingerprint()
        if recipe.world is None:
            raise ValueError("the recipe has neither videos under [files] nor a [world]; this stage learns from videos")
        return self.world(frames), json.dumps([recipe.world.size, frames, recipe.world.clips, recipe.world.seed])

    def latents(self, progress: EncodeProgress) -> LatentStore:
        """Return the latents of the videos, and encode those that the run's folder does not have yet."""
        source, identity = self.clips()
        key = f"{identity} {weights_fingerprint(self.vae.state_dict().items())}"
        return encode_clips(source, self.vae, self.folder / "latents", key, progress=progress, group=self.group)

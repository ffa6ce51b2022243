"""What the stages of a training work with: the recipe's files, and what earlier stages made."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...files.checkpoint import load_model
from ...hashing import weights_fingerprint
from ...model.wan import CausalWan
from ...noise import noise_key
from ...session.frame_counts import video_frames
from ...text.encoders import TextEncoder, load_text_encoder
from ...text.word_table import TinyText
from ...tiny.words import write_text
from ...tiny.world import World, prompts
from ...vae.wan_vae import WanVAE, load_vae
from ..data.latent_store import ClipSource, LatentStore, Progress, encode_clips
from ..data.prompts import Prompts
from ..data.video_folder import VideoFolder
from ..engine.lora_adapters import AdaptedWan
from ..engine.process_group import Group
from ..recipe import Recipe

WORLD_PROMPTS = 4096  # captions of a world that a rollout is asked for
ADAPTED = ("causal", "model", "critic")  # networks that are LoRA files if the recipe has adapters
KEPT_EMBEDDINGS = 512  # of prompts, in memory: some MB each with umT5


class Parts:
    """``folder`` holds what the run makes: ``<name>.safetensors`` for each network, ``latents/``, ``text/``.

    group: the processes that train together; None: one.
    """

    def __init__(self, recipe: Recipe, folder: Path, group: Group | None = None) -> None:
        self.recipe, self.folder, self.group = recipe, folder, group or Group()
        self.device = torch.device(recipe.device)
        self.config: RolloutConfig = recipe.rollout_config
        self.embed = lru_cache(maxsize=KEPT_EMBEDDINGS)(self._embed)

    def generator(self, *address: int) -> torch.Generator:
        """Draws that depend on the recipe's seed and up to three numbers alone."""
        return torch.Generator().manual_seed(self.seed(*address))

    def seed(self, *address: int) -> int:
        first, second, third = (*address, 0, 0, 0)[:3]
        return noise_key(self.recipe.seed, first, second, third)

    def autocast(self) -> torch.autocast:
        """Arithmetic in the recipe's dtype. Without a cache of cast weights: it would outlive ``no_grad``."""
        half = self.recipe.dtype == "bfloat16"
        # torch says so of every norm whose input was made narrower than its weight; it is meant
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    @property
    def attention(self) -> str:
        return "matmul" if self.device.type == "cpu" else "auto"

    # Networks -------------------------------------------------------------------------------------------------------

    def made(self, name: str) -> Path:
        """Where a stage of this run leaves the network ``name``."""
        adapters = self.recipe.lora is not None and name in ADAPTED
        return self.folder / f"{name}{'.lora' if adapters else ''}.safetensors"

    def find(self, *names: str) -> Path:
        """The first of these networks that a stage has made, or else that the recipe names. Raises ValueError."""
        for name in names:
            for path in (self.made(name), getattr(self.recipe.files, name, None)):
                if path is not None and path.exists():
                    return path
        raise ValueError(
            f"there is no {' and no '.join(names)} to begin with: name its file under [files] of the recipe, or put a "
            "stage that makes it before"
        )

    def has(self, name: str) -> bool:
        named = getattr(self.recipe.files, name, None)
        return self.made(name).exists() or (named is not None and named.exists())

    def transformer(self, *names: str, dtype: torch.dtype = torch.float32, shard: bool = True) -> CausalWan:
        """The first of these that there is; of its weights each process keeps a part, unless ``shard`` is False.

        With adapters, all but the teacher are over the teacher's weights, and begin as these where there is no file.
        """
        if self.recipe.lora is not None:
            if names == ("teacher",):
                return self.base
            model = AdaptedWan(self.base, self.recipe.lora, self.recipe.seed)
            others = [name for name in names if name != "teacher"]
            if any(map(self.has, others)):
                model.load_lora(self.find(*others))
            return model
        return self._bare(names, dtype, shard)

    @cached_property
    def base(self) -> CausalWan:
        """What adapters are over: the teacher, in the recipe's dtype."""
        half = self.recipe.dtype == "bfloat16"
        return self._bare(("teacher",), torch.bfloat16 if half else torch.float32, shard=False).requires_grad_(False)

    def _bare(self, names: Sequence[str], dtype: torch.dtype, shard: bool) -> CausalWan:
        path = self.find(*names)
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
        return load_vae(self.find("vae"), self.device)

    def forget(self) -> None:
        """Read networks anew from now on: a stage has made some."""
        self.__dict__.pop("vae", None)
        self.__dict__.pop("base", None)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of latents. Raises ValueError if the recipe does not say it."""
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
        """The world's table of words."""
        folder = self.folder / "text"
        folder.mkdir(exist_ok=True)
        write_text(folder, self.recipe.world.seed if self.recipe.world else 0)
        return TinyText(folder / "text.json", folder / "text.safetensors")

    def _embed(self, prompt: str) -> Tensor:
        """Embeddings [1, rows, width] of one prompt, on the CPU."""
        with torch.no_grad():
            return self._encoder(prompt).float().cpu()

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [B, rows, width] of several, filled up with zeros to the longest."""
        embeddings = [self.embed(prompt)[0] for prompt in prompts]
        return torch.nn.utils.rnn.pad_sequence(embeddings, batch_first=True).to(self.device)

    # Data -----------------------------------------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> Prompts:
        """What rollouts are asked for."""
        if self.recipe.files.prompts is not None:
            return Prompts.read(self.recipe.files.prompts, self.recipe.seed)
        if self.recipe.world is None:
            raise ValueError("the recipe names no prompts under [files]: a text file, one prompt a line")
        return Prompts(prompts(WORLD_PROMPTS, self.recipe.seed), self.recipe.seed)

    @property
    def shown_prompts(self) -> Sequence[str]:
        return self.recipe.samples.prompts or self.prompts.prompts[:4]

    def world(self, frames: int) -> World:
        """Clips of ``frames`` (not latent ones). Raises ValueError if the recipe has no world."""
        if self.recipe.world is None:
            raise ValueError("this stage needs a [world] in the recipe")
        return World(self.recipe.world.size, frames, self.recipe.world.clips, self.recipe.world.seed)

    def clips(self) -> tuple[ClipSource, str]:
        """The videos to encode, of the training length, and what they are, in words."""
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

    def latents(self, progress: Progress) -> LatentStore:
        """The videos as latents: encoded now, if that is not done yet."""
        source, words = self.clips()
        key = f"{words} {weights_fingerprint(self.vae.state_dict().items())}"
        return encode_clips(source, self.vae, self.folder / "latents", key, progress=progress, group=self.group)

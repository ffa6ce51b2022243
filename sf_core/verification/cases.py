"""Recorded cases: a rollout of each family with a tiny model, and the latents that it has to give.

The model's weights are drawn from a seed, so a case is small: `python -m tools.assets.verification_cases` plays every
case in float32 on a CPU and writes ``cases.safetensors``, after it has held the pack against the authors' own code
where runs of that code are recorded (tests/parity).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import RolloutConfig
from ..files.published_models import PUBLISHED_MODELS, WAN22_CHANNELS
from ..files.safetensors_file import open_tensors
from ..hashing import digest
from ..model.architecture import WanArchitecture
from ..model.causal_model import CausalModel
from ..model.two_sets import memory_name
from ..model.wan import CausalWan
from ..session.next_chunk import Progress
from ..session.record import SessionRecord
from ..session.session import Session

FILE = Path(__file__).with_name("cases.safetensors")
TWO_SETS = "SGF+"  # begins the names of the models with two sets of weights
SIZE = (4, 6)  # height and width of the latents: 6 tokens a frame
KEPT_CHANNELS = 4  # of the latents that are recorded
SEED = 7  # of the noise
_SHARPNESS = 1.4  # weights of the norms of queries and keys: attention is peaked, so it minds positions


@dataclass(frozen=True)
class Case:
    """A rollout with a tiny model.

    Attributes:
        name: Of the published model whose settings it has; the first of several with the same settings.
        config: These settings.
        channels: Of the latents.
        two_sets: Whether one set of weights denoises and another writes the cache.
        also: Names of the other models with these settings.
    """

    name: str
    config: RolloutConfig
    channels: int
    two_sets: bool
    also: tuple[str, ...] = ()

    @property
    def chunks(self) -> int:
        """Chunks that are sampled."""
        return chunks_until_rolled(self.config)

    @property
    def switch(self) -> str:
        """What happens on the way: ``joint``, LongLive's change of the prompt; ``shot``, LongLive 2's; or nothing."""
        if self.config.shot_offset:
            return "shot"
        return "joint" if self.name.startswith("LongLive") else ""

    @property
    def arch(self) -> WanArchitecture:
        """Sizes of the tiny model."""
        return WanArchitecture(
            dim=64,
            ffn_dim=128,
            num_layers=3,
            num_heads=2,
            text_dim=16,
            text_len=8,
            freq_dim=32,
            in_dim=self.channels,
            out_dim=self.channels,
        )

    def weights(self) -> dict[str, Tensor]:
        """The weights of the tiny model by their published names, float32."""
        with torch.device("meta"):
            shapes = {name: weight.shape for name, weight in CausalWan(self.arch).named_parameters()}
        state = {name: _weight(name, shape) for name, shape in shapes.items()}
        if self.two_sets:
            state |= {memory_name(name): _weight(memory_name(name), shape) for name, shape in shapes.items()}
        return state

    def write_model(self, path: Path) -> None:
        """Write the tiny model as a checkpoint with its settings."""
        facts = {
            "sf.num_heads": str(self.arch.num_heads),
            "sf.text_len": str(self.arch.text_len),
            "sf.rollout": json.dumps(self.config.as_dict()),
        }
        save_file(self.weights(), path, facts)

    def play(
        self,
        model: CausalModel,
        progress: Progress | None = None,
        ready: Callable[[Session], object] = lambda session: None,
        **changes: Any,
    ) -> Tensor:
        """Play the case.

        Args:
            model: The tiny model, loaded.
            progress: Called before every forward.
            ready: Called with the session before each chunk.
            **changes: Other values of settings, with which it is another case.

        Returns:
            The recorded part of the latents, float32 on the CPU.
        """
        config = replace(self.config, **changes)
        session = Session.start(model, self._prompt(0), SIZE, config, seed=SEED, reencode=self._reencode)
        for chunk in range(self.chunks):
            if chunk == self.chunks // 2:
                session = self._switched(session)
            ready(session)
            session, _ = session.next_chunk(progress)
        if config.schedule == "rolling":
            session, _ = session.finish(progress)
        kept = session.latents[:, :: self.channels // KEPT_CHANNELS]
        return kept.to("cpu", torch.float32).contiguous()

    def _reencode(self, session: SessionRecord) -> Tensor:
        """Stand in for the VAE, which the tiny model has not: of Krea, see `Session.start`."""
        return uniform_values(f"context {session.chunks}", (1, self.channels, 1, *SIZE))

    def _switched(self, session: Session) -> Session:
        if self.switch == "joint":
            return session.with_prompt(self._prompt(1), recache="joint")
        return session.with_shot(self._prompt(1)) if self.switch == "shot" else session

    def _prompt(self, number: int) -> Tensor:
        return uniform_values(f"prompt {number}", (1, 5, self.arch.text_dim))


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a case.

    Attributes:
        latents: What `Case.play` gave in float32 on a CPU.
        authors: Largest relative L2 distance of this pack to the authors' own code, in the recorded runs of that code
            with this family's rules. None: no such run is recorded.
        runs: Names of these runs.
    """

    latents: Tensor
    authors: float | None
    runs: tuple[str, ...]


def chunks_until_rolled(config: RolloutConfig) -> int:
    """Count the chunks of a video in which every rule has acted: the window has rolled, the bank has had to choose."""
    frames = max(config.window_frames or 0, config.trained_frames or 0)
    rolled = -(-frames // config.chunk_frames) + 3
    bank = (config.memory_frames + 1) * config.memory_interval if config.memory_frames else 0
    return max(4, rolled, bank)


@cache
def cases() -> tuple[Case, ...]:
    """All cases: one for each published model, or for all of the same settings."""
    found: dict[tuple[object, ...], Case] = {}
    for model in PUBLISHED_MODELS:
        if model.config is None or model.ask:
            continue
        two_sets = model.name.startswith(TWO_SETS)
        key = (model.config, model.channels, two_sets)
        if key in found:
            found[key] = replace(found[key], also=(*found[key].also, model.name))
        else:
            found[key] = Case(model.name, model.config, model.channels, two_sets)
    return tuple(found.values())


def case_for(config: RolloutConfig, channels: int, two_sets: bool) -> Case | None:
    """Return the case with these settings; None: none is recorded.

    Args:
        config: Settings of a model.
        channels: Of its latents.
        two_sets: Whether it has two sets of weights.
    """
    wan22 = channels == WAN22_CHANNELS
    fitting = (case for case in cases() if case.config == config and case.two_sets == two_sets)
    return next((case for case in fitting if (case.channels == WAN22_CHANNELS) == wan22), None)


def recorded(case: Case) -> Recorded:
    """Read what is recorded of a case."""
    tensors, metadata = open_tensors(FILE)
    facts = json.loads(metadata[case.name])
    return Recorded(tensors[case.name].read(), facts["authors"], tuple(facts["runs"]))


def _weight(name: str, shape: torch.Size) -> Tensor:
    """Draw a weight such that activations neither die out nor explode."""
    values = uniform_values(name, tuple(shape))
    plain = name.replace("memory_", "")
    if "norm" in plain and plain.endswith("weight"):
        centre = _SHARPNESS if "norm_" in plain else 1.0
        return centre + 0.1 * values
    if plain.endswith("bias"):
        return 0.1 * values
    return values * (0.7 if "modulation" in plain else (values[0].numel()) ** -0.5)


def uniform_values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw values from -1.5 to 1.5 from a seed that the name makes; the same bits on every machine."""
    seed = int.from_bytes(digest(name.encode())[:4], "little")
    generator = torch.Generator("cpu").manual_seed(seed)
    return 3 * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") - 1.5

"""The self-rollout of training: the generator makes a whole video from its own output, as it will at inference.

The chunk loop, the window, the sink and the schedule are those of inference (session/sampler.py, `CacheShape`). What
training adds is where the gradient goes. Each chunk leaves its denoising at a random step, and that step alone has a
gradient; the pass that writes a chunk's clean keys and values has none, so nothing flows into earlier chunks. Memory
therefore does not grow with the number of steps. Source: Self Forcing (arXiv 2506.08009), section 3.2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..model.forward import LayerAttention, WanForward
from ..model.kv_cache import KeysValues, Place
from ..model.rope import rope_rotations
from ..noise import NoiseSource
from ..schedule import TRAIN_STEPS, flow_schedule
from ..session.sampler import sample_chunk
from ..vae.wan_vae import VideoVAE
from .kv_record import KVRecord, Pieces

CLIP_FRAMES = 21  # latent frames that the losses see, and that have a gradient: what Wan 2.1 was trained on
KV_GRADIENTS = ("detached", "straight-through")


@dataclass(frozen=True)
class Rollout:
    """A video that the generator made.

    latents: [B, C, F, H, W], float32; of a video longer than the clip, its last frames.
    gradient_mask: bool, shaped like latents: where a loss may look. None: everywhere.
    timestep_from, timestep_to: nominal timesteps between which the exit step denoises (500 -> 250; the last -> 0).
        None if chunks left at different steps.
    exit_step: index of the denoising step whose output each chunk is; a list, one a chunk, if they were drawn so.
    """

    latents: Tensor
    gradient_mask: Tensor | None
    timestep_from: int | None
    timestep_to: int | None
    exit_step: int | list[int]

    def detach(self) -> Rollout:
        """The same video without its gradient."""
        return Rollout(self.latents.detach(), self.gradient_mask, self.timestep_from, self.timestep_to, self.exit_step)


def rollout(
    generator: WanForward,
    prompt: Tensor,
    noise: Tensor | NoiseSource,
    config: RolloutConfig,
    exit_step: int | Sequence[int] | None = None,
    frames: int = CLIP_FRAMES,
    context: Tensor | None = None,
    rng: torch.Generator | NoiseSource | None = None,
    *,
    vae: VideoVAE | None = None,
    clip_frames: int = CLIP_FRAMES,
    kv_gradient: str = "detached",
    latent_size: tuple[int, int] | None = None,
) -> Rollout:
    """Roll out ``frames`` latent frames, the context included, with gradient where training wants it.

    prompt: text embeddings [B or 1, rows, text_dim].
    noise: the initial noise [B, C, frames - context, H, W]; or a NoiseSource, which gives that and all the rest: chunks
        count from 0, step k > 0 is what is added before denoising step k, and the step after the exit step is what the
        clean chunk is noised with before its keys and values are written (by the smallest sigma of the schedule, where
        ``context_noise`` is 0: training differs from inference there, as in the reference).
    exit_step: an index into the denoising steps, a list (one a chunk), or None: drawn once for all, from ``rng`` if it
        is a generator, else from torch's global one.
    context: latents [B or 1, C, f, H, W] that the video begins with (image-to-video: one frame).
    rng: where what is not given comes from: a CPU generator, or a NoiseSource for the noise; None: torch's global one.
    vae: for frames > clip_frames. The clip's first latent then is the video's frame at that place, encoded as an image,
        because the first latent of a video stands for one frame. None: the latents as they are, which is right only
        for a VAE that does not compress time.
    clip_frames: how many of the last frames the losses see; only chunks that lie in them have a gradient.
    kv_gradient: ``detached``: nothing flows into earlier chunks' keys and values, as the paper says.
        ``straight-through``: it does, through those of the exit step, as the reference's code happens to do.
    latent_size: (height, width), if neither noise nor context shows it and the generator names none.
    Raises ValueError for sizes that do not fit, naming what would.
    """
    if kv_gradient not in KV_GRADIENTS:
        raise ValueError(f"kv_gradient is {kv_gradient!r}; expected one of {', '.join(KV_GRADIENTS)}")
    size = _latent_size(generator, noise, context, latent_size)
    batch = noise.shape[0] if isinstance(noise, Tensor) else max(len(prompt), 1 if context is None else len(context))
    generator.check_text(prompt)
    shape = (batch, generator.arch.in_dim, *size)
    given_frames = 0 if context is None else context.shape[2]
    places = places_of(config, frames, given_frames)
    _check_shapes(shape, frames, prompt, noise, context)
    sampled = [place for place in places if place.start >= given_frames]
    draws = _Draws(noise, rng, shape, given_frames)
    exits = _exit_steps(exit_step, rng, len(config.denoising_steps), len(sampled))

    passes = _Passes(generator, prompt.expand(batch, -1, -1), config, size, kv_gradient == "straight-through")
    parts = []
    for place in places:
        if place not in sampled:
            assert context is not None
            given = context[:, :, place.start : place.end].expand(batch, -1, -1, -1, -1)
            parts.append(given.to(generator.device, torch.float32))
            passes.write(place, parts[-1], 0.0)
            continue
        chunk = sampled.index(place)
        parts.append(passes.sample(place, draws, chunk, exits[chunk], place.start >= frames - clip_frames))
    latents = torch.cat(parts, dim=2)
    same = len(set(exits)) == 1
    t_from, t_to = _nominal_timesteps(config, exits[0]) if same else (None, None)
    resolved = exits[0] if exit_step is None or isinstance(exit_step, int) else exits
    clip, mask = (latents, None) if frames <= clip_frames else _clip(latents, config, vae, clip_frames)
    return Rollout(clip, mask, t_from, t_to, resolved)


class _Passes:
    """The passes of one generator over one video: the past that they see, and where a gradient is taken."""

    def __init__(
        self, model: WanForward, text: Tensor, config: RolloutConfig, size: tuple[int, int], straight_through: bool
    ) -> None:
        model.use_attention()
        self._model, self._config, self._size = model, config, size
        self._straight_through = straight_through
        self._text = model.text_keys_values(text)
        self._shape = model.cache_shape(config, size, text.shape[0])
        self._record = KVRecord(self._shape)

    def sample(self, place: Place, draws: _Draws, chunk: int, exit_step: int, with_gradient: bool) -> Tensor:
        """The chunk at ``place``, as its step ``exit_step`` predicts it; then its clean keys and values."""
        config, schedule = self._config, flow_schedule(self._config.shift)
        steps = config.timesteps(place.start)
        exit_step = min(exit_step, len(steps) - 1)
        pass_ = _Pass(self, place)

        def predict(x: Tensor, timestep: float) -> Tensor:
            wanted = with_gradient and timestep == steps[exit_step] and torch.is_grad_enabled()
            with torch.set_grad_enabled(wanted):
                return pass_.flow(x, timestep)

        def noise(step: int) -> Tensor:
            return draws(chunk, step, place).to(self._model.device, torch.float32)

        latents = sample_chunk(predict, noise, steps[: exit_step + 1], schedule)
        timestep = float(config.context_noise)
        noisy = schedule.add_noise(latents.detach(), noise(exit_step + 1), timestep)
        self.write(place, noisy, timestep, pass_.newest if self._straight_through and latents.requires_grad else None)
        return latents

    def write(self, place: Place, latents: Tensor, timestep: float, through: list[KeysValues] | None = None) -> None:
        """The pass over clean latents whose keys and values later chunks see; without a gradient.

        through: keys and values that get the gradient of these.
        """
        pass_ = _Pass(self, place)
        with torch.no_grad():
            pass_.write(latents, timestep)
        layers = pass_.newest
        if through is not None:
            layers = [
                (k + (exit_k - exit_k.detach()), v + (exit_v - exit_v.detach()))
                for (k, v), (exit_k, exit_v) in zip(layers, through, strict=True)
            ]
        self._record.commit(place, layers)


class _Pass:
    """Forwards over one chunk: its own keys and values are the ones at hand, never written in place."""

    def __init__(self, passes: _Passes, place: Place) -> None:
        self._model, self._text = passes._model, passes._text
        self._keep_flow = passes._straight_through
        self._past: list[Pieces] = passes._record.past(place)
        rows, columns = self._model.arch.token_grid(passes._size)
        frames = range(place.start, place.end)
        self._rotations = rope_rotations(frames, rows, columns, self._model.arch.head_dim, self._model.device)
        self.newest: list[KeysValues] = []  # the chunk's own, by layer, of the newest forward that keeps them

    def flow(self, x: Tensor, timestep: float) -> Tensor:
        attend = self._attention(self._keep_flow)
        return self._model.flow_with(x, self._at(x, timestep), self._rotations, self._text, attend)

    def write(self, x: Tensor, timestep: float) -> None:
        attend = self._attention(True)
        self._model.write_with(x, self._at(x, timestep), self._rotations, self._text, attend)

    def _attention(self, keep: bool) -> LayerAttention:
        model, past = self._model, self._past
        own: list[KeysValues] = []
        self.newest = own

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k = k.to(v.dtype)  # autocast leaves a norm wider than what attention then takes
            if keep and layer == len(own):  # not when checkpointing computes the layer again
                own.append((k, v))
            keys, values = past[layer]
            return model.attend(layer, q, torch.cat([k, *keys], 1), torch.cat([v, *values], 1)) if q.shape[1] else q

        return attend

    @staticmethod
    def _at(x: Tensor, timestep: float) -> Tensor:
        return torch.full((x.shape[0], 1), timestep, dtype=torch.float32, device=x.device)


class _Draws:
    """The noise of a rollout, from wherever the caller has it come."""

    def __init__(
        self, noise: Tensor | NoiseSource, rng: torch.Generator | NoiseSource | None, shape: tuple[int, ...], given: int
    ) -> None:
        """shape: [B, C, height, width]; given: frames of context before the initial noise."""
        self._noise, self._rng, self._shape, self._given = noise, rng, shape, given

    def __call__(self, chunk: int, step: int, place: Place) -> Tensor:
        shape = (*self._shape[:2], place.frames, *self._shape[2:])
        if isinstance(self._noise, Tensor):
            if step == 0:
                return self._noise[:, :, place.start - self._given : place.end - self._given]
            if self._rng is None or isinstance(self._rng, torch.Generator):
                return torch.randn(shape, generator=self._rng)
        source = self._rng if isinstance(self._noise, Tensor) else self._noise
        assert callable(source)
        drawn = source(chunk, step, shape)
        if tuple(drawn.shape) != shape:
            raise ValueError(f"the noise source gave {list(drawn.shape)} for chunk {chunk}; expected {list(shape)}")
        return drawn


def _latent_size(
    generator: WanForward, noise: Tensor | NoiseSource, context: Tensor | None, given: tuple[int, int] | None
) -> tuple[int, int]:
    for shown in (noise, context):
        if isinstance(shown, Tensor):
            return shown.shape[-2], shown.shape[-1]
    size = given or generator.latent_size
    if size is None:
        raise ValueError("latent_size is missing: neither noise nor context shows it, and this model names none")
    return size


def _check_shapes(
    shape: tuple[int, ...], frames: int, prompt: Tensor, noise: Tensor | NoiseSource, context: Tensor | None
) -> None:
    """shape: [B, C, height, width] of the video of ``frames``. Raises ValueError for what does not fit it."""
    batch, channels, height, width = shape
    given = 0 if context is None else context.shape[2]
    if given >= frames:
        raise ValueError(f"frames is {frames}, of which {given} are context: none is left to make; raise frames")
    if len(prompt) not in (1, batch):
        raise ValueError(f"prompt embeddings for {len(prompt)} videos, but the batch is {batch}; expected 1 or {batch}")
    for name, tensor, count, batches in (
        ("noise", noise, frames - given, {batch}),
        ("context", context, given, {1, batch}),
    ):
        if isinstance(tensor, Tensor):
            expected = (channels, count, height, width)
            if tensor.shape[0] not in batches or tuple(tensor.shape[1:]) != expected:
                raise ValueError(
                    f"{name} has the shape {list(tensor.shape)}; expected {[batch, *expected]}: {frames} latent "
                    f"frames, of which {given} are context"
                )


def places_of(config: RolloutConfig, frames: int, context: int) -> list[Place]:
    """Where the blocks of a video of ``frames`` lie, those of its context first."""
    for name, count in (("latent frames", frames), ("latent frames of context", context)):
        config.check_frames(count, name)
    places: list[Place] = []
    while (start := places[-1].end if places else 0) < frames:
        places.append(Place(start, config.frames_of_block(start), 0, config.sink_frames))
    return places


def _exit_steps(
    given: int | Sequence[int] | None, rng: torch.Generator | NoiseSource | None, steps: int, chunks: int
) -> list[int]:
    if given is None:
        generator = rng if isinstance(rng, torch.Generator) else None
        given = int(torch.randint(steps, (1,), generator=generator))
    exits = [given] * chunks if isinstance(given, int) else [int(step) for step in given]
    if len(exits) != chunks or not all(0 <= step < steps for step in exits):
        raise ValueError(f"exit_step is {given}; expected an index below {steps}, or {chunks} of them, one a chunk")
    return exits


def _nominal_timesteps(config: RolloutConfig, exit_step: int) -> tuple[int, int]:
    """The timesteps that the exit step goes from and to, before they were warped."""
    table, steps = flow_schedule(config.shift).timesteps, config.timesteps(config.frames_of_block(0))
    nominal = [TRAIN_STEPS - int(torch.argmin((table - step).abs())) for step in steps] + [0]
    return nominal[exit_step], nominal[exit_step + 1]


def _clip(latents: Tensor, config: RolloutConfig, vae: VideoVAE | None, clip_frames: int) -> tuple[Tensor, Tensor]:
    """The last ``clip_frames`` of a longer video, the first of them encoded anew, and where a loss may look."""
    at = latents.shape[2] - clip_frames
    first = latents[:, :, at : at + 1].detach()
    if vae is not None:
        with torch.no_grad():
            decoder = vae.stream_decoder()
            before = latents[:, :, max(0, at - decoder.history) : at].detach()
            frame = decoder(first, at=at, history=before)[:, -1:]
            first = vae.encode(frame).to(latents)
    mask = torch.ones(clip_frames, dtype=torch.bool, device=latents.device)
    mask[: config.frames_of_block(0)] = False
    clip = torch.cat([first, latents[:, :, at + 1 :]], dim=2)
    return clip, mask[:, None, None].expand_as(clip)

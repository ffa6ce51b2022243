"""The self-rollout of training: the generator makes a whole video from its own output, as it will at inference.

The chunk loop, the window, the sink and the schedule are those of inference (session/sampler.py, `CacheShape`).
Training adds the gradient. Each chunk's denoising ends at a random exit step, and that step alone has a gradient. The
pass that writes a chunk's clean keys and values has none, so no gradient flows into earlier chunks. Memory therefore
does not grow with the number of steps. Source: Self Forcing (arXiv 2506.08009), section 3.2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..model.forward import LayerAttention, WanForward
from ..model.layer_view import KeysValues
from ..model.place import Place
from ..model.rope import rope_rotations
from ..noise import NoiseSource
from ..rollout_rules import check_trainable
from ..schedule import TRAIN_STEPS, flow_schedule
from ..session.sampler import sample_chunk
from ..vae.video_vae import VideoVAE
from .kv_record import KVRecord, Pieces

CLIP_FRAMES = 21  # latent frames that the losses see and that have a gradient: Wan 2.1's training length
KV_GRADIENTS = ("detached", "straight-through")


@dataclass(frozen=True)
class Rollout:
    """A video that the generator made.

    Attributes:
        latents: [B, C, F, H, W], float32; the last frames of a video that is longer than the clip.
        gradient_mask: Bool, shaped like ``latents``: where a loss counts. None: everywhere.
        timestep_from: Nominal timestep before the exit step. None if the chunks have different exit steps.
        timestep_to: Nominal timestep after the exit step (500 -> 250; the last step -> 0), or None as above.
        exit_step: Index of the denoising step whose output each chunk is; a list with one index per chunk if they were
            given so.
    """

    latents: Tensor
    gradient_mask: Tensor | None
    timestep_from: int | None
    timestep_to: int | None
    exit_step: int | list[int]

    def detach(self) -> Rollout:
        """Return the same video without its gradient."""
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
    prompt_before: Tensor | None = None,
) -> Rollout:
    """Roll out ``frames`` latent frames, the context included, with the gradient that training needs.

    Args:
        generator: The causal model to train.
        prompt: Text embeddings [B or 1, rows, text_dim].
        noise: The initial noise [B, C, frames - context, H, W]; or a `NoiseSource` for all noise. It is called with the
            chunk, counted from 0, and the step. Step 0 is the initial noise, step k > 0 is added before denoising step
            k, and the step after the exit step is added to the clean chunk before its keys and values are written
            (where ``context_noise`` is 0, at the smallest sigma of the schedule: training differs from inference here,
            as in the reference).
        config: Rollout settings.
        exit_step: Index of a denoising step, or a list with one per chunk. None draws one for all chunks, from ``rng``
            if that is a generator, else from torch's global one.
        frames: Latent frames of the video, the context included.
        context: Latents [B or 1, C, f, H, W] at the beginning of the video (image-to-video: one frame).
        rng: Source of all that is not given: a CPU generator, or a `NoiseSource` for the noise; None: torch's global
            generator.
        vae: Needed for ``frames`` > ``clip_frames``. The first latent of a video stands for one frame, so the clip's
            first latent is decoded and encoded again as an image. None keeps it as it is, which is right only for a VAE
            that does not compress time.
        clip_frames: Number of last frames that the losses see; only chunks inside the clip have a gradient.
        kv_gradient: ``detached``: no gradient flows into earlier chunks' keys and values, as in the paper.
            ``straight-through``: it flows through the keys and values of the exit step, as in the reference's code.
        latent_size: (height, width); needed if neither noise nor context has it and the generator names none.
        prompt_before: Text embeddings of another prompt for the frames before the clip. The clip then begins with a
            switch to ``prompt`` as `Session.with_prompt` makes it, without recache. None: ``prompt``.

    Raises:
        ValueError: For sizes that do not fit together, naming the expected ones.
    """
    if kv_gradient not in KV_GRADIENTS:
        raise ValueError(f"kv_gradient is {kv_gradient!r}; expected one of {', '.join(KV_GRADIENTS)}")
    check_trainable(config)
    if generator.writer is not generator:
        raise ValueError(
            "this model has two sets of weights (SGF+), which training does not know: train one of one set"
        )
    size = _latent_size(generator, noise, context, latent_size)
    batch = noise.shape[0] if isinstance(noise, Tensor) else max(len(prompt), 1 if context is None else len(context))
    generator.check_text(prompt)
    shape = (batch, generator.arch.in_dim, *size)
    context_frames = 0 if context is None else context.shape[2]
    places = block_places(config, frames, context_frames)
    _check_shapes(shape, frames, prompt, noise, context)
    if prompt_before is not None:
        generator.check_text(prompt_before)
        _check_switch(config, frames, clip_frames, shape, prompt_before)
    sampled = [place for place in places if place.start >= context_frames]
    rollout_noise = _RolloutNoise(noise, rng, shape, context_frames)
    exits = _exit_steps(exit_step, rng, len(config.denoising_steps), len(sampled))

    passes = _Passes(generator, batch, config, size, kv_gradient == "straight-through")
    begins = frames - clip_frames  # the clip
    passes.follow(prompt if prompt_before is None else prompt_before)
    blocks = []
    for place in places:
        if prompt_before is not None and place.start == begins:
            passes.follow(prompt)
        if place not in sampled:
            assert context is not None
            block = context[:, :, place.start : place.end].expand(batch, -1, -1, -1, -1)
            blocks.append(block.to(generator.device, torch.float32))
            passes.write(place, blocks[-1], 0.0)
            continue
        chunk = sampled.index(place)
        blocks.append(passes.sample(place, rollout_noise, chunk, exits[chunk], place.start >= begins))
    latents = torch.cat(blocks, dim=2)
    same = len(set(exits)) == 1
    t_from, t_to = _nominal_timesteps(config, exits[0]) if same else (None, None)
    resolved = exits[0] if exit_step is None or isinstance(exit_step, int) else exits
    clip, mask = (latents, None) if frames <= clip_frames else _clip(latents, config, vae, clip_frames)
    return Rollout(clip, mask, t_from, t_to, resolved)


class _Passes:
    """The passes of one generator over one video: their keys and values, and where a gradient is taken."""

    def __init__(
        self, model: WanForward, batch: int, config: RolloutConfig, size: tuple[int, int], straight_through: bool
    ) -> None:
        model.use_attention()
        self._model, self._config, self._size = model, config, size
        self._straight_through = straight_through
        self._text: list[KeysValues] = []
        self._shape = model.cache_shape(config, size, batch)
        self._record = KVRecord(self._shape)

    def follow(self, text: Tensor) -> None:
        """Take a prompt for the chunks from now on: embeddings [B or 1, rows, text_dim]."""
        self._text = self._model.text_keys_values(text.expand(self._shape.batch, -1, -1))

    def sample(
        self, place: Place, rollout_noise: _RolloutNoise, chunk: int, exit_step: int, with_gradient: bool
    ) -> Tensor:
        """Return the prediction of step ``exit_step`` for the chunk at ``place``; also write its keys and values."""
        config, schedule = self._config, flow_schedule(self._config.shift)
        steps = config.timesteps(chunk)
        exit_step = min(exit_step, len(steps) - 1)
        pass_ = _Pass(self, place)

        def predict(x: Tensor, timestep: float) -> Tensor:
            wanted = with_gradient and timestep == steps[exit_step] and torch.is_grad_enabled()
            with torch.set_grad_enabled(wanted):
                return pass_.flow(x, timestep)

        def noise(step: int) -> Tensor:
            return rollout_noise(chunk, step, place).to(self._model.device, torch.float32)

        latents = sample_chunk(predict, noise, steps[: exit_step + 1], schedule)
        timestep = float(config.context_noise)
        noisy = schedule.add_noise(latents.detach(), noise(exit_step + 1), timestep)
        self.write(place, noisy, timestep, pass_.newest if self._straight_through and latents.requires_grad else None)
        return latents

    def write(self, place: Place, latents: Tensor, timestep: float, through: list[KeysValues] | None = None) -> None:
        """Run the pass over clean latents that makes the keys and values for later chunks, without a gradient.

        Args:
            place: Place of the chunk.
            latents: The clean chunk, with the context noise.
            timestep: Its timestep.
            through: Keys and values of the exit step, to which the gradient is passed straight through.
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
    """Forward passes over one chunk, which attends to its new keys and values and to the recorded ones."""

    def __init__(self, passes: _Passes, place: Place) -> None:
        self._model, self._text = passes._model, passes._text
        self._keep_flow = passes._straight_through
        self._past: list[Pieces] = passes._record.past(place)
        rows, columns = self._model.arch.token_grid(passes._size)
        frames = range(place.start, place.end)
        self._rotations = rope_rotations(frames, rows, columns, self._model.arch.head_dim, self._model.device)
        self.newest: list[KeysValues] = []  # the chunk's keys and values, per layer, of the last forward that kept them

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


class _RolloutNoise:
    """The noise of a rollout, from a tensor, a generator or a `NoiseSource`."""

    def __init__(
        self,
        noise: Tensor | NoiseSource,
        rng: torch.Generator | NoiseSource | None,
        shape: tuple[int, ...],
        context: int,
    ) -> None:
        """Take the source, the video's ``shape`` [B, C, height, width], and its number of ``context`` frames."""
        self._noise, self._rng, self._shape, self._context = noise, rng, shape, context

    def __call__(self, chunk: int, step: int, place: Place) -> Tensor:
        shape = (*self._shape[:2], place.frames, *self._shape[2:])
        if isinstance(self._noise, Tensor):
            if step == 0:
                return self._noise[:, :, place.start - self._context : place.end - self._context]
            if self._rng is None or isinstance(self._rng, torch.Generator):
                return torch.randn(shape, generator=self._rng)
        source = self._rng if isinstance(self._noise, Tensor) else self._noise
        assert callable(source)
        noise = source(chunk, step, shape)
        if tuple(noise.shape) != shape:
            raise ValueError(f"the noise source gave {list(noise.shape)} for chunk {chunk}; expected {list(shape)}")
        return noise


def _latent_size(
    generator: WanForward, noise: Tensor | NoiseSource, context: Tensor | None, latent_size: tuple[int, int] | None
) -> tuple[int, int]:
    for tensor in (noise, context):
        if isinstance(tensor, Tensor):
            return tensor.shape[-2], tensor.shape[-1]
    size = latent_size or generator.latent_size
    if size is None:
        raise ValueError("latent_size is missing: neither noise nor context shows it, and this model names none")
    return size


def _check_shapes(
    shape: tuple[int, ...], frames: int, prompt: Tensor, noise: Tensor | NoiseSource, context: Tensor | None
) -> None:
    """Raise ValueError for tensors that do not fit a video of ``frames`` with ``shape`` [B, C, height, width]."""
    batch, channels, height, width = shape
    context_frames = 0 if context is None else context.shape[2]
    if context_frames >= frames:
        raise ValueError(
            f"frames is {frames}, of which {context_frames} are context: none is left to make; raise frames"
        )
    if len(prompt) not in (1, batch):
        raise ValueError(f"prompt embeddings for {len(prompt)} videos, but the batch is {batch}; expected 1 or {batch}")
    for name, tensor, count, batches in (
        ("noise", noise, frames - context_frames, {batch}),
        ("context", context, context_frames, {1, batch}),
    ):
        if isinstance(tensor, Tensor):
            expected = (channels, count, height, width)
            if tensor.shape[0] not in batches or tuple(tensor.shape[1:]) != expected:
                raise ValueError(
                    f"{name} has the shape {list(tensor.shape)}; expected {[batch, *expected]}: {frames} latent "
                    f"frames, of which {context_frames} are context"
                )


def _check_switch(
    config: RolloutConfig, frames: int, clip_frames: int, shape: tuple[int, ...], prompt_before: Tensor
) -> None:
    """Raise ValueError for a switch of prompts that is not at the beginning of a chunk, or not of these videos."""
    if len(prompt_before) not in (1, shape[0]):
        raise ValueError(
            f"prompt_before is for {len(prompt_before)} videos, but the batch is {shape[0]}; expected 1 or {shape[0]}"
        )
    starts = [place.start for place in block_places(config, frames, 0)]
    if frames - clip_frames not in starts[1:]:
        raise ValueError(
            f"prompt_before is for the frames before the clip, {frames} less {clip_frames}; expected one of "
            f"{starts[1:]}, where a chunk begins"
        )


def block_places(config: RolloutConfig, frames: int, context: int) -> list[Place]:
    """Return the places of the blocks of a video of ``frames`` latent frames, those of its context first."""
    for name, count in (("latent frames", frames), ("latent frames of context", context)):
        config.check_frames(count, name)
    places: list[Place] = []
    while (start := places[-1].end if places else 0) < frames:
        places.append(Place(start, config.frames_of_block(start), 0, config.sink_frames))
    return places


def _exit_steps(
    exit_step: int | Sequence[int] | None, rng: torch.Generator | NoiseSource | None, steps: int, chunks: int
) -> list[int]:
    if exit_step is None:
        generator = rng if isinstance(rng, torch.Generator) else None
        exit_step = int(torch.randint(steps, (1,), generator=generator))
    exits = [exit_step] * chunks if isinstance(exit_step, int) else [int(step) for step in exit_step]
    if len(exits) != chunks or not all(0 <= step < steps for step in exits):
        raise ValueError(f"exit_step is {exit_step}; expected an index below {steps}, or {chunks} of them, one a chunk")
    return exits


def _nominal_timesteps(config: RolloutConfig, exit_step: int) -> tuple[int, int]:
    """Return the timesteps before and after the exit step, without the warp of the schedule."""
    table, steps = flow_schedule(config.shift).timesteps, config.timesteps(config.frames_of_block(0))
    nominal = [TRAIN_STEPS - int(torch.argmin((table - step).abs())) for step in steps] + [0]
    return nominal[exit_step], nominal[exit_step + 1]


def _clip(latents: Tensor, config: RolloutConfig, vae: VideoVAE | None, clip_frames: int) -> tuple[Tensor, Tensor]:
    """Return the last ``clip_frames`` of a longer video, the first one encoded anew, and the gradient mask."""
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

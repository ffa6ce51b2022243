"""The algorithm with lists of frames for a cache: unrotated keys, concatenated and sliced on every forward.

Slow, and written without a look at how the real cache does it.
"""

from __future__ import annotations

import torch
from torch import Tensor

import sf_core
from sf_core.model.forward import BlockPass
from sf_core.model.rope import apply_rope, rope_rotations
from sf_core.schedule import flow_schedule
from tests.helpers import SIZE

ROWS, COLUMNS = SIZE[0] // 2, SIZE[1] // 2
Frame = tuple[int, Tensor, Tensor]  # index, unrotated keys, values


class NaiveRollout:
    def __init__(
        self,
        model: sf_core.CausalWan,
        config: sf_core.RolloutConfig,
        batch: int,
        noise: sf_core.NoiseSource,
        text: Tensor,
    ) -> None:
        model.use_attention()
        self.model, self.config, self.batch, self.noise = model, config, batch, noise
        self.blocks: list[tuple[int, Tensor, float]] = []  # start, latents, context timestep
        self.chunks = 0
        self.offset, self.offsets, self.pin = 0, dict[int, int](), range(0)
        self.set_prompt(text)
        self.cut()

    def set_prompt(self, text: Tensor) -> None:
        self.pairs = self.model.text_keys_values(text.expand(self.batch, -1, -1))

    def cut(self) -> None:
        self.scene, self.pin = self.frames, range(0)
        layers = range(self.model.arch.num_layers)
        self.sink: list[list[Frame]] = [[] for _ in layers]
        self.ring: list[list[Frame]] = [[] for _ in layers]

    @property
    def frames(self) -> int:
        return sum(latents.shape[2] for _, latents, _ in self.blocks)

    @property
    def latents(self) -> Tensor:
        return torch.cat([latents for _, latents, _ in self.blocks], dim=2)

    def give(self, context: Tensor | None) -> None:
        while context is not None and self.frames < context.shape[2]:
            start = self.frames
            self._append(context[:, :, start : start + self.config.frames_of_block(start)], 0.0)

    def sample(self, shot: bool = False) -> None:
        if shot and self.frames:
            self.offset += self.config.shot_offset
            self.pin = range(self.frames, self.frames + self.config.chunk_frames)
        start, schedule = self.frames, flow_schedule(self.config.shift)
        steps = self.config.timesteps(self.chunks)
        shape = (self.batch, 4, self.config.frames_of_block(start), *SIZE)
        x = self.noise(self.chunks, 0, shape)
        for i, step in enumerate(steps):
            x0 = schedule.to_x0(x, self._forward(x, start, step)[0], step)
            if i + 1 < len(steps):
                x = schedule.add_noise(x0, self.noise(self.chunks, i + 1, shape), steps[i + 1])
        self.chunks += 1
        self._append(x0, float(self.config.context_noise))

    def switch(self, text: Tensor, recache: bool, with_sink: bool) -> None:
        self.set_prompt(text)
        if not recache:
            return
        in_ring = {frame for frame, _, _ in self.ring[0]}
        self.ring = [[] for _ in self.ring]
        if with_sink:
            self.sink = [[] for _ in self.sink]
        for start, latents, timestep in self.blocks:
            frames = range(start, start + latents.shape[2])
            windowed = not in_ring.isdisjoint(frames)
            sinking = with_sink and self.scene <= start < self.scene + self.config.sink_frames
            if windowed or sinking:
                self._write(start, latents, timestep, into_sink=with_sink, into_ring=windowed)

    def _append(self, latents: Tensor, timestep: float) -> None:
        self._write(self.frames, latents, timestep)
        self.blocks.append((self.frames, latents, timestep))

    def _write(
        self, start: int, latents: Tensor, timestep: float, into_sink: bool = True, into_ring: bool = True
    ) -> None:
        unit, room = ROWS * COLUMNS, self.config.ring_frames
        for layer, (k, v) in enumerate(self._forward(latents, start, timestep)[1]):
            for i, frame in enumerate(range(start, start + latents.shape[2])):
                entry = (frame, k[:, i * unit : (i + 1) * unit], v[:, i * unit : (i + 1) * unit])
                if frame < self.scene + self.config.sink_frames:
                    if into_sink:
                        self.sink[layer].append(entry)
                elif into_ring:
                    self.ring[layer].append(entry)
            if room is not None and self.config.sink_average is not None:
                self._average(layer, self.ring[layer][: max(0, len(self.ring[layer]) - room)])
            if room is not None:
                self._evict(self.ring[layer], room)

    def _evict(self, ring: list[Frame], room: int) -> None:
        while len(ring) > room:
            pinned = self.pin if self.config.pin_shots else range(0)
            ring.remove(next(entry for entry in ring if entry[0] not in pinned))

    def _average(self, layer: int, leaving: list[Frame]) -> None:
        """Unrotated keys, and values, of what leaves are averaged into the sink: frame by frame, in order."""
        weight = self.config.sink_average or 0.0
        for frame, k, v in leaving:
            at = (frame - self.scene) % self.config.sink_frames
            own, sink_k, sink_v = self.sink[layer][at]
            kept = (own, weight * sink_k + (1 - weight) * k, weight * sink_v + (1 - weight) * v)
            self.sink[layer][at] = kept

    def _forward(self, x: Tensor, start: int, timestep: float) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        model, new = self.model, []

        def turns(frames: list[int]) -> Tensor:
            return rope_rotations(frames, ROWS, COLUMNS, model.arch.head_dim)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            new.append((k, v))
            sink = [entry for entry in self.sink[layer] if entry[0] < start]
            ring = self.ring[layer]
            positions = [frame + self.offsets[frame] for frame, _, _ in sink]
            if self.config.sink_position == "clamped":
                oldest = ring[0][0] if ring else start
                positions = [max(oldest - self.config.sink_frames, self.scene) + j for j in range(len(sink))]
            if self.config.sink_position == "top_aligned":  # all others step back; here the sink steps forward
                beyond = max(0, start + x.shape[2] - self.scene - (self.config.trained_frames or 0))
                positions = [position + beyond for position in positions]
            seen = [*zip(positions, sink, strict=True), *((entry[0] + self.offsets[entry[0]], entry) for entry in ring)]
            keys = [apply_rope(entry[1], turns([position])) for position, entry in seen] + [apply_rope(k, own)]
            values = [entry[2] for _, entry in seen] + [v]
            return model._attention(apply_rope(q, own), torch.cat(keys, 1), torch.cat(values, 1))

        frames = range(start, start + x.shape[2])
        self.offsets |= {frame: self.offsets.get(frame, self.offset) for frame in frames}
        own = turns([frame + self.offsets[frame] for frame in frames])
        embedding, modulations = model.embed_time(torch.full((self.batch, 1), timestep))
        plain = torch.ones_like(own)  # the blocks themselves do not rotate: `attend` does
        tokens = model.run_blocks(model._embed_latents(x), BlockPass(modulations, plain, self.pairs, attend))
        return model._flow(tokens, embedding, x), new

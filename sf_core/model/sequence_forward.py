"""Passes over a whole video without a cache: bidirectional, or block-causal as in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .block_causal import Span, attention_spans, chunk_ends
from .forward import BlockPass, LayerAttention, LayerHook, WanForward
from .rope import rope_rotations


class SequenceForward(WanForward):
    """`WanForward` with passes over whole videos."""

    def predict(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        chunk_frames: int | None = None,
        first_chunk_frames: int | None = None,
        window_frames: int | None = None,
        clean: Tensor | None = None,
        clean_timestep: float | Tensor = 0.0,
    ) -> Tensor:
        """Flow prediction for a whole video, without a cache.

        Args:
            x: Noisy latents [B, C, F, H, W].
            timestep: A scalar, [B] or [B, F].
            text: Prompt embeddings [B or 1, rows, text_dim].
            chunk_frames: None: bidirectional, one timestep a sample. Else block-causal: each frame attends to its own
                chunk and to those before it.
            first_chunk_frames: As in `RolloutConfig`.
            window_frames: As in `RolloutConfig`.
            clean: Clean latents, for teacher forcing: noisy chunks attend to themselves and to the clean chunks before
                them.
            clean_timestep: Timestep of the clean latents, a scalar or [B, F].

        Returns:
            The flow [B, C, F, H, W].

        Raises:
            ValueError: A size does not fit the model.
        """
        attended = chunk_frames, first_chunk_frames, window_frames
        return self.enter(self._predict, x, timestep, text, attended, clean, clean_timestep)

    def _predict(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        attended: tuple[int | None, int | None, int | None],
        clean: Tensor | None,
        clean_timestep: float | Tensor,
    ) -> Tensor:
        chunk_frames, first_chunk_frames, window_frames = attended
        frames = x.shape[2] // self.arch.patch_size[0]
        timestep = timestep if timestep.ndim == 2 else timestep.reshape(-1, 1)
        if chunk_frames is None:
            timestep, ends = timestep[:, :1], [frames]
        else:
            timestep, ends = timestep.expand(-1, frames), chunk_ends(frames, chunk_frames, first_chunk_frames)
        spans = attention_spans(ends, frames, window_frames, clean is not None)
        sequence = x if clean is None else torch.cat([clean, x], dim=2)
        if clean is not None:
            given = torch.as_tensor(clean_timestep, dtype=timestep.dtype, device=timestep.device)
            timestep = torch.cat([given.expand_as(timestep), timestep], dim=1)
        positions = [*range(frames)] * (1 if clean is None else 2)
        tokens, embedding = self._forward_sequence(sequence, positions, timestep, text, spans)
        if clean is not None:
            tokens, embedding = tokens.chunk(2, dim=1)[1], embedding.chunk(2, dim=1)[1]
        return self._flow(tokens, embedding, x)

    def features(self, x: Tensor, timestep: Tensor, text: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Outputs [B, L, dim] of the blocks ``layers`` in a bidirectional pass at ``timestep`` [B]."""
        return self.enter(self._features, x, timestep, text, layers)

    def _features(self, x: Tensor, timestep: Tensor, text: Tensor, layers: Sequence[int]) -> list[Tensor]:
        outputs: list[Tensor] = []

        def collect(layer: int, tokens: Tensor) -> bool:
            if layer in layers:
                outputs.append(tokens)
            return len(outputs) < len(layers)

        frames = x.shape[2] // self.arch.patch_size[0]
        everything = attention_spans([frames], frames, None, False)
        self._forward_sequence(x, range(frames), timestep.reshape(-1, 1), text, everything, collect)
        return outputs

    def _forward_sequence(
        self,
        x: Tensor,
        positions: Sequence[int],
        timestep: Tensor,
        text: Tensor,
        spans: Sequence[Span],
        layer_hook: LayerHook | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens after all blocks, and the embedding of the timesteps [B, f]."""
        self.use_attention()
        self.check_text(text)
        rows, columns = self.arch.token_grid((x.shape[3], x.shape[4]))
        rotations = rope_rotations(positions, rows, columns, self.arch.head_dim, x.device)
        embedding, modulations = self._embed_time(timestep)
        attend = self._attend_in_sequence(spans, rows * columns)
        pairs = self._text_keys_values(text.expand(x.shape[0], -1, -1))
        inputs = BlockPass(modulations, rotations, pairs, attend, layer_hook=layer_hook)
        return self.run_blocks(self._embed_latents(x), inputs), embedding

    def _attend_in_sequence(self, spans: Sequence[Span], frame_tokens: int) -> LayerAttention:
        """Attention inside one sequence: each span of query frames attends to spans of key frames."""

        def tokens(x: Tensor, span: tuple[int, int]) -> Tensor:
            return x[:, span[0] * frame_tokens : span[1] * frame_tokens]

        def join(parts: Sequence[Tensor]) -> Tensor:
            return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            parts = []
            for query, keys in spans:
                ks, vs = (join([tokens(x, span) for span in keys]) for x in (k, v))
                parts.append(self.attend(layer, tokens(q, query), ks, vs))
            return join(parts)

        return attend

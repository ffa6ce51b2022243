"""The mathematics of the Wan 2.1 transformer, over any tree of modules that carries Wan's names.

It only calls modules and never reads a ``.weight``, so a host that gives its modules other weights (quantised,
patched, offloaded) gets them applied.

Shapes: B batch, F latent frames, T tokens a frame, L = F * T tokens ordered frame, row, column, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..config import RolloutConfig
from .architecture import WanArchitecture, timestep_embedding
from .attention import Attention
from .block_causal import Span, attention_spans, chunk_ends
from .cache_pool import CachePool
from .kv_cache import CacheShape, KeysValues
from .rope import apply_rope, rope_rotations

# (layer, q, k, v) -> attention output: what one layer's new keys and values attend to is the caller's affair
LayerAttention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Look = Callable[[int, Tensor], bool]  # (layer, what it gave) -> whether to go on


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * (1 + scale) + shift``: x [B, L, dim], shift and scale [B, f, dim], f frames of equal token count."""
    frames = shift.shape[1]
    return torch.addcmul(shift.unsqueeze(2), x.unflatten(1, (frames, -1)), 1 + scale.unsqueeze(2)).flatten(1, 2)


def _add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """``x + y * gate``, shapes as in `_modulate`."""
    split = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, split), y.unflatten(1, split), gate.unsqueeze(2)).flatten(1, 2)


class WanForward:
    """The forward passes over a tree of modules with Wan's names. Mixed into the class that owns the tree."""

    arch: WanArchitecture
    caches: CachePool
    rollout_config: RolloutConfig | None = None  # what the checkpoint says of itself
    latent_size: tuple[int, int] | None = None
    gradient_checkpointing = False  # where there is a gradient, compute each block again for it: less memory, more time
    blocks: Any  # a sequence of modules, as all below
    patch_embedding: Any
    text_embedding: Any
    time_embedding: Any
    time_projection: Any
    head: Any
    _attention: Attention  # set before each pass

    # What a host may override -------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic and of cached keys and values."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    def bare(self, parameter: Tensor, like: Tensor) -> Tensor:
        """A parameter that belongs to no layer (``modulation``), in the dtype and on the device of ``like``."""
        return parameter.to(like)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of ``layer``, to itself and the past as to the text; all [B, tokens, heads, D]."""
        return self._attention(q, k, v)

    def embed_latents(self, x: Tensor) -> Tensor:
        """Latents [B, C, F, H, W] -> patches [B, dim, F, rows, columns] in `dtype`."""
        return self.patch_embedding(x.to(self.dtype))

    # Parts --------------------------------------------------------------------------------------------------------

    def text_keys_values(self, text: Tensor) -> list[KeysValues]:
        """Cross-attention keys and values of ``text`` [B, rows, text_dim], a pair [B, text_len, heads, D] a layer.

        Rows are filled up with zeros to the text length; the filling is attended, as in Wan.
        """
        rows = text.shape[1]
        text = torch.nn.functional.pad(text.to(self.device, self.dtype), (0, 0, 0, self.arch.text_len - rows))
        context = self.text_embedding(text)
        pairs = (self._text_pair(block, context) for block in self.blocks)
        return [(self._heads(keys), self._heads(values)) for keys, values in pairs]

    def _text_pair(self, block: Any, context: Tensor) -> KeysValues:
        attn = block.cross_attn
        return attn.norm_k(attn.k(context)), attn.v(context)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.arch.num_heads, -1))

    def embed_time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [B, f] -> embedding [B, f, dim] and its six modulation vectors [B, f, 6, dim]."""
        sinusoid = timestep_embedding(timestep, self.arch.freq_dim).to(self.dtype)
        embedding = self.time_embedding(sinusoid)
        return embedding, self.time_projection(embedding).unflatten(-1, (6, -1))

    def _embed_latents(self, x: Tensor) -> Tensor:
        """Latents [B, C, F, H, W] -> tokens [B, L, dim], contiguous: all that follows works along dim."""
        return self.embed_latents(x).flatten(2).transpose(1, 2).contiguous()

    def _unpatchify(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens [B, L, patch * C] -> [B, C, F, H, W] of x's extent, float32."""
        pt, ph, pw = self.arch.patch_size
        f, h, w = x.shape[2] // pt, x.shape[3] // ph, x.shape[4] // pw
        pattern = "b (f h w) (p q r c) -> b c (f p) (h q) (w r)"
        return rearrange(tokens, pattern, f=f, h=h, w=w, p=pt, q=ph, r=pw).float()

    def _blocks(
        self,
        x: Tensor,
        modulations: Tensor,
        rotations: Tensor,
        text: Sequence[KeysValues],
        attend: LayerAttention,
        keys_only: bool = False,
        look: Look = lambda layer, x: True,
    ) -> Tensor:
        """All transformer blocks. With ``keys_only`` the last one stops once `attend` has its keys and values.

        ``look`` is shown what each block gives, and says whether to go on.
        """
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            run = partial(self._block, block, layer, attend=attend, keys_only=keys_only and layer == last)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    run, x, modulations, rotations, text[layer], use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = run(x, modulations, rotations, text[layer])
            if not look(layer, x):
                break
        return x

    def _block(
        self,
        block: Any,
        layer: int,
        x: Tensor,
        modulations: Tensor,
        rotations: Tensor,
        text: KeysValues,
        attend: LayerAttention,
        keys_only: bool,
    ) -> Tensor:
        parts = self.bare(block.modulation, modulations) + modulations  # [B, f, 6, dim]
        attended = attend(layer, *self._to_attention(block, x, parts, rotations, keys_only))
        return x if keys_only else self._from_attention(block, layer, x, attended, parts, text)

    def _to_attention(
        self, block: Any, x: Tensor, parts: Tensor, rotations: Tensor, keys_only: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a block's self-attention; with ``keys_only`` no queries: an empty tensor."""
        attn = block.self_attn
        h = _modulate(block.norm1(x), parts[:, :, 0], parts[:, :, 1])
        k = apply_rope(self._heads(attn.norm_k(attn.k(h))), rotations)
        v = self._heads(attn.v(h))
        q = k[:, :0] if keys_only else apply_rope(self._heads(attn.norm_q(attn.q(h))), rotations)
        return q, k, v

    def _from_attention(
        self, block: Any, layer: int, x: Tensor, attended: Tensor, parts: Tensor, text: KeysValues
    ) -> Tensor:
        """The rest of a block: what self-attention gave is added to ``x``, then the text's attention, then the net."""
        x = _add_gated(x, block.self_attn.o(attended.flatten(2)), parts[:, :, 2])
        cross = block.cross_attn
        q = self._heads(cross.norm_q(cross.q(block.norm3(x))))
        x = x + cross.o(self.attend(layer, q, *text).flatten(2))
        return _add_gated(x, block.ffn(_modulate(block.norm2(x), parts[:, :, 3], parts[:, :, 4])), parts[:, :, 5])

    def _flow(self, tokens: Tensor, embedding: Tensor, x: Tensor) -> Tensor:
        shift, scale = (self.bare(self.head.modulation, embedding).unsqueeze(1) + embedding.unsqueeze(2)).unbind(2)
        return self._unpatchify(self.head.head(_modulate(self.head.norm(tokens), shift, scale)), x)

    # Passes over a cache ------------------------------------------------------------------------------------------

    def flow_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[KeysValues]
    ) -> Tensor:
        """Flow [B, C, F, H, W] of a noisy chunk ``x`` at ``timestep`` [B, 1], attending to itself and the cache.

        ``views``: a layer's keys and values [B, tokens, heads, D] each, the chunk's own places first. They are
        overwritten with the chunk's (noisy) keys and values; the places behind them are only read.
        """
        return self.flow_with(x, timestep, rotations, text, self._over(views))

    def write_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[KeysValues]
    ) -> None:
        """As `flow_over_cache` for a clean chunk, only for the keys and values it leaves in ``views``."""
        self.write_with(x, timestep, rotations, text, self._over(views))

    def flow_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> Tensor:
        """Flow [B, C, F, H, W] of a noisy chunk whose tokens attend to whatever ``attend`` gives them."""
        embedding, modulations = self.embed_time(timestep)
        return self._flow(self._blocks(self._embed_latents(x), modulations, rotations, text, attend), embedding, x)

    def write_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> None:
        """As `flow_with` for a clean chunk, only for the keys and values that ``attend`` is shown."""
        _, modulations = self.embed_time(timestep)
        self._blocks(self._embed_latents(x), modulations, rotations, text, attend, keys_only=True)

    def _over(self, views: Sequence[KeysValues]) -> LayerAttention:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = views[layer]
            keys[:, : k.shape[1]] = k
            values[:, : v.shape[1]] = v
            return self.attend(layer, q, keys, values) if q.shape[1] else q

        return attend

    # Passes without a cache ---------------------------------------------------------------------------------------

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
        """Flow prediction [B, C, F, H, W] for a whole video, without a cache.

        timestep: one, [B] or [B, F]; text: [B or 1, rows, text_dim]. chunk_frames None: bidirectional, one timestep a
        sample. Else block-causal: each frame attends to its own chunk and those before it (``first_chunk_frames`` and
        ``window_frames`` as in `RolloutConfig`). ``clean`` latents (teacher forcing): noisy chunks attend to themselves
        and to the clean chunks before them, which are embedded at ``clean_timestep`` (one, or [B, F]).
        Raises ValueError for sizes that do not fit the model.
        """
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
        tokens, embedding = self._whole(sequence, [*range(frames)] * (1 if clean is None else 2), timestep, text, spans)
        if clean is not None:
            tokens, embedding = tokens.chunk(2, dim=1)[1], embedding.chunk(2, dim=1)[1]
        return self._flow(tokens, embedding, x)

    def features(self, x: Tensor, timestep: Tensor, text: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the blocks ``layers`` give in a bidirectional pass, tokens [B, L, dim] each. timestep: [B]."""
        found: list[Tensor] = []

        def look(layer: int, tokens: Tensor) -> bool:
            if layer in layers:
                found.append(tokens)
            return len(found) < len(layers)

        frames = x.shape[2] // self.arch.patch_size[0]
        everything = attention_spans([frames], frames, None, False)
        self._whole(x, range(frames), timestep.reshape(-1, 1), text, everything, look)
        return found

    def _whole(
        self,
        x: Tensor,
        positions: Sequence[int],
        timestep: Tensor,
        text: Tensor,
        spans: Sequence[Span],
        look: Look = lambda layer, x: True,
    ) -> tuple[Tensor, Tensor]:
        """All blocks over a sequence of frames, and the embedding of its timesteps [B, f]."""
        self.use_attention()
        self.check_text(text)
        rows, columns = self.arch.token_grid((x.shape[3], x.shape[4]))
        rotations = rope_rotations(positions, rows, columns, self.arch.head_dim, x.device)
        embedding, modulations = self.embed_time(timestep)
        attend = self._within(spans, rows * columns)
        pairs = self.text_keys_values(text.expand(x.shape[0], -1, -1))
        return self._blocks(self._embed_latents(x), modulations, rotations, pairs, attend, look=look), embedding

    def _within(self, spans: Sequence[Span], frame_tokens: int) -> LayerAttention:
        """Attention inside one sequence: each span of query frames attends to its own spans of key frames."""

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

    def check_text(self, text: Tensor) -> None:
        """Raises ValueError unless ``text`` is [B, rows, text_dim] with no more rows than the text length."""
        arch = self.arch
        if text.ndim != 3 or text.shape[2] != arch.text_dim:
            raise ValueError(
                f"prompt embeddings have the shape {list(text.shape)}; this model reads "
                f"[batch, rows, {arch.text_dim}]. A last number "
                "of another size means that they come from another model's text encoder"
            )
        if text.shape[1] > arch.text_len:
            raise ValueError(
                f"the prompt has {text.shape[1]} rows of embeddings, this model reads {arch.text_len}: shorten it"
            )

    # What sessions ask of a model ----------------------------------------------------------------------------------

    def use_attention(self) -> None:
        """Settle which attention the following passes call."""
        raise NotImplementedError

    def state_key(self) -> bytes:
        """Changes whenever keys and values made from now on would differ from those made before."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Names the weights, whatever their dtype or file."""
        raise NotImplementedError

    def cache_shape(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int) -> CacheShape:
        """The shape of the cache of a session with these settings."""
        rows, columns = self.arch.token_grid(latent_size)
        return CacheShape(
            layers=self.arch.num_layers,
            batch=batch,
            heads=self.arch.num_heads,
            head_dim=self.arch.head_dim,
            frame_tokens=rows * columns,
            front_frames=config.front_frames,
            sink_frames=config.sink_frames,
            ring_frames=config.ring_frames,
            clamped=config.sink_position == "clamped" and config.sink_frames > 0,
            text_len=self.arch.text_len,
            dtype=self.dtype,
            device=self.device,
        )

    def cache_bytes(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int = 1, frames: int = 0) -> int:
        """Bytes of a session's cache, its prompt's keys and values included, exactly.

        An unbounded window grows with the video; ``frames`` says how long, 0 what it begins with.
        """
        return self.cache_shape(config, latent_size, batch).nbytes(frames)

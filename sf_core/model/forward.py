"""The forward passes of the Wan 2.1 transformer, over any tree of modules with Wan's names.

They call modules and never read a ``.weight``, so a host may give its modules other weights (quantised, patched,
offloaded). Subclasses change the hooks listed in `WanForward`, and nothing else.

Shapes: B batch, F latent frames, T tokens a frame, L = F * T tokens ordered frame, row, column, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..config import RolloutConfig
from .architecture import WanArchitecture, timestep_embedding
from .attention import Attention
from .cache_pool import CachePool
from .cache_shape import CacheShape
from .identity import same_weights
from .layer_view import KeysValues, LayerView
from .rope import apply_rope, rope_rotations

# (layer, q, k, v) -> attention output; the caller decides which past keys and values the new ones join
LayerAttention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
LayerHook = Callable[[int, Tensor], bool]  # (layer, its output) -> whether the next layer is to run


@dataclass(frozen=True)
class BlockPass:
    """Everything that one pass gives to all its blocks, besides the tokens.

    Attributes:
        modulations: six vectors for each frame [B, f, 6, dim].
        rotations: Rotary positions of the tokens.
        text: Cross-attention keys and values, a pair for each layer.
        attend: Self-attention.
        keys_only: The last block stops once ``attend`` has its keys and values.
        layer_hook: Sees the output of each block, and may end the pass.
    """

    modulations: Tensor
    rotations: Tensor
    text: Sequence[KeysValues]
    attend: LayerAttention
    keys_only: bool = False
    layer_hook: LayerHook | None = None


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * (1 + scale) + shift``: x [B, L, dim], shift and scale [B, f, dim], f frames of equal token count."""
    frames = shift.shape[1]
    return torch.addcmul(shift.unsqueeze(2), x.unflatten(1, (frames, -1)), 1 + scale.unsqueeze(2)).flatten(1, 2)


def _add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """``x + y * gate``, shapes as in `_modulate`."""
    split = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, split), y.unflatten(1, split), gate.unsqueeze(2)).flatten(1, 2)


class WanForward:
    """The forward passes over a tree of modules with Wan's names. Mixed into the class that owns the tree.

    Hooks for subclasses:

    * `dtype`, `device`, `state_key`, `fingerprint`, `description`: facts that the owner of the weights knows.
    * `cast_parameter`, `embed_latents`: use of weights that belong to no layer, or keep a dtype of their own.
    * `use_attention`, `attend`: the attention kernel.
    * `writer`: the second set of weights of a model that has two.
    * `before_pass`: called with each chunk before it is passed over a cache.
    * `enter`, `call_block`: where weights are used; a sharded model gathers them there.
    * `block_functions`: the two compiled halves of a block.
    * `attend_to_cache`, `run_blocks`: how tokens and heads are split over several devices.
    """

    arch: WanArchitecture
    caches: CachePool
    rollout_config: RolloutConfig | None = None  # the checkpoint's own settings
    latent_size: tuple[int, int] | None = None
    gradient_checkpointing = False  # the backward pass computes each block again: less memory, more time
    blocks: Any  # a sequence of modules, as all below
    patch_embedding: Any
    text_embedding: Any
    time_embedding: Any
    time_projection: Any
    head: Any
    _attention: Attention  # set before each pass

    # Hooks --------------------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the arithmetic and of cached keys and values."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of the arithmetic."""
        raise NotImplementedError

    @property
    def writer(self) -> WanForward:
        """The weights of every pass that writes the cache: these, unless the model has two sets (SGF+)."""
        return self

    def cast_parameter(self, parameter: Tensor, like: Tensor) -> Tensor:
        """A parameter that belongs to no layer (``modulation``), with dtype and device of ``like``."""
        return parameter.to(like)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self- and cross-attention kernel of one layer; all tensors are [B, tokens, heads, D]."""
        return self._attention(q, k, v)

    def before_pass(self, x: Tensor, timestep: Tensor) -> None:
        """Hook before a chunk ``x`` [B, C, F, H, W] at ``timestep`` [B, 1] passes over a cache. Does nothing here."""

    def enter(self, compute: Callable[..., Any], *args: Any) -> Any:
        """Call ``compute``, which uses weights outside the blocks."""
        return compute(*args)

    def call_block(self, block: Any, compute: Callable[..., Any], *tensors: Any) -> Any:
        """Call ``compute``, which uses the weights of ``block``. Tensors with a gradient are among the arguments."""
        return compute(*tensors)

    @property
    def block_functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What a block computes before its self-attention, and after it."""
        return self._before_attention, self._after_attention

    def embed_latents(self, x: Tensor) -> Tensor:
        """Latents [B, C, F, H, W] -> patches [B, dim, F, rows, columns] in `dtype`."""
        return self.patch_embedding(x.to(self.dtype))

    # Parts --------------------------------------------------------------------------------------------------------

    def text_keys_values(self, text: Tensor) -> list[KeysValues]:
        """Cross-attention keys and values of ``text`` [B, rows, text_dim]: a pair [B, text_len, heads, D] a layer.

        Rows are padded with zeros to the text length, and the padding is attended to, as in Wan. A model with two sets
        of weights gives the pairs of both, those of its `writer` behind.
        """
        pairs: list[KeysValues] = self.enter(self._text_keys_values, text)
        return pairs if self.writer is self else [*pairs, *self.writer.text_keys_values(text)]

    def _text_keys_values(self, text: Tensor) -> list[KeysValues]:
        rows = text.shape[1]
        text = torch.nn.functional.pad(text.to(self.device, self.dtype), (0, 0, 0, self.arch.text_len - rows))
        context = self.text_embedding(text)
        pairs = (self.call_block(block, partial(self._text_pair, block), context) for block in self.blocks)
        return [(self._heads(keys), self._heads(values)) for keys, values in pairs]

    def _text_pair(self, block: Any, context: Tensor) -> KeysValues:
        attn = block.cross_attn
        return attn.norm_k(attn.k(context)), attn.v(context)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.arch.num_heads, -1))

    def embed_time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [B, f] -> embedding [B, f, dim] and its six modulation vectors [B, f, 6, dim]."""
        return self.enter(self._embed_time, timestep)

    def _embed_time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        sinusoid = timestep_embedding(timestep, self.arch.freq_dim).to(self.dtype)
        embedding = self.time_embedding(sinusoid)
        return embedding, self.time_projection(embedding).unflatten(-1, (6, -1))

    def _embed_latents(self, x: Tensor) -> Tensor:
        """Latents [B, C, F, H, W] -> tokens [B, L, dim], contiguous, since all later operations work along dim."""
        return self.embed_latents(x).flatten(2).transpose(1, 2).contiguous()

    def _unpatchify(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens [B, L, patch * C] -> [B, C, F, H, W] of x's extent, float32."""
        pt, ph, pw = self.arch.patch_size
        f, h, w = x.shape[2] // pt, x.shape[3] // ph, x.shape[4] // pw
        pattern = "b (f h w) (p q r c) -> b c (f p) (h q) (w r)"
        return rearrange(tokens, pattern, f=f, h=h, w=w, p=pt, q=ph, r=pw).float()

    def run_blocks(self, x: Tensor, given: BlockPass) -> Tensor:
        """All transformer blocks over tokens ``x`` [B, L, dim]."""
        last = len(self.blocks) - 1
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for layer, block in enumerate(self.blocks):
            keys_only = given.keys_only and layer == last
            compute = partial(self._block, block, layer, given.rotations, given.attend, keys_only)
            run = partial(self.call_block, block, compute)
            if recompute:
                run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
            x = run(x, given.modulations, given.text[layer])
            if given.layer_hook is not None and not given.layer_hook(layer, x):
                break
        return x

    def _block(
        self,
        block: Any,
        layer: int,
        rotations: Tensor,
        attend: LayerAttention,
        keys_only: bool,
        x: Tensor,
        modulations: Tensor,
        text: KeysValues,
    ) -> Tensor:
        before, after = self.block_functions
        parts = self.cast_parameter(block.modulation, modulations) + modulations  # [B, f, 6, dim]
        attended = attend(layer, *before(block, x, parts, rotations, keys_only))
        return x if keys_only else after(block, layer, x, attended, parts, text)

    def _before_attention(
        self, block: Any, x: Tensor, parts: Tensor, rotations: Tensor, keys_only: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a block's self-attention. With ``keys_only`` the queries are an empty tensor."""
        attn = block.self_attn
        h = _modulate(block.norm1(x), parts[:, :, 0], parts[:, :, 1])
        k = apply_rope(self._heads(attn.norm_k(attn.k(h))), rotations)
        v = self._heads(attn.v(h))
        q = k[:, :0] if keys_only else apply_rope(self._heads(attn.norm_q(attn.q(h))), rotations)
        return q, k, v

    def _after_attention(
        self, block: Any, layer: int, x: Tensor, attended: Tensor, parts: Tensor, text: KeysValues
    ) -> Tensor:
        """The rest of a block: ``x`` plus self-attention's output, then cross-attention, then the feed-forward net."""
        x = _add_gated(x, block.self_attn.o(attended.flatten(2)), parts[:, :, 2])
        cross = block.cross_attn
        q = self._heads(cross.norm_q(cross.q(block.norm3(x))))
        x = x + cross.o(self.attend(layer, q, *text).flatten(2))
        return _add_gated(x, block.ffn(_modulate(block.norm2(x), parts[:, :, 3], parts[:, :, 4])), parts[:, :, 5])

    def _flow(self, tokens: Tensor, embedding: Tensor, x: Tensor) -> Tensor:
        modulation = self.cast_parameter(self.head.modulation, embedding)
        shift, scale = (modulation.unsqueeze(1) + embedding.unsqueeze(2)).unbind(2)
        return self._unpatchify(self.head.head(_modulate(self.head.norm(tokens), shift, scale)), x)

    # Passes over a cache ------------------------------------------------------------------------------------------

    def flow_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> Tensor:
        """Flow of a noisy chunk that attends to itself and to the cache.

        Args:
            x: The chunk [B, C, F, H, W].
            timestep: Its timestep [B, 1].
            rotations: Rotary positions, see `rotations`.
            text: Cross-attention keys and values, see `text_keys_values`.
            views: For each layer what it attends to, see `RollingKVCache.open`. The chunk's slots are overwritten with
                its (noisy) keys and values; the others are only read.

        Returns:
            The flow [B, C, F, H, W], float32.
        """
        self.before_pass(x, timestep)
        return self.flow_with(x, timestep, rotations, text, self.attend_to_cache(views))

    def write_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> None:
        """As `flow_over_cache` for a clean chunk, only for the keys and values that `writer` leaves in ``views``."""
        if self.writer is not self:
            self.writer.write_over_cache(x, timestep, rotations, text[self.arch.num_layers :], views)
            return
        self.before_pass(x, timestep)
        self.write_with(x, timestep, rotations, text, self.attend_to_cache(views))

    def flow_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> Tensor:
        """Flow [B, C, F, H, W] of a noisy chunk ``x``, with ``attend`` as its self-attention."""
        return self.enter(self._flow_with, x, timestep, rotations, text, attend)

    def _flow_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> Tensor:
        embedding, modulations = self._embed_time(timestep)
        tokens = self.run_blocks(self._embed_latents(x), BlockPass(modulations, rotations, text, attend))
        return self._flow(tokens, embedding, x)

    def write_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> None:
        """As `flow_with` for a clean chunk, only for the keys and values that ``attend`` sees."""
        self.enter(self._write_with, x, timestep, rotations, text, attend)

    def _write_with(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], attend: LayerAttention
    ) -> None:
        _, modulations = self._embed_time(timestep)
        self.run_blocks(self._embed_latents(x), BlockPass(modulations, rotations, text, attend, keys_only=True))

    def attend_to_cache(self, views: Sequence[LayerView]) -> LayerAttention:
        """Self-attention that writes new keys and values to the front of ``views`` and attends to all of each view."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            view = views[layer]
            view.write(k, v)
            return view.attend(q, partial(self.attend, layer)) if q.shape[1] else q

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

    # What a session needs besides passes, see `CausalModel` --------------------------------------------------------

    def rotations(self, frames: Sequence[int], latent_size: tuple[int, int]) -> Tensor:
        """Rotary positions of a chunk's tokens; ``frames`` are absolute latent frames."""
        rows, columns = self.arch.token_grid(latent_size)
        return rope_rotations(frames, rows, columns, self.arch.head_dim, self.device)

    def use_attention(self) -> None:
        """Choose the attention kernel that the following passes call."""
        raise NotImplementedError

    def state_key(self) -> bytes:
        """Digest that changes whenever new keys and values would differ from earlier ones."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Name of the weights, whatever their dtype or file."""
        raise NotImplementedError

    def description(self) -> dict[str, str]:
        """Description of the weights, see `describe_weights`."""
        raise NotImplementedError

    def is_model(self, name: str, description: Mapping[str, str] | None) -> bool:
        """See `CausalModel.is_model`."""
        return same_weights(description, self.description()) if description else name == self.fingerprint

    def cache_shape(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int) -> CacheShape:
        """The shape of the cache of a session with these settings."""
        sets = 1 if self.writer is self else 2
        return CacheShape.of(config, self.arch, latent_size, batch, sets * self.arch.text_len, self.dtype, self.device)

    def cache_bytes(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int = 1, frames: int = 0) -> int:
        """Exact bytes of a session's cache, the prompt's keys and values included.

        Args:
            config: Rollout settings.
            latent_size: Height and width of the latents.
            batch: Number of videos that are made together.
            frames: Length of the video in latent frames, for an unbounded window; 0: its initial size.
        """
        return self.cache_shape(config, latent_size, batch).nbytes(frames)

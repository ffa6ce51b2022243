"""Share of a chunk's time that its linear layers and attentions need.

A whole chunk in the steady state (ring full: the cache pass of the chunk before, then the denoising steps) is timed
in turns with its floor: the same linear layers and attentions alone, on tensors of the same shapes and layout, as often
as the chunk executes them. The cache pass has no head, and nothing in the last block after its keys and values. The
patch embedding counts as a linear layer. The floor excludes the text, whose keys and values are cached. The rest of a
chunk is norms, rotations, modulation, activations, noise, cache writes, commits and Python.

share = floor / whole, of each pair. Before timing, torch counts the floating-point operations of both, which must be
equal: the floor neither does work that the chunk does not do, nor omits any.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import sf_core
from sf_core.model.attention import BACKENDS, choose_attention

from .measure import Report, alternate
from .models import Rollout, add_arguments, architecture, context_frames, random_model, start_session

_SDPA = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch does not count it


class Floor:
    """The linear layers and attentions of one chunk in the steady state."""

    def __init__(self, session: sf_core.Session) -> None:
        model, config = session.model, session.config
        assert isinstance(model, sf_core.CausalWan)
        assert config.window_frames is not None
        rows, columns = model.arch.token_grid(session.latent_size)
        arch, frame = model.arch, rows * columns
        chunk, window = config.chunk_frames * frame, config.window_frames * frame
        self.model, self.steps = model, len(config.denoising_steps)
        self.attend = BACKENDS[choose_attention("auto", model.device, model.dtype)]
        self.patches = self._random(chunk, arch.in_dim * math.prod(arch.patch_size))
        self.sinusoid = self._random(1, arch.freq_dim)
        self.tokens, self.wide = self._random(chunk, arch.dim), self._random(chunk, arch.ffn_dim)
        self.query = self._heads(chunk)
        self.keys_values = [(self._heads(window), self._heads(window)) for _ in model.blocks]  # each layer has its own
        self.text = [(self._heads(arch.text_len), self._heads(arch.text_len)) for _ in model.blocks]

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(1, *shape, device=self.model.device, dtype=self.model.dtype)

    def _heads(self, tokens: int) -> Tensor:
        return self._random(tokens, self.model.arch.num_heads, self.model.arch.head_dim)

    def chunk(self) -> None:
        """Execute the operations of a chunk."""
        with torch.no_grad():
            self._forward(keys_only=True)
            for _ in range(self.steps):
                self._forward(keys_only=False)

    def _forward(self, keys_only: bool) -> None:
        model = self.model
        F.linear(self.patches, model.patch_embedding.weight.flatten(1), model.patch_embedding.bias)
        embedding = _linear(model.time_embedding[2], _linear(model.time_embedding[0], self.sinusoid))
        _linear(model.time_projection[1], embedding)
        for layer, block in enumerate(model.blocks):
            attn, cross = block.self_attn, block.cross_attn
            _linear(attn.k, self.tokens)
            _linear(attn.v, self.tokens)
            if keys_only and layer == len(model.blocks) - 1:
                return
            _linear(attn.q, self.tokens)
            self.attend(self.query, *self.keys_values[layer])
            _linear(attn.o, self.tokens)
            _linear(cross.q, self.tokens)
            self.attend(self.query, *self.text[layer])
            _linear(cross.o, self.tokens)
            _linear(block.ffn[0], self.tokens)
            _linear(block.ffn[2], self.wide)
        _linear(model.head.head, self.tokens)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight, layer.bias)


def _attention_operations(query: Sequence[int], keys: Sequence[int], *_: object, **__: object) -> int:
    """Count the operations of two matrix products; shapes are [B, heads, tokens, D]."""
    return 4 * math.prod(query) * keys[2]


def operations(rollout: Rollout, floor: Floor) -> int:
    """Count the floating-point operations of a chunk.

    Raises:
        RuntimeError: The floor has another number.
    """
    counts = []
    for work in (rollout.chunk, floor.chunk):
        with FlopCounterMode(display=False, custom_mapping={_SDPA: _attention_operations}) as counter:
            work()
        counts.append(counter.get_total_flops())
    if counts[0] != counts[1]:
        raise RuntimeError(f"a chunk does {counts[0]} operations, its floor {counts[1]}: they are not comparable")
    return int(counts[0])


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args()
    report = Report("floor", args)
    model = random_model(architecture(args), args.seed, args.device, args.dtype)
    rollout = Rollout(start_session(model, args, context_frames(args)))
    for _ in range(2):  # the first writes the whole context to the cache, the second fills it up
        rollout.chunk()
    floor = Floor(rollout.session)
    count = operations(rollout, floor)
    times = alternate(floor.chunk, rollout.chunk, args.pairs)
    report.row("operations of a chunk", [count / 1e9], "G")
    report.row("floor", [a for a, _ in times], "s")
    report.row("whole chunk", [b for _, b in times], "s")
    report.ratio("share of the floor", times, least=0.90)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

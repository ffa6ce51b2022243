"""How soon, and how well, videos of the embedded model follow a new prompt.

Each video begins with one prompt for a training length and switches to another; pairs are drawn from the world's
captions. It switches with recache, but with the weights for one latent frame at a time as a key does, without. The
first table has the share of right frames by chunk after the switch (colour, shape, background and number of objects);
the second the scores of the training length from so many chunks after it, with the lower end of the 95 % interval for
all-correct. The tests are tests/tiny/test_tiny_switch.py and test_tiny_framewise.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sf_core import tiny
from sf_core.config import RolloutConfig
from sf_core.files.checkpoint import load_model
from sf_core.model.wan import CausalWan
from sf_core.session.session import Session
from sf_core.tiny.world import DIRECTIONS, prompts
from sf_core.vae.video_vae import VideoVAE

from .tiny_world.evaluate import Encode, frames_of
from .tiny_world.observe import observe
from .tiny_world.scorer import judge, summarize

LENGTH = 9  # latent frames of a rollout in its training
SETTLED = 2  # chunks after the switch, within which the picture may change
SHOWN = ("all_correct", "frames_correct", "colour", "shape", "direction", "speed", "one_object", "background_error")


def pairs_of(count: int) -> list[tuple[str, str]]:
    """Return pairs of captions, drawn from all of the world's."""
    captions = prompts(2 * count, seed=7)
    return list(zip(captions[::2], captions[1::2], strict=True))


def turns_of(count: int) -> list[tuple[str, str]]:
    """Return pairs of captions that differ in the direction alone, as those of arrow keys do; each turn is as often."""
    pairs = []
    for number, caption in enumerate(prompts(count, seed=8)):
        way = next(word for word in caption.split() if word in DIRECTIONS)
        others = [word for word in DIRECTIONS if word != way]
        pairs.append((caption, caption.replace(f" {way} ", f" {others[number % len(others)]} ")))
    return pairs


@torch.no_grad()
def switched_videos(
    model: CausalWan,
    vae: VideoVAE,
    encode: Encode,
    pairs: Sequence[tuple[str, str]],
    before: int = LENGTH,
    after: int = 2 * LENGTH,
    recache: bool = True,
    config: RolloutConfig | None = None,
    seed: int = 0,
    batch: int = 20,
) -> Iterator[Tensor]:
    """Sample a video for each pair of prompts: ``before`` latent frames of the first, ``after`` of the second.

    Yields:
        The videos in the order of the pairs, [T, H, W, 3] in 0..1 on the CPU.
    """
    for number, at in enumerate(range(0, len(pairs), batch)):
        part = pairs[at : at + batch]
        first, second = (pad_sequence([encode(pair[side])[0] for pair in part], batch_first=True) for side in (0, 1))
        session = Session.start(model, first, None, config, seed + number, batch=len(part))
        decoder, pieces = vae.stream_decoder(), []
        while (frames := session.frames) < before + after:
            if frames == before:
                session = session.with_prompt(second, recache=recache)
            session, latents = session.next_chunk()
            pieces.append(decoder(latents, at=frames))
        model.release_cache()
        yield from torch.cat(pieces, dim=1).cpu()


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--no-recache", action="store_true", help="switch without recache")
    parser.add_argument("--framewise", action="store_true", help="the weights for one latent frame at a time")
    parser.add_argument("--model", help="another transformer of the world (.safetensors)")
    parser.add_argument("--turns", action="store_true", help="change the direction alone, as arrow keys do")
    parser.add_argument("--settled", type=int, default=SETTLED, help="chunks; default: %(default)s")
    given = parser.parse_args()
    pairs = turns_of(given.pairs) if given.turns else pairs_of(given.pairs)
    model = tiny.load_transformer(framewise=given.framewise) if given.model is None else load_model(given.model)
    config = model.rollout_config or RolloutConfig()
    recache = not (given.no_recache or given.framewise)
    videos = switched_videos(model, tiny.load_vae(), tiny.load_text().encode, pairs, recache=recache)
    seen = [observe(frames) for frames in videos]
    goal = [pair[1] for pair in pairs]

    print("| chunk after the switch | right frames | one object |\n|---|---|---|")
    for chunk in range(6):
        start = frames_of(LENGTH + chunk * config.chunk_frames)
        end = frames_of(LENGTH + (chunk + 1) * config.chunk_frames)
        found = summarize([judge(clip, caption, start, end) for clip, caption in zip(seen, goal, strict=True)])
        print(f"| {chunk + 1} | {found['frames_correct']:.3f} | {found['one_object']:.3f} |")
    start = frames_of(LENGTH + given.settled * config.chunk_frames)
    end = start + frames_of(LENGTH) - 1
    found = summarize([judge(clip, caption, start, end) for clip, caption in zip(seen, goal, strict=True)])
    cells = [f"{found[name]:.3f}" for name in SHOWN]
    cells[0] += f" (from {found['all_correct_low']:.3f})"
    print("\n| " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |\n" + "|---" * len(SHOWN) + "|")
    print("| " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

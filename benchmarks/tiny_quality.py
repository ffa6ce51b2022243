"""Shares of videos of the embedded model that show what their prompts say, by length.

The 300 prompts of tests/tiny/test_tiny_quality.py, over 1, 2, 4 and 8 training lengths. For all-correct the table has
the lower end of the 95 % interval, too; net speed is that of the last length. The test has the bars.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from sf_core import tiny
from sf_core.config import RolloutConfig
from sf_core.rollout_rules import KV_DTYPES
from sf_core.tiny.world import prompts

from .tiny_world.evaluate import frames_of, make_videos
from .tiny_world.observe import observe
from .tiny_world.scorer import judge, summarize

LENGTH = 9  # latent frames of a rollout in its training
SHOWN = (
    "all_correct",
    "frames_correct",
    "colour",
    "shape",
    "direction",
    "speed",
    "one_object",
    "iou",
    "background_error",
)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--kv-dtype", choices=KV_DTYPES, help="number format of the KV cache; default: the model's")
    parser.add_argument("--framewise", action="store_true", help="the weights for one latent frame at a time")
    args = parser.parse_args()
    captions, model = prompts(args.prompts, seed=6), tiny.load_transformer(framewise=args.framewise)
    config = replace(model.rollout_config or RolloutConfig(), kv_dtype=args.kv_dtype)
    videos = make_videos(model, tiny.load_vae(), tiny.load_text().encode, captions, 8 * LENGTH, config)
    seen = [observe(frames) for frames in videos]
    print("| training lengths | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " | net speed, end |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for times in (1, 2, 4, 8):
        end = frames_of(times * LENGTH)
        whole = summarize([judge(clip, caption, 0, end) for clip, caption in zip(seen, captions, strict=True)])
        begin = frames_of((times - 1) * LENGTH) if times > 1 else 0
        last = summarize([judge(clip, caption, begin, end) for clip, caption in zip(seen, captions, strict=True)])
        cells = [f"{whole[name]:.3f}" for name in SHOWN]
        cells[0] += f" (from {whole['all_correct_low']:.3f})"
        print(f"| {times} | " + " | ".join([*cells, f"{last['net_speed']:.3f}"]) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

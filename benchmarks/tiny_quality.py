"""How well does the embedded model do what its prompt says, and for how long?

The 300 prompts of tests/tiny/test_tiny_quality.py, over 1, 2, 4 and 8 training lengths, as shares of whole videos; of
all-correct also the lower end of its 95 % interval; net speed is that of the last length. Bars: those of the test.
"""

from __future__ import annotations

import argparse

import models  # noqa: F401 - makes sf_core importable

from sf_core import tiny
from sf_core.tiny.evaluate import frames_of, make_videos
from sf_core.tiny.observe import observe
from sf_core.tiny.scorer import judge, summarize
from sf_core.tiny.world import prompts

LENGTH = 9  # latent frames that it was trained to roll out
SHOWN = ("all_correct", "frames_correct", "colour", "shape", "direction", "speed", "one_object", "background_error")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300, help="default: %(default)s")
    captions = prompts(parser.parse_args().prompts, seed=6)
    made = make_videos(tiny.load_transformer(), tiny.load_vae(), tiny.load_text().encode, captions, 8 * LENGTH)
    seen = [observe(frames) for frames in made]
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

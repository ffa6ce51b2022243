"""What each rollout rule costs, against plain chunks that see as many frames, and over a long video.

Every rule of `RolloutConfig` that another published model needs is run for many chunks (400 by default). Times
are CPU seconds of one thread, so that other load on the machine matters little. The report has for each:

- rule / plain: a late chunk of the long video, timed in turns with one of plain chunks (no rule) whose attention sees
  as many latent frames and which take as many steps. `recompute` has no bar: it may cost a pass. A chunk of a rolling
  schedule is a joint pass and one that writes.
- late / early: in the same turns, with a chunk of a second session of the rule on a second copy of the model, which has
  just reached its full window.
- bytes of the cache at the end against those when the window was full; and resident memory likewise.

``--write`` puts the table into docs/models.md.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

import sf_core
from tools.page_part import write_part

from .measure import ROOT, Report, resident_mib
from .models import Rollout, add_arguments, architecture, random_model, random_prompt

MAKER, PAGE = "benchmarks/rules.py", ROOT / "docs" / "models.md"
MOST, MOST_LATE, MOST_MEMORY = 1.02, 1.05, 1.02


@dataclass(frozen=True)
class Rule:
    """A rule to measure.

    Args:
        name: As the table has it.
        model: The published model that needs it.
        settings: As the model has them, but for `exact_times`, which has a window here.
        plain: What the plain chunks have: as many frames in sight, and as many steps.
        shot: Begin a shot every so many chunks; 0: never.
        two_sets: Whether a second set of weights writes the cache.
        bar: The most that it may cost; None: there is no bar.
    """

    name: str
    model: str
    settings: dict[str, Any]
    plain: dict[str, Any] = field(default_factory=dict)
    shot: int = 0
    two_sets: bool = False
    bar: float | None = MOST


def _preset(name: str) -> dict[str, Any]:
    return sf_core.preset(name).as_dict()


_EXACT = {**_preset("Causal-rCM, c3-3, 4 steps"), "window_frames": 21}
RULES = (
    Rule("clamped sink", "LongLive, infinite attention", _preset("LongLive, infinite attention")),
    Rule("top-aligned sink", "SGF", _preset("SGF")),
    Rule("two sets of weights", "SGF+", _preset("SGF+"), two_sets=True),
    Rule("averaged sink", "Reward Forcing", _preset("Reward Forcing")),
    Rule("exact times", "Causal-rCM", _EXACT),
    Rule("keys of the last step", "Causal-rCM, noisy context", {**_EXACT, "context_from_last_step": True}),
    Rule("rolling schedule", "Rolling Forcing", _preset("Rolling Forcing"), {"sink_frames": 3}),
    Rule("bank", "MemFlow", _preset("MemFlow"), {"window_frames": 15}),
    Rule("solver and shots", "LongLive 2", _preset("LongLive 2"), shot=10),
    Rule("recomputed context", "Krea", _preset("Krea Realtime 14B"), bar=None),
)


class OfRule(Rollout):
    """A session that a rule, or plain chunks, continue."""

    def __init__(self, rule: Rule, args: argparse.Namespace, model: sf_core.CausalWan, plain: bool = False) -> None:
        if rule.two_sets and not plain:
            model = model.with_memory(random_model(architecture(args), args.seed + 1))
        config = sf_core.RolloutConfig(**rule.settings)
        if plain:
            steps = config.denoising_steps if config.solver == "renoise" else tuple(range(1000, 0, -250))
            same = {name: getattr(config, name) for name in ("chunk_frames", "window_frames", "sink_frames")}
            config = sf_core.RolloutConfig(**{**same, "denoising_steps": tuple(map(int, steps)), **rule.plain})
        size = (args.latent[0], args.latent[1])
        self.model, self._shot = model, 0 if plain else rule.shot
        self._prompt = random_prompt(model.arch, args.seed)
        super().__init__(
            sf_core.Session.start(model, self._prompt, size, config, seed=args.seed, reencode=_first_of_context)
        )

    def chunk(self) -> Tensor:
        """Sample a chunk, the first of a shot in its turn."""
        if self._shot and self.session.chunks and self.session.chunks % self._shot == 0:
            self.session = self.session.with_shot(self._prompt)
        return super().chunk()

    @property
    def full_after(self) -> int:
        """Chunks until the window and the latents in memory are full."""
        config = self.session.config
        ring = -(-(config.window_frames or 0) // config.chunk_frames)
        return 3 + (1 + self.model.arch.num_layers) * ring + config.memory_frames * config.memory_interval


def _first_of_context(session: Any) -> Tensor:
    """Stand for a VAE, whose time is not the rule's."""
    at = session.frames - session.config.context_frames
    kept: Tensor = session.latents_between(at, at + 1)
    return kept


def measure(rule: Rule, args: argparse.Namespace, report: Report) -> list[str]:
    """Measure a rule, and return its row of the table."""
    models = [random_model(architecture(args), args.seed) for _ in range(2 + rule.two_sets)]
    for model in models:
        model.caches.budget_bytes = 2**34  # both sessions of a model keep their caches
    late, early = (OfRule(rule, args, model) for model in models[:2])
    # where possible on the very weights of the rule: where a copy of them lies in memory is a matter of 3 %
    plain = OfRule(rule, args, models[-1] if rule.two_sets else models[0], plain=True)
    for rollout in (early, plain):
        for _ in range(rollout.full_after):
            rollout.chunk()
    memory = []
    for chunk in range(args.chunks - args.pairs):
        late.chunk()
        if chunk + 1 == late.full_after:
            memory.append((late.model.caches.nbytes, _resident()))
    times = []
    for turn in range(args.pairs):  # each is first in a third of the turns
        three = [late, early, plain]
        order = three[turn % 3 :] + three[: turn % 3]
        seconds = {id(rollout): _cpu_seconds(rollout) for rollout in order}
        times.append([seconds[id(rollout)] for rollout in three])
    memory.append((late.model.caches.nbytes, _resident()))

    bar = {} if rule.bar is None else {"most": rule.bar}
    report.row(f"{rule.name}: a chunk", [a for a, _, _ in times], "s")
    report.ratio(f"{rule.name}: rule / plain", [(a, c) for a, _, c in times], **bar)
    report.ratio(f"{rule.name}: late / early", [(a, b) for a, b, _ in times], most=MOST_LATE)
    report.row(f"{rule.name}: cache, last / first", [memory[1][0] / memory[0][0]], "x", most=1.0)
    report.row(f"{rule.name}: memory, last / first", [memory[1][1] / memory[0][1]], "x", most=MOST_MEMORY)
    ratios = [median(a / other[at] for a, *other in times) for at in (1, 0)]
    return [rule.name, rule.model, *(f"{ratio:.2f}" for ratio in ratios), f"{memory[1][1] / memory[0][1]:.2f}"]


def _cpu_seconds(rollout: OfRule) -> float:
    begin = time.process_time()
    rollout.chunk()
    return time.process_time() - begin


def _resident() -> float:
    gc.collect()
    return resident_mib()


def table(rows: list[list[str]]) -> str:
    """Format the table of docs/models.md."""
    head = ["rule", "model", "time against plain chunks", "late / early chunk", "memory, last / first"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, dim=256, ffn=1024, layers=2, heads=2, latent=(12, 12), pairs=30)
    parser.add_argument("--chunks", type=int, default=400, help="length of the videos; default: %(default)s")
    parser.add_argument("--only", nargs="*", help="names of rules; default: all")
    parser.add_argument("--write", action="store_true", help="write the table into docs/models.md")
    args = parser.parse_args()
    chosen = [rule for rule in RULES if not args.only or rule.name in args.only]
    report = Report("rules", args)
    rows = [measure(rule, args, report) for rule in chosen]
    if args.write:
        write_part(PAGE, MAKER, table(rows))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

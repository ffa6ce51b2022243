"""The checks of a verification: a recorded case, and the promises that sessions of a checkpoint keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..byte_units import format_bytes
from ..config import RolloutConfig
from ..model.causal_model import CausalModel
from ..session.record import SessionRecord
from ..session.session import Session
from .cases import Case, chunks_until_rolled, recorded, uniform_values

# Largest relative L2 distance from the recorded latents, by the dtype of the computation. Measured on CPUs over all
# cases: 3e-7 in float32 (to float64, and to another attention), 9e-4 in float16, 8e-3 in bfloat16.
LIMITS = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
AGAIN = 3  # chunks that are made twice from one seed
_SEED, _OTHER = 11, 12

Facts = dict[str, float | int | bool | str | None]


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        name: What was checked.
        passed: Whether it is as it should be.
        said: The result in a few words.
        facts: The numbers behind it.
    """

    name: str
    passed: bool
    said: str
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """What a verification asks of the program that runs it.

    Attributes:
        report: Called before every forward with what is being done, and how many of how many chunks are finished. An
            exception that it raises ends the verification.
        ready: Called with a session before its next chunk is made.
        predicted: Returns the bytes that a run takes on its device, which the memory ledger predicts.
    """

    report: Callable[[str, int, int], object] = lambda doing, done, total: None
    ready: Callable[[Session], object] = lambda session: None
    predicted: Callable[[Session], int] | None = None


def relative_distance(ours: Tensor, theirs: Tensor) -> float:
    """Return the relative L2 distance of two tensors; infinite for other shapes, and for values that are not finite."""
    if ours.shape != theirs.shape or not torch.isfinite(ours).all():
        return float("inf")
    ours, theirs = (tensor.detach().to("cpu", torch.float64) for tensor in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm())


def check_case(case: Case, model: CausalModel, dtype: torch.dtype, host: Host) -> Check:
    """Play a recorded case, and compare.

    Args:
        case: The case.
        model: Its tiny model, loaded in ``dtype``.
        dtype: Of the computation.
        host: See `Host`.

    Raises:
        ValueError: No limit is known for ``dtype``.
    """
    if dtype not in LIMITS:
        known = ", ".join(dtype_name(each) for each in LIMITS)
        raise ValueError(f"no limit has been measured for {dtype_name(dtype)}; verify in one of {known}")
    steps = {"chunks": 0}

    def ready(session: Session) -> None:
        steps["chunks"] = session.chunks
        host.ready(session)

    def progress(stage: str, index: int, count: int) -> None:
        host.report(f"recorded case: chunk {steps['chunks'] + 1} of {case.chunks}", steps["chunks"], case.chunks)

    latents, expected = case.play(model, progress, ready), recorded(case)
    distance, limit = relative_distance(latents, expected.latents), LIMITS[dtype]
    return Check(
        "recorded case",
        distance <= limit,
        f"{distance:.1e} from the numbers recorded for {case.name} (limit {limit:.1e})",
        {
            "case": case.name,
            "relative_l2": distance,
            "largest": float((latents - expected.latents).abs().max()),
            "limit": limit,
            "limit_measured_on": "CPU",
            "first_frame_off": _first_off(latents, expected.latents, limit),
            "authors_relative_l2": expected.authors,
            "authors_runs": ", ".join(expected.runs),
        },
    )


def _first_off(ours: Tensor, theirs: Tensor, limit: float) -> int | None:
    """Return the first latent frame that is off by more than the limit."""
    frames = range(theirs.shape[2])
    return next((f for f in frames if relative_distance(ours[:, :, f], theirs[:, :, f]) > 4 * limit), None)


class Promises:
    """The promises of a session, checked with one checkpoint."""

    def __init__(
        self, model: CausalModel, config: RolloutConfig, latent_size: tuple[int, int], dtype: torch.dtype, host: Host
    ) -> None:
        """Begin.

        Args:
            model: The checkpoint, loaded.
            config: Its settings.
            latent_size: Height and width of the latents to make.
            dtype: Of the computation.
            host: See `Host`.
        """
        self._model, self._config, self._size, self._dtype, self._host = model, config, latent_size, dtype, host
        self._chunks = chunks_until_rolled(config)
        self._again = min(AGAIN, self._chunks)
        self._made, self._total = 0, self._chunks + self._again + 3
        self._rebuilt = 0  # passes that only filled the cache

    def check(self) -> list[Check]:
        """Make a video until its window has rolled, and check it; see `Session` for what is promised."""
        if self._model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._model.device)
        straight = self._begin(self._chunks, "a video")
        memory = self._memory(straight[-1])
        again = self._begin(self._again, "the same seed again")
        same_seed = self._compare("same seed", [(a, b) for a, b in zip(again, straight, strict=False)])
        before, newest = straight[-2], straight[-1]
        other = self._next(newest.rewind(1).with_seed(_OTHER), "another seed")
        back = self._next(newest.rewind(1), "back to the first seed")
        rerolled = self._compare("rewind and re-roll", [(back, newest)])
        if relative_distance(_newest(other), _newest(newest)) == 0:
            rerolled = Check(rerolled.name, False, "another seed changed nothing")
        self._model.caches.release()
        self._rebuilt = 0
        rebuilt = self._compare("lost cache", [(self._next(before, "a lost cache"), newest)])
        rebuilt.facts["passes"] = self._rebuilt
        if not self._rebuilt:
            rebuilt = Check(rebuilt.name, False, "the cache was not rebuilt, so this shows nothing", rebuilt.facts)
        return [same_seed, rerolled, rebuilt, memory]

    def _begin(self, chunks: int, doing: str) -> list[Session]:
        """Make a video from the first seed, and return the session after each chunk."""
        self._model.caches.release()
        text = uniform_values("prompt", (1, 8, self._model.arch.text_dim)).to(self._model.device)
        session = Session.start(self._model, text, self._size, self._config, _SEED, reencode=self._reencode)
        made = []
        for _ in range(chunks):
            session = self._next(session, doing)
            made.append(session)
        return made

    def _next(self, session: Session, doing: str) -> Session:
        def progress(stage: str, index: int, count: int) -> None:
            self._rebuilt += stage == "rebuild"
            self._host.report(f"checkpoint: {doing}, chunk {session.chunks + 1}", self._made, self._total)

        self._host.ready(session)
        longer, _ = session.next_chunk(progress)
        self._made += 1
        return longer

    def _reencode(self, session: SessionRecord) -> Tensor:
        return uniform_values(f"context {session.chunks}", (1, self._model.arch.in_dim, 1, *self._size))

    def _compare(self, name: str, pairs: list[tuple[Session, Session]]) -> Check:
        """Compare the newest chunks of sessions: bit for bit on a CPU, to rounding elsewhere."""
        distances = [relative_distance(_newest(ours), _newest(theirs)) for ours, theirs in pairs]
        worst = max(distances)
        limit = 0.0 if self._model.device.type == "cpu" else LIMITS.get(self._dtype, 0.0)
        said = "the same bits" if worst == 0 else f"{worst:.1e} apart (limit {limit:.1e})"
        return Check(name, worst <= limit, said, {"bits": worst == 0, "relative_l2": worst, "chunks": len(pairs)})

    def _memory(self, session: Session) -> Check:
        shape = self._model.cache_shape(self._config, self._size, 1)
        predicted, measured = shape.nbytes(session.frames), self._model.caches.nbytes
        said = f"{format_bytes(measured)} of cache as predicted"
        if predicted != measured:
            said = f"{format_bytes(measured)} of cache, and {format_bytes(predicted)} were predicted"
        facts: Facts = {"cache_bytes": measured, "predicted_cache_bytes": predicted}
        if self._model.device.type == "cuda":  # told, not judged: other programs and allocators play a part in it
            facts["peak_bytes"] = torch.cuda.max_memory_allocated(self._model.device)
            if self._host.predicted is not None:
                facts["predicted_peak_bytes"] = self._host.predicted(session)
        return Check("memory", predicted == measured, said, facts)


def _newest(session: Session) -> Tensor:
    head = session.head
    assert head is not None
    return head.latents.on_cpu()


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype as users write it."""
    return str(dtype).removeprefix("torch.")

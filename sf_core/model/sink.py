"""Where attention sees the sink: one rule for each ``sink_position`` of `RolloutConfig`.

A key carries the position that it was written at. Only distances matter to rotary positions, so a rule is the number of
frames by which the sink's keys are turned; the other frames stay at their own positions. Frames are counted from the
first one of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SinkRule:
    """The sink at its own position: ``absolute``. Subclasses move it."""

    @property
    def moves(self) -> bool:
        """Whether any shift is other than 0."""
        return False

    def shift(self, sink_frames: int, oldest: int, end: int) -> int:
        """Shift of the sink, in frames.

        Args:
            sink_frames: Latent frames of the sink.
            oldest: The oldest frame besides the sink that the pass attends to, its own included.
            end: The frame after the last one of the pass.
        """
        return 0


@dataclass(frozen=True)
class ClampedSink(SinkRule):
    """Right before the oldest frame in sight (LongLive's infinite attention, Infinite-Forcing, Reward Forcing)."""

    @property
    def moves(self) -> bool:
        """It does."""
        return True

    def shift(self, sink_frames: int, oldest: int, end: int) -> int:
        """See `SinkRule.shift`."""
        return max(0, oldest - sink_frames)


@dataclass(frozen=True)
class TopAlignedSink(SinkRule):
    """The newest position never passes ``trained_frames - 1``, with the sink at its own positions from 0 on (SGF).

    Once a video is longer, all frames but the sink step back by the same number each chunk. It is the sink that is
    turned here, by that number forward.
    """

    trained_frames: int

    @property
    def moves(self) -> bool:
        """It does."""
        return True

    def shift(self, sink_frames: int, oldest: int, end: int) -> int:
        """See `SinkRule.shift`."""
        return max(0, end - self.trained_frames)


def sink_rule(sink_position: str, trained_frames: int | None) -> SinkRule:
    """The rule of a setting of `RolloutConfig`, which has checked it."""
    if sink_position == "top_aligned":
        assert trained_frames is not None
        return TopAlignedSink(trained_frames)
    return ClampedSink() if sink_position == "clamped" else SinkRule()

"""Plots of the drift of long rollouts; they need matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ...files.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_figure() -> type[Figure] | None:
    """Import matplotlib's `Figure`, which needs neither global state nor a screen; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure


def relative_to_first(curve: Tensor) -> list[float]:
    """Divide ``curve`` [n] by its first value that is not zero; a distance from the first chunk is zero there."""
    values: list[float] = curve.tolist()
    first = next((value for value in values if value != 0), 1.0)
    return [value / first for value in values]


def write_drift_plot(
    figure_type: type[Figure], path: Path, title: str, curves: Mapping[str, Sequence[float]], trained_chunks: int
) -> None:
    """Plot relative curves over the chunks of a rollout into a PNG, with a line at the end of the training length.

    Args:
        figure_type: The result of `load_figure`.
        path: The PNG, written atomically.
        title: Title of the plot.
        curves: Values per chunk by name, relative to the first.
        trained_chunks: Chunks of the training length.
    """
    figure = figure_type(figsize=(10, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, marker=".", label=f"{name} (x {curve[-1]:.2f})")
    axes.axvline(trained_chunks + 0.5, color="black", linestyle="--", label="end of the training length")
    axes.set(xlabel="chunk", ylabel="relative to the first", title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    with atomic_write(path, sync=False) as part:
        figure.savefig(part, format="png", dpi=100)

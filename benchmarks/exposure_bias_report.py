"""The report of `exposure_bias.py`: a plot, tables and contact sheets from the scores of all models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from tools.page_part import END, begin, write_part

UNTRAINED, TEACHER = "untrained (causal start)", "teacher (bidirectional)"
LENGTHS = (1, 2, 4, 8)  # of rollouts, in training lengths
COLOURS = {
    "teacher forcing + DMD": "tab:red",
    "diffusion forcing + DMD": "tab:orange",
    "Self Forcing + DMD": "tab:green",
    UNTRAINED: "tab:gray",
    TEACHER: "tab:blue",
}
MEASURES = {  # fields of a score: title and decimals
    "all_correct": ("all correct, whole video", 2),
    "last_frames_correct": ("frames correct, last length", 2),
    "last_one_object": ("one object, last length", 2),
    "last_background_error": ("background error, last length", 3),
    "last_net_speed": ("net speed / prompted, last length", 2),
    "last_jerk": ("jerk in px, last length", 2),
}
MAKER = "benchmarks/exposure_bias.py"

Rows = dict[str, list[dict[str, dict[str, float]]]]  # what -> by seed: training lengths -> scores


def write_report(runs: Path, docs: Path, results: Sequence[Path], captions: Sequence[str]) -> None:
    """Write the report between the two marks of ``docs``/exposure-bias.md, and its pictures to a folder there."""
    models: list[dict[str, Any]] = [json.loads(path.read_text()) for path in results]
    rows: Rows = {}
    for result in models:
        rows.setdefault(result["what"], []).append(result["scores"])
    pictures = docs / "exposure-bias"
    pictures.mkdir(parents=True, exist_ok=True)
    _plot(rows, pictures / "lengths.webp")
    sheets = [_sheet(path.parent, result, pictures) for path, result in zip(results, models, strict=True)]
    trained = next(result for result in models if result["what"] not in (UNTRAINED, TEACHER))
    seconds = _seconds(results, models)
    parts = [
        f"{trained['prompts']} prompts, {max(len(scores) for scores in rows.values())} seeds of each method, "
        f"{trained['steps']} updates of the critic. Mean over seeds ± standard deviation between them.",
        f"![Scores by length](exposure-bias/{(pictures / 'lengths.webp').name})",
        *(_table(rows, name) for name in MEASURES),
        "CPU seconds of a training, median: "
        + ", ".join(f"{what} {spent:.0f}" for what, spent in seconds.items())
        + ".",
        "Contact sheets: the first prompts, the middle and the end of each training length, seed 0.",
        *(f"**{what}**\n\n![{what}](exposure-bias/{name})" for what, name in filter(None, sheets)),
        "The prompts of the sheets: " + "; ".join(f"*{caption}*" for caption in captions[:4]) + ".",
    ]
    page = docs / "exposure-bias.md"
    if not page.exists():
        page.write_text(f"# Exposure bias\n\n{begin(MAKER)}\n{END}\n", encoding="utf-8")
    write_part(page, MAKER, "\n\n".join(parts))


def _values(rows: Rows, what: str, times: int, name: str) -> list[float]:
    """Return the values of all seeds that measured it."""
    return [scores[str(times)][name] for scores in rows[what] if name in scores.get(str(times), {})]


def _table(rows: Rows, name: str) -> str:
    title, digits = MEASURES[name]
    lines = [f"| {title} | {' | '.join(f'{times}x' for times in LENGTHS)} |", "|---" * (1 + len(LENGTHS)) + "|"]
    for what in rows:
        cells = []
        for times in LENGTHS:
            values = _values(rows, what, times, name)
            spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.{digits}f}{spread}" if values else "")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _plot(rows: Rows, path: Path) -> None:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axes, (name, (title, _)) in zip(figure.subplots(2, 3).flat, MEASURES.items(), strict=True):
        for what in rows:
            times = [length for length in LENGTHS if _values(rows, what, length, name)]
            values = [_values(rows, what, length, name) for length in times]
            middle, ends = [mean(v) for v in values], ([min(v) for v in values], [max(v) for v in values])
            marker = "*" if what == TEACHER else "o"
            axes.plot(
                times, middle, marker=marker, markersize=9 if what == TEACHER else 4, color=COLOURS[what], label=what
            )
            axes.fill_between(times, *ends, color=COLOURS[what], alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(LENGTHS, [f"{length}x" for length in LENGTHS])
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if name not in ("last_background_error", "last_jerk"):
            axes.set_ylim(-0.02, max(1.02, axes.get_ylim()[1]))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=100)


def _sheet(folder: Path, result: dict[str, Any], pictures: Path) -> tuple[str, str] | None:
    """Save the contact sheet of seed 0, a row for each prompt; returns the model and the picture's name."""
    if result["seed"]:
        return None
    shown = [torch.load(path) for path in sorted(folder.glob("shown-*.pt"))]
    rows = [
        torch.cat([torch.nn.functional.pad(frame, (0, 0, 1, 1, 1, 1), value=0.3) for frame in frames], dim=1)
        for frames in shown
    ]
    sheet = (torch.cat(rows, dim=0) * 255).round().byte().numpy()
    name = f"{folder.name}.webp"
    Image.fromarray(sheet).save(pictures / name, lossless=False, quality=90)
    return result["what"], name


def _seconds(results: Sequence[Path], models: Sequence[dict[str, Any]]) -> dict[str, float]:
    spent: dict[str, list[float]] = {}
    for path, result in zip(results, models, strict=True):
        file = path.with_name("cpu_seconds.json")
        if file.exists():
            spent.setdefault(result["what"], []).append(json.loads(file.read_text()))
    return {what: sorted(values)[len(values) // 2] for what, values in spent.items()}

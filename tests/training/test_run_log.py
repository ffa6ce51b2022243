"""The log of a training run is true, complete after a crash, and does not slow the run."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sf_core
from sf_core import tiny
from sf_core.files.video import read_record, sidecar_of
from sf_core.training.engine import run_log as run_log_module
from sf_core.training.engine.eval_samples import Sampler, health
from sf_core.training.engine.run_log import RunLog
from tests.helpers import SIZE, prompt, random_latents, random_model

CONFIG = sf_core.RolloutConfig(chunk_frames=3, window_frames=6, denoising_steps=(1000, 500))
PROMPTS = ["a red circle moving left quickly on a black background", tiny.PROMPT]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def board_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: (step, value) by tag."""
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def train(run_log: RunLog, stage: str, steps: Sequence[int], of: int, offset: float = 0.0) -> None:
    for step in steps:
        run_log.step(stage, step, of, {"loss": torch.tensor(step + offset), "rate": 0.5})


def frames_in(path: Path) -> Tensor:
    with av.open(str(path)) as container:
        return torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))


class ItemReads(TorchDispatchMode):
    """Counts the tensors that are read one by one, with a wait for the device each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Clock:
    """Time that goes on only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_log_module, "perf_counter", clock)
    return clock


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `train`."""
    for library in ("tensorboard", "matplotlib", "torch.utils.tensorboard"):
        for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
            monkeypatch.setitem(sys.modules, name, None)


# Steps --------------------------------------------------------------------------------------------------------------


def test_every_step_has_a_line_and_a_scalar(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=14) as run_log:
        train(run_log, "ode", range(1, 9), of=8)
        run_log.step("dmd", 1, 6, {"critic": 2.0, "gone": float("nan")})
        train(run_log, "dmd", range(2, 5), of=6)
    lines = lines_of(tmp_path)
    assert [(line["done"], line["stage"], line["step"]) for line in lines] == [
        *((step, "ode", step) for step in range(1, 9)),
        *((8 + step, "dmd", step) for step in range(1, 5)),
    ]
    assert lines[6]["values"] == {"loss": 7.0, "rate": 0.5}
    assert lines[8]["values"] == {"critic": 2.0, "gone": None}
    scalars = board_scalars(tmp_path)
    assert scalars["ode/loss"] == [(step, float(step)) for step in range(1, 9)]
    assert scalars["dmd/loss"] == [(8 + step, float(step)) for step in range(2, 5)]


def test_between_log_steps_no_value_is_read(tmp_path: Path) -> None:
    """A tensor without data stands for one that the device has not computed yet: reading it is an error."""
    values = {"loss": torch.zeros((), device="meta", requires_grad=True), "other": torch.zeros((), device="meta")}
    with RunLog(tmp_path, total_steps=100, log_every=5) as run_log:
        for step in range(1, 5):
            run_log.step("dmd", step, 50, values)
        with pytest.raises(NotImplementedError):
            run_log.step("dmd", 5, 50, values)


def test_the_values_of_several_steps_are_read_together(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=100, log_every=5) as run_log, ItemReads() as reads:
        for step in range(1, 6):
            run_log.step("dmd", step, 50, {"loss": torch.tensor(0.25), "other": torch.tensor(float(step))})
        lines = [line["values"] for line in lines_of(tmp_path)]
    assert lines == [{"loss": 0.25, "other": float(step)} for step in range(1, 6)]
    assert reads.count <= 1


def test_the_last_step_of_a_stage_is_read(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=7) as run_log:
        train(run_log, "ode", range(1, 4), of=3)
        assert len(lines_of(tmp_path)) == 3


def test_flush_leaves_no_gap_before_a_checkpoint(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, total_steps=20)
    train(run_log, "dmd", range(1, 14), of=20)
    run_log.flush()
    written = lines_of(tmp_path), board_scalars(tmp_path)  # as a kill right now leaves them
    run_log.close()
    assert [line["step"] for line in written[0]] == list(range(1, 14))
    assert [step for step, _ in written[1]["dmd/loss"]] == list(range(1, 14))


def test_a_value_that_is_no_scalar_is_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=5) as run_log, pytest.raises(ValueError, match=r"loss has the shape \[2\]"):
        run_log.step("dmd", 1, 5, {"loss": torch.zeros(2)})


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log_every is 0"):
        RunLog(tmp_path, total_steps=5, log_every=0)
    with pytest.raises(ValueError, match="6 steps are done of 5"):
        RunLog(tmp_path, total_steps=5, done=6)


# Resuming -----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_logs_no_step_twice(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=30) as killed:
        train(killed, "ode", range(1, 11), of=10)
        train(killed, "dmd", range(1, 11), of=20)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"done": 21, "stage": "dmd", "st')
    with RunLog(tmp_path, total_steps=30, done=14) as run_log:
        train(run_log, "dmd", range(5, 21), of=20, offset=0.5)
    lines = lines_of(tmp_path)
    assert [line["done"] for line in lines] == list(range(1, 31))
    assert [line["values"]["loss"] for line in lines[10:16]] == [1.0, 2.0, 3.0, 4.0, 5.5, 6.5]
    scalars = board_scalars(tmp_path)
    assert [step for step, _ in scalars["ode/loss"]] == list(range(1, 11))
    assert scalars["dmd/loss"][:6] == [(11, 1.0), (12, 2.0), (13, 3.0), (14, 4.0), (15, 5.5), (16, 6.5)]
    assert len(scalars["dmd/loss"]) == 20


def test_half_a_line_is_dropped_even_where_nothing_else_is(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=9) as killed:
        train(killed, "dmd", range(1, 4), of=9)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[:-5])
    with RunLog(tmp_path, total_steps=9, done=3):
        pass
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]


def test_a_file_of_something_else_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ValueError, match="line 1 is not a step's metrics"):
        RunLog(tmp_path, total_steps=9)
    assert (tmp_path / "metrics.jsonl").read_text() == "epoch,loss\n1,2\n"


# The terminal -------------------------------------------------------------------------------------------------------


def test_the_time_left_follows_the_pace(tmp_path: Path, clock: Clock) -> None:
    with RunLog(tmp_path, total_steps=300) as run_log:
        clock.now += 60
        train(run_log, "ode", [1], of=100)  # a first step that compiles
        assert run_log.seconds_left == (99 * 60, 299 * 60)
        for step in range(2, 52):
            clock.now += 2
            train(run_log, "ode", [step], of=100)
        assert run_log.seconds_left == (49 * 2, 249 * 2)
        for step in range(52, 101):
            clock.now += 2
            train(run_log, "ode", [step], of=100)
        clock.now += 5
        train(run_log, "dmd", [1], of=200)
        assert run_log.seconds_left == (199 * 5, 199 * 5)  # nothing of the stage before
        for step in range(2, 151):
            clock.now += 5
            train(run_log, "dmd", [step], of=200)
        assert run_log.seconds_per_step == 5
        assert run_log.seconds_left == (50 * 5, 50 * 5)
        for step in range(151, 201):  # the newest 100 steps count: half of them at either pace
            clock.now += 1
            train(run_log, "dmd", [step], of=200)
        assert run_log.seconds_per_step == 3
        assert run_log.seconds_left == (0, 0)


def test_logged_seconds_add_up_to_the_time_that_passed(tmp_path: Path, clock: Clock) -> None:
    with RunLog(tmp_path, total_steps=25, log_every=4) as run_log:
        for step in range(1, 26):
            clock.now += 0.5 * (step % 3)
            train(run_log, "dmd", [step], of=25)
    assert sum(line["seconds"] for line in lines_of(tmp_path)) == pytest.approx(clock.now - 100)


def test_the_terminal_shows_stage_step_values_and_time_left(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with RunLog(tmp_path, total_steps=100, log_every=1) as run_log:
        for step in range(1, 21):
            clock.now += 4
            train(run_log, "dmd", [step], of=40)
        run_log.message("saved a checkpoint")
    terminal = capsys.readouterr().err
    last = terminal.replace("\r", "\n").splitlines()[-1]
    for text in ("dmd", "20/40", "4.00 s/step", "stage 01:20", "run 05:20", "loss 20", "rate 0.5"):
        assert text in last
    assert "saved a checkpoint\n" in terminal


# Samples ------------------------------------------------------------------------------------------------------------


def test_videos_lie_side_by_side_in_a_file_that_plays(tmp_path: Path) -> None:
    frames = torch.zeros(3, 7, 32, 48, 3)
    for index in range(3):
        frames[index, ..., index] = 1.0
    with RunLog(tmp_path, total_steps=5) as run_log:
        path = run_log.sample("dmd", 40, frames, 16, ["red", "green", "blue"])
    assert path == tmp_path / "samples/dmd-000040.mp4"
    played = frames_in(path).float() / 255
    assert played.shape == (7, 64, 96, 3)
    centres = [played[:, 16, 24], played[:, 16, 72], played[:, 48, 24], played[:, 48, 72]]
    expected = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]]
    assert all(
        (found - torch.tensor(colour)).abs().max() < 0.1 for found, colour in zip(centres, expected, strict=True)
    )
    assert read_record(path)["prompts"] == ["red", "green", "blue"]
    assert not sidecar_of(path).exists()


def test_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=5) as run_log, pytest.raises(ValueError, match=r"\[4, 16, 16, 3\]; expected"):
        run_log.sample("dmd", 1, torch.zeros(4, 16, 16, 3), 16, ["a"])


@pytest.fixture
def saved_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that matplotlib writes to files."""
    figures: list[Any] = []
    figure_type = importlib.import_module("matplotlib.figure").Figure
    save = figure_type.savefig

    def savefig(figure: Any, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(figure_type, "savefig", savefig)
    return figures


def test_drift_is_a_plot_and_a_ratio(tmp_path: Path, saved_figures: list[Any]) -> None:
    curves = {"spread": torch.tensor([2.0, 2.5, 3.0]), "shift": torch.tensor([0.0, 0.2, 0.3])}
    with RunLog(tmp_path, total_steps=9) as run_log:
        train(run_log, "dmd", range(1, 5), of=9)
        path = run_log.drift("dmd", 4, curves, trained_chunks=1)
    assert path == tmp_path / "samples/dmd-000004-drift.png"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    (figure,) = saved_figures
    lines = {line.get_label().split(" ")[0]: line for line in figure.axes[0].get_lines()}
    assert list(lines["spread"].get_xdata()) == [1, 2, 3]
    assert list(lines["spread"].get_ydata()) == [1.0, 1.25, 1.5]
    assert list(lines["shift"].get_ydata()) == pytest.approx([0.0, 1.0, 1.5])
    assert list(lines["end"].get_xdata()) == [1.5, 1.5]  # between the last trained chunk and the next
    scalars = board_scalars(tmp_path)
    assert scalars["drift/spread"] == [(4, 1.5)]
    assert scalars["drift/shift"][0][1] == pytest.approx(1.5)  # from the second chunk on: the first is at no distance


@pytest.mark.usefixtures("bare")
def test_without_the_extra_it_says_so_once_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, total_steps=12) as run_log:
        train(run_log, "dmd", range(1, 13), of=12)
        video = run_log.sample("dmd", 12, torch.rand(1, 3, 16, 16, 3), 16, ["a"])
        assert run_log.drift("dmd", 12, {"spread": torch.ones(4)}, trained_chunks=2) is None
        assert run_log.drift("dmd", 12, {"spread": torch.ones(4)}, trained_chunks=2) is None
    said = capsys.readouterr().err
    assert said.count("pip install '.[train]'") == 1
    assert "tensorboard and matplotlib: TensorBoard files and drift plots" in said
    assert len(lines_of(tmp_path)) == 12
    assert len(frames_in(video)) == 3
    assert not (tmp_path / "tensorboard").exists()


def test_with_the_extra_nothing_is_said_to_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(tmp_path, total_steps=12).close()
    assert "not written" not in capsys.readouterr().err


# What is sampled ----------------------------------------------------------------------------------------------------


def small_sampler(**changes: Any) -> Sampler:
    settings: dict[str, Any] = {"vae": None, "latent_size": SIZE, "config": CONFIG, "trained_frames": 6, **changes}
    return Sampler(["first", "second"], lambda text: prompt(len(text)), **settings)


@pytest.fixture
def model() -> sf_core.CausalWan:
    return random_model(layers=2)


def test_samples_are_what_inference_gives() -> None:
    model, text, vae = tiny.load_transformer(), tiny.load_text(), tiny.load_vae()
    config = model.rollout_config
    assert config is not None
    sampler = Sampler(PROMPTS, text.encode, vae, (8, 8), config, trained_frames=6, seed=7)
    videos = sampler.videos(model)
    assert videos is not None
    assert videos.shape == (2, 21, 64, 64, 3)
    session = sf_core.Session.start(model, text.encode(PROMPTS[1]), seed=8)
    for _ in range(2):
        session, _ = session.next_chunk()
    assert torch.equal(videos[1], vae.decode(session.latents)[0])


def test_a_long_rollout_is_longer_than_the_training() -> None:
    model = tiny.load_transformer()
    config = model.rollout_config
    assert config is not None
    sampler = Sampler(PROMPTS, tiny.load_text().encode, tiny.load_vae(), (8, 8), config, trained_frames=6, long=3)
    frames, curves = sampler.long_rollout(model)
    assert frames is not None
    assert frames.shape == (1, 69, 64, 64, 3)
    assert sampler.trained_chunks == 2
    assert {name: curve.shape for name, curve in curves.items()} == dict.fromkeys(
        ("spread", "level", "change", "shift"), (6,)
    )
    assert all(torch.isfinite(curve).all() for curve in curves.values())


def test_without_a_vae_there_are_latents_only(model: sf_core.CausalWan) -> None:
    sampler = small_sampler(long=2)
    assert sampler.videos(model) is None
    frames, curves = sampler.long_rollout(model)
    assert frames is None
    assert len(curves["spread"]) == 4


def broken(latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
    raise RuntimeError("the decoder fails")


class BrokenVAE:
    def stream_decoder(self) -> Any:
        return broken


def failing(model: sf_core.CausalWan) -> None:
    with pytest.raises(RuntimeError, match="the decoder fails"):
        small_sampler(vae=BrokenVAE()).videos(model)


@pytest.mark.parametrize("use", [lambda model: small_sampler().long_rollout(model), failing])
def test_the_model_comes_out_as_it_went_in(model: sf_core.CausalWan, use: Callable[[sf_core.CausalWan], Any]) -> None:
    model.train().requires_grad_(True)
    model.blocks[0].eval().requires_grad_(False)
    seen: list[bool] = []

    def look(module: nn.Module, args: object) -> None:
        seen.append(torch.is_grad_enabled() or module.training)

    model.patch_embedding.register_forward_pre_hook(look)
    state = torch.get_rng_state()

    def modes(module: nn.Module) -> list[object]:
        return [*(m.training for m in module.modules()), *(p.requires_grad for p in module.parameters())]

    before = modes(model)
    use(model)
    assert modes(model) == before
    assert model.caches.nbytes == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert seen
    assert not any(seen)
    assert torch.is_grad_enabled()


def test_health_is_flat_where_nothing_changes_and_tells_what_does() -> None:
    chunks = [random_latents(3, seed=seed) for seed in range(4)]
    chunks[2] = chunks[2] * 2
    chunks[3] = chunks[3][:, :, :1].expand(-1, -1, 3, -1, -1) + 1.0
    curves = health(chunks)
    assert (curves["spread"] / curves["spread"][0])[1:3].tolist() == pytest.approx([1, 2], rel=0.2)
    assert (curves["level"] / curves["level"][0])[1:3].tolist() == pytest.approx([1, 2], rel=0.2)
    assert curves["shift"][0] == 0
    assert curves["shift"][3] == pytest.approx(1, rel=0.3)
    assert curves["change"][3] < curves["change"][0]  # frozen, but for the step into the chunk
    inside = (chunks[1].diff(dim=2).abs().mean((0, 1, 3, 4)), (chunks[1][:, :, :1] - chunks[0][:, :, -1:]).abs().mean())
    assert curves["change"][1] == pytest.approx(float((inside[0].sum() + inside[1]) / 3))


def test_health_of_single_frames_is_told() -> None:
    curves = health([random_latents(1, seed=seed) for seed in range(3)])
    assert curves["change"][0] == curves["change"][1] > 0


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="no prompt"):
        Sampler([], lambda text: prompt(0), None, SIZE, CONFIG, trained_frames=6)
    with pytest.raises(ValueError, match=r"7 latent frames do not cut .* the nearest counts that do: 6 or 9"):
        small_sampler(trained_frames=7)
    with pytest.raises(ValueError, match=r"2 latent frames do not cut .* 3"):
        small_sampler(trained_frames=2)
    with pytest.raises(ValueError, match="long is 0"):
        small_sampler(long=0)

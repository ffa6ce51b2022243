"""One video on two processes: the latents of one, and half of its cache on each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sf_core import Session, tiny
from sf_core.__main__ import main
from tests.helpers import relative
from tests.processes import ROOT, run

pytestmark = pytest.mark.slow

# Every process makes each case with the others and by itself, and says how far apart the two are.
CASES = """
import json, sys
import torch
import sf_core
from sf_core.model.sequence_parallel import HeadParallelWan, joined
from tests.helpers import prompt, random_latents, random_model, relative, SIZE

torch.set_num_threads(1)
Config = sf_core.RolloutConfig


def rolled(model, case, size=SIZE):
    config, batch = case.get("config", Config()), case.get("batch", 1)
    session = sf_core.Session.start(model, prompt(0, batch), size, config, seed=3, batch=batch)
    if "context" in case:
        session = session.with_context(random_latents(case["context"]))
    for chunk in range(5):
        if chunk == 3 and "switch" in case:
            session = session.with_prompt(prompt(1, batch), **case["switch"])
        session, _ = session.next_chunk()
        if chunk == 1:
            model.release_cache()
    return session.latents, model.caches.nbytes


cases = {
    "unbounded": {"config": Config(window_frames=None)},
    "window": {"config": Config(window_frames=6), "batch": 2},
    "sink": {"config": Config(chunk_frames=2, window_frames=6, sink_frames=2)},
    "clamped sink": {"config": Config(window_frames=7, sink_frames=1, sink_position="clamped"), "switch": {}},
    "recache": {"config": Config(window_frames=9), "switch": {"recache": True}},
    "recache the sink": {"config": Config(window_frames=9, sink_frames=3), "switch": {"recache_sink": True}},
    "image": {"config": Config(first_chunk_frames=1, window_frames=7), "context": 1},
}
with joined("cpu"):
    alone = random_model(heads=4)
    shared, found = HeadParallelWan.of(alone), {}
    for name, case in cases.items():
        (one, all_bytes), (ours, own_bytes) = rolled(alone, case), rolled(shared, case)
        counted = shared.cache_bytes(case["config"], SIZE, case.get("batch", 1))
        found[name] = {"far": relative(ours, one), "bytes": [all_bytes, own_bytes, counted]}
    x, level = random_latents(6), torch.tensor([300.0])
    by_chunk = [model.predict(x, level.expand(6)[None], prompt(0), 3) for model in (shared, alone)]
    found["without a cache"] = {"far": relative(*by_chunk)}
    half = random_model(heads=4).to(torch.bfloat16)
    found["bfloat16"] = {"far": relative(rolled(HeadParallelWan.of(half), {})[0], rolled(half, {})[0])}
    try:
        rolled(shared, {}, size=(2, 2))
    except ValueError as error:
        found["error"] = str(error)
    if torch.distributed.get_rank() == 1:
        print(json.dumps(found), file=open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "cases.py").write_text(CASES)
    done = run(2, folder / "cases.py", folder / "found.json")
    assert done.returncode == 0, done.stderr
    cases: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return cases


@pytest.mark.parametrize(
    "case", ["unbounded", "window", "sink", "clamped sink", "recache", "recache the sink", "image"]
)
def test_two_processes_make_the_latents_of_one(found: dict[str, Any], case: str) -> None:
    assert found[case]["far"] < 1e-5


@pytest.mark.parametrize("case", ["unbounded", "window", "clamped sink"])
def test_each_process_holds_its_heads_of_the_cache_and_knows_how_much_that_is(found: dict[str, Any], case: str) -> None:
    everything, own, counted = found[case]["bytes"]
    text = 4 * 2 * 6 * 32 * 4  # keys and values of 6 rows in 4 layers: whole on each
    batch = 2 if case == "window" else 1
    assert own - batch * text == (everything - batch * text) / 2
    assert counted == own


def test_a_pass_without_a_cache_is_made_by_each(found: dict[str, Any]) -> None:
    assert found["without a cache"]["far"] == 0


def test_they_share_a_model_in_bfloat16(found: dict[str, Any]) -> None:
    assert found["bfloat16"]["far"] < 0.05


def test_tokens_that_cannot_be_shared_are_an_error(found: dict[str, Any]) -> None:
    assert "a chunk of 3 latent frames has 3 tokens, which 2 processes cannot share equally" in found["error"]


def test_generate_under_torchrun_goes_on_with_a_session_as_one_process_would(tmp_path: Path) -> None:
    begun, one, two = (tmp_path / name for name in ("begun", "one", "two"))
    assert main(["generate", "--seconds", "1", "--out", str(tmp_path / "a.mp4"), "--save-session", str(begun)]) == 0
    words = ["generate", "--session", begun, "--rewind", 1, "--seconds", 4, "--seed", 7, "--recache"]
    words += ["--on-drift", "match", "--drift-threshold", 0]  # each process decides by itself
    words += ["--prompt", "a blue square moving up", "--out", tmp_path / "b.mp4"]
    assert main([*map(str, words), "--fork-to", str(one)]) == 0
    (tmp_path / "b.mp4").unlink()
    done = run(2, "-m", "sf_core", *words, "--fork-to", two)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("video:") == done.stdout.count("session:") == 1
    assert (tmp_path / "b.mp4").exists()
    alone, shared = (Session.load(path, tiny.load_transformer()) for path in (one, two))
    assert alone.chunks == shared.chunks > 4
    assert any(block.event.match for block in alone.blocks)
    assert relative(shared.latents, alone.latents) < 1e-5


def test_one_process_knows_nothing_of_torch_distributed() -> None:
    code = (
        "import sys, sf_core.cli.generate, sf_core.training\n"
        "print(sorted(m for m in sys.modules if m.startswith('sf_core.') and m.endswith('parallel')\n"
        "             or m.startswith(('torch.distributed.fsdp', 'torch.distributed.checkpoint'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_heads_that_cannot_be_shared_are_an_error_that_names_what_fits(tmp_path: Path) -> None:
    done = run(3, "-m", "sf_core", "generate", "--out", tmp_path / "a.mp4")
    assert done.returncode != 0
    assert "4 attention heads cannot be shared equally by 3 processes: start 1, 2, 4 of them" in done.stderr
    assert not (tmp_path / "a.mp4").exists()

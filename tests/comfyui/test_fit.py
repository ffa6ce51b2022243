"""*Fit to my card* and *Real time on my card*: what the session node chooses, says and records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.graphs import Graph, Tiny, facts, forget_all, latents, probe
from tools.comfyui.server import PromptFailed, Server

FIT, REAL_TIME = "fit to my card", "real time on my card"


def settings(graph: Graph, **changes: Any) -> Any:
    """Rollout Settings with the defaults of its widgets, as an old program sends them: without the newest ones."""
    values = {"chunk_frames": 3, "window_frames": 21, "sink_frames": 0, "sink_position": "absolute", "shift": 5.0}
    values |= {"denoising_steps": "1000, 750, 500, 250", "warp_steps": True, "context_noise": 0.0}
    values |= {"first_chunk_frames": 0, "first_chunk_steps": "", "preset": "Self Forcing"}
    return graph("SFRolloutSettings", **{**values, **changes})[0]


def begun(server: Server, total: int, **changes: Any) -> tuple[dict[str, Any], str]:
    """Facts of a session on a device with ``total`` bytes, and what its node says."""
    graph = Graph()
    tiny = Tiny.of(graph)
    card = graph("ProbeTotal", model=tiny.model, total=total)[0]
    session = tiny.session(model=card, settings=settings(graph, **changes))
    number = probe(graph, session)
    try:
        outputs = server.run(graph.prompt)
    finally:
        reset = Graph()
        probe(reset, Tiny.of(reset).session(model=reset("ProbeTotal", model=Tiny.of(reset).model, total=-1)[0]))
        server.run(reset.prompt)
    return facts(outputs, number), outputs[session.node]["sf_text"][0]


def needed(server: Server) -> int:
    """Bytes that the published settings take with the tiny model, which uses the CPU: it samples and decodes there."""
    found, _ = begun(server, -1)
    return int(found["weight_bytes"] + found["predicted_bytes"] + found["working_bytes"])


def test_settings_are_fitted_to_the_memory_which_is_said_and_the_same_again(server: Server) -> None:
    total = needed(server)
    as_set, said = begun(server, total - 1)
    assert said.startswith("Too much for the")
    assert "Fitted" not in said
    fitted, said = begun(server, total - 1, fit=FIT)
    assert fitted["config"] == {**as_set["config"], "kv_dtype": "int8"}
    assert said.startswith(
        "Fitted to your RAM: window 21, sink 0, cache int8 in RAM, 4 steps; changed: an int8 cache. "
    )
    assert ". Fits the " in said
    assert begun(server, total - 1, fit=FIT) == (fitted, said)
    roomy, said = begun(server, 64 * total, fit=FIT)
    assert roomy["config"] == as_set["config"]
    assert "; nothing had to be changed. " in said


def test_what_the_user_set_is_kept_where_it_can_be_and_else_said_to_be_changed(server: Server) -> None:
    total = needed(server)
    found, said = begun(server, total, fit=FIT, kv_dtype="int4", window_frames=400)
    assert found["config"]["kv_dtype"] == "int4"
    window = found["config"]["window_frames"]
    assert 21 < window < 400
    assert f"changed: window {window} in place of 400" in said


def test_what_cannot_fit_is_an_error_that_says_what_would(server: Server) -> None:
    with pytest.raises(PromptFailed, match=r"nothing fits the 64 KiB: .+ With 'fit' off in Rollout Settings"):
        begun(server, 2**16, fit=FIT)


def test_a_video_of_fitted_settings_is_that_of_the_same_settings_set_by_hand_and_is_saved_with_them(
    server: Server,
) -> None:
    total = needed(server)
    forget_all(server)
    made = []
    for changes in ({"fit": FIT}, {"kv_dtype": "int8"}):
        graph = Graph()
        tiny = Tiny.of(graph)
        card = graph("ProbeTotal", model=tiny.model, total=total - 1)[0]
        sampled = tiny.sampled(tiny.session(model=card, settings=settings(graph, **changes)), 4)
        saved = graph("SFSaveSession", session=sampled, filename_prefix="sessions/fitted")
        number = probe(graph, sampled)
        outputs = server.run(graph.prompt)
        made.append(latents(outputs, number))
        forget_all(server)
    assert (made[0] == made[1]).all()
    name = Path(outputs[saved.number]["text"][0].split(": ")[0]).name
    graph = Graph()
    model = graph("ProbeTotal", model=Tiny.of(graph).model, total=-1)[0]
    number = probe(graph, graph("SFLoadSession", model=model, file=name, allow_other_model=False)[0])
    assert facts(server.run(graph.prompt), number)["config"]["kv_dtype"] == "int8"


def test_real_time_measures_the_device_once_and_predicts_frames_a_second(server: Server) -> None:
    rates = server.base / "cache" / "self_forcing" / "rates.json"
    rates.unlink(missing_ok=True)
    _, said = begun(server, -1, fit=FIT)
    assert "Its speed is not predicted, since this RAM was not measured" in said
    assert not rates.exists()
    _, said = begun(server, -1, fit=REAL_TIME)
    assert re.search(r"[\d.]+ frames a second are predicted, by what was measured on cpu ", said)
    (known,) = json.loads(rates.read_text()).values()
    rates.write_text(json.dumps({name: {**known, "products": 1.0} for name in json.loads(rates.read_text())}))
    slow, said = begun(server, -1, fit=REAL_TIME)
    assert "That is less than the 16 of real time: take a smaller picture" in said, "it was not measured again"
    assert len(slow["config"]["denoising_steps"]) == 2
    rates.unlink()


def test_training_refuses_settings_that_are_to_be_fitted(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    inputs = server.get("/object_info/SFTrain")["SFTrain"]["input"]["required"]
    values = {name: one[1]["default"] for name, one in inputs.items() if "default" in (one[1] if len(one) > 1 else {})}
    wires = {"model": tiny.model, "clip": tiny.clip, "settings": settings(graph, fit=FIT)}
    graph("SFTrain", **{**values, **wires})
    with pytest.raises(PromptFailed, match="which Self Forcing Session does: set 'fit' of Rollout"):
        server.run(graph.prompt)

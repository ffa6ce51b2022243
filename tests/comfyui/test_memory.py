"""The cache is counted before it is made, and freed when ComfyUI asks, when memory runs out, when nobody needs it."""

from __future__ import annotations

import re

import pytest
import torch

from sf_core.byte_units import format_bytes
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, RED, Graph, Out, Tiny, facts, forget_all, forget_chunks, latents, probe, tensor
from tests.comfyui.sessions_api import offered
from tests.comfyui.wan_graphs import CUSTOM, session, unet
from tools.comfyui.server import PromptFailed, Server


def test_room_is_made_once_for_all_that_a_run_takes(server: Server) -> None:
    """For what is missing, when the model is loaded, not before each chunk; the prediction is what is allocated."""
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    empty = session(graph, base)
    made = graph("SFSampleChunks", session=empty, chunks=3)[0]
    numbers = probe(graph, empty, "empty"), probe(graph, made, "made")
    before = facts(server.run({k: v for k, v in graph.prompt.items() if k not in (numbers[1], made.node)}), numbers[0])
    after = facts(server.run(graph.prompt), numbers[1])
    assert before["cache_bytes"] == 0
    assert after["cache_bytes"] == after["predicted_bytes"] > 0
    asked = [nbytes for nbytes in after["requests"] if nbytes >= after["working_bytes"]]
    assert asked == [after["predicted_bytes"] + after["working_bytes"]]


def test_a_joint_recache_is_counted_said_and_given_room(server: Server) -> None:
    """It passes the whole window at once, which takes more than a chunk: where a node asks for it, and a timeline."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    begun = tiny.session(BLUE, settings=graph("SFRolloutSettings", **{**CUSTOM, "window_frames": 12})[0])
    first = tiny.sampled(begun, 6)
    switch = {"session": first, "positive": tiny.text(RED), "recache": False, "joint": True}
    switched = graph("SFSwitchPrompt", **switch)[0]
    numbers = probe(graph, first, "first"), probe(graph, switched, "switched")
    outputs = server.run(graph.prompt)
    plain, joint = (facts(outputs, number)["working_bytes"] for number in numbers)
    assert joint > 2 * plain
    longer = probe(graph, tiny.sampled(graph("ProbeAfter", session=switched, after=first)[0], 1), "longer")
    found = facts(server.run(graph.prompt), longer)
    assert found["requests"][-1] == joint
    said = []
    for rows in (f"0: {BLUE}", f"0: {BLUE}\n1.5 joint: {RED}"):
        timeline = graph("SFPromptTimeline", rows=rows, clip=tiny.clip, recache=False)[0]
        streamed = graph("SFStreamVideo", session=begun, vae=tiny.vae, seconds=2.0, fps=16.0, timeline=timeline)
        name = f"joint-{streamed.number}"
        with server.events(name) as events:
            server.run(graph.prompt, client_id=name)
            events.wait_for_end()
        texts = [event.data["text"] for event in events.of("text")]
        said.append([text for text in texts if " decoder " in text and "a joint recache" in text])
    assert [bool(texts) for texts in said] == [False, True]


def test_weights_count_in_the_dtype_that_they_have_on_the_device(server: Server) -> None:
    """Not in the file's: under DynamicVRAM the parameters of a float32 file stay float32."""
    graph = Graph()
    base = unet(server, graph, "archived.safetensors", models.wan(seed=5))
    number = probe(graph, session(graph, graph("ProbeArchivedDtype", model=base)[0]))
    values = sum(weight.numel() for weight in models.wan(seed=5).values())
    assert facts(server.run(graph.prompt), number)["weight_bytes"] == 2 * values


def test_another_window_is_planned_without_the_old_cache(server: Server) -> None:
    """It is freed before the new one is made, so all of the new one is asked for."""
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    first = graph("SFSampleChunks", session=session(graph, base), chunks=1)[0]
    wider = graph("ProbeAfter", session=session(graph, base, window_frames=9), after=first)[0]
    number = probe(graph, graph("SFSampleChunks", session=wider, chunks=1)[0])
    found = facts(server.run(graph.prompt), number)
    assert found["cache_bytes"] == found["predicted_bytes"]
    assert found["requests"][-1] == found["predicted_bytes"] + found["working_bytes"]


def test_another_patch_or_an_unloaded_model_is_loaded_again(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    made = graph("SFSampleChunks", session=session(graph, base), chunks=1)[0]
    again = graph("SFSampleChunks", session=made, chunks=1)[0]
    pushed = graph("SFSampleChunks", session=graph("ProbeUnload", session=again)[0], chunks=1)[0]
    numbers = [probe(graph, made, "made"), probe(graph, graph("ProbeAfter", session=again, after=made)[0], "again")]
    outputs = server.run(graph.prompt)
    assert sum(len(facts(outputs, number)["requests"]) for number in numbers) == 1
    number = probe(graph, pushed, "pushed")
    outputs = server.run(graph.prompt)
    assert sum(len(facts(outputs, number)["requests"]) for number in (*numbers, number)) == 1


def test_another_model_that_needs_the_memory_gets_the_cache(server: Server) -> None:
    """Also under DynamicVRAM, which leaves weights to be evicted page by page. No result changes."""
    results = []
    for demanded in (False, True):
        forget_all(server)
        graph = Graph()
        base = unet(server, graph, "base.safetensors", models.wan())
        made = graph("SFSampleChunks", session=session(graph, base), chunks=3)[0]
        demand = graph("ProbeDemand", session=made)
        last = graph("SFSampleChunks", session=demand[0] if demanded else made, chunks=2)[0]
        number = probe(graph, last)
        outputs = server.run(graph.prompt)
        results.append(latents(outputs, number))
        found = facts(outputs, demand.number)
        if demanded:
            assert found["before"] > found["after"] == 0
            assert found["weights"] == found["dynamic"]
    assert torch.equal(*results)


def test_the_cache_goes_with_the_last_node_of_a_prompt_that_can_use_it(server: Server) -> None:
    held = []
    for taken in (False, True):
        forget_all(server)
        graph = Graph()
        tiny = Tiny.of(graph)
        empty = tiny.session(BLUE)
        probe(graph, empty)
        streamed = graph("SFStreamVideo", session=empty, vae=tiny.vae, seconds=0.5, fps=16.0)
        if taken:
            graph("ProbeAfter", session=streamed[1], after=streamed[1])
        server.run(graph.prompt)
        number = graph("ProbeLive").number
        held.append(facts(server.run(graph.prompt), number))
    assert held[0] == {"alive": 1, "bytes": 0}
    assert held[1]["bytes"] > 0


def test_decoding_takes_the_room_of_weights_before_that_of_the_cache(server: Server) -> None:
    kept, frames = [], []
    for short in (0, 2**14, 2**40):
        forget_all(server)
        graph = Graph()
        tiny = Tiny.of(graph)
        card = graph("ProbeCard", session=tiny.sampled(tiny.session(BLUE), 3), short=short)[0]
        decoded = graph("SFDecodeChunks", session=card, vae=tiny.vae, fps=16.0)
        number = probe(graph, graph("ProbeCard", session=decoded[1], short=-1)[0])
        pictures = graph("ProbeTensor", image=decoded[0], name=f"short-{short}").number
        outputs = server.run(graph.prompt)
        kept.append(facts(outputs, number)["cache_bytes"] > 0)
        frames.append(tensor(outputs, pictures))
    assert kept == [True, True, False]
    assert all(torch.equal(frames[0], other) for other in frames)


def test_the_session_node_says_what_it_takes(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    number = probe(graph, tiny.sampled(tiny.session(BLUE, seed=123), 1))
    with server.events("memory") as events:
        predicted = facts(server.run(graph.prompt, client_id="memory"), number)["predicted_bytes"]
        events.wait_for_end()
    said = [event.data["text"] for event in events.of("text")]
    assert re.match(
        r"Fits the [\d.]+ GiB of your RAM: cache [\d.]+ (MiB|KiB) at window 6, weights [\d.]+ MiB, a chunk", said[0]
    )
    assert format_bytes(predicted) in said[0]


def test_a_size_that_the_model_was_not_trained_at_is_said(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    inputs = {"model": tiny.model, "positive": tiny.text(BLUE), "width": 96, "height": 64, "seed": 0}
    probe(graph, graph("SFSession", **inputs)[0])
    with server.events("size") as events:
        server.run(graph.prompt, client_id="size")
        events.wait_for_end()
    assert events.of("text")[0].data["text"].endswith("This model was trained at 64 x 64 pixels")


def test_a_model_that_does_not_stream_is_said(server: Server) -> None:
    said = []
    for weights in ("self forcing", "teacher"):
        graph = Graph()
        parts = graph("SFLoadTiny", weights=weights)
        text = graph("CLIPTextEncode", text=BLUE, clip=parts[1])[0]
        inputs = {"model": parts[0], "positive": text, "width": 64, "height": 64, "seed": 0}
        number = graph("SFSession", **inputs).number
        probe(graph, Out(number))
        with server.events(f"says {weights}") as events:
            server.run(graph.prompt, client_id=events.client_id)
            events.wait_for_end()
        said.append(events.of("text")[0].data["text"])
    assert "not made for streaming" not in said[0]
    assert said[1].endswith(
        "The teacher is not made for streaming: in a few steps its video is broken. It is for training"
    )


def test_a_session_on_a_wire_is_never_pickled(server: Server) -> None:
    """Caches of other packs, which write outputs to disk, leave it alone."""
    graph = Graph()
    tiny = Tiny.of(graph)
    number = probe(graph, tiny.sampled(tiny.session(BLUE), 1))
    assert "Save Session" in facts(server.run(graph.prompt), number)["pickles"]


def test_free_memory_drops_the_cache_and_changes_no_result(server: Server) -> None:
    """With unload_models alone the session lives on in the executor's cache, and rebuilds what it needs."""
    forget_all(server)

    def run(chunks: int) -> torch.Tensor:
        graph = Graph()
        tiny = Tiny.of(graph)
        first = tiny.sampled(tiny.session(BLUE), 4)
        number = probe(graph, first if chunks == 4 else tiny.sampled(first, chunks - 4))
        outputs = server.run(graph.prompt)
        cached.append(facts(outputs, number)["cache_bytes"])
        return latents(outputs, number)

    cached: list[int] = []
    straight = run(7)
    forget_all(server)
    run(4)
    assert cached[-1] > 0
    forget_chunks(server)
    server.free(unload_models=True, free_memory=False)
    run(4)  # nothing of it is computed; an idle server frees within a second, a busy one after this
    assert torch.equal(run(4), straight[:, :, :12])
    assert cached[-1] == 0
    assert torch.equal(run(7), straight)


def test_the_cache_goes_with_the_sessions_last_user(server: Server) -> None:
    """Also while its model stays: here the second graph still has it."""
    forget_all(server)
    for with_session in (True, False, False):
        graph = Graph()
        tiny = Tiny.of(graph)
        graph("ProbeCalls", name="none", after=tiny.model)
        number = graph("ProbeLive").number
        if with_session:
            probe(graph, tiny.sampled(tiny.session(BLUE), 2))
        found = facts(server.run(graph.prompt), number)  # the executor lets go of an earlier graph's outputs at its end
    assert found == {"alive": 0, "bytes": 0}


def test_models_pushed_out_between_chunks_change_nothing(server: Server) -> None:
    forget_all(server)
    results = []
    for pushed in (False, True):
        forget_chunks(server)
        graph = Graph()
        base = unet(server, graph, "base.safetensors", models.wan())
        made = session(graph, base)
        for _ in range(4):
            made = graph("SFSampleChunks", session=made, chunks=1)[0]
            made = graph("ProbeUnload", session=made)[0] if pushed else made
        number = probe(graph, made)
        results.append(latents(server.run(graph.prompt), number))
    assert torch.equal(*results)


@pytest.mark.parametrize("node", ["SFSampleChunks", "SFStreamVideo"])
def test_nothing_of_the_cache_is_left_when_an_out_of_memory_error_is_told(server: Server, node: str) -> None:
    """At once, without a garbage collection, and before what is free is measured."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    empty = tiny.session(BLUE, model=graph("ProbeOutOfMemory", model=tiny.model, at=90)[0])
    if node == "SFSampleChunks":
        probe(graph, tiny.sampled(empty, 5))
    else:
        graph("SFStreamVideo", session=empty, vae=tiny.vae, seconds=4.0, fps=16.0)
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    graph = Graph()
    number = graph("ProbeFreed").number
    found = facts(server.run(graph.prompt), number)
    assert found["caches"] == 1
    assert found["alive"]
    assert not any(found["alive"])
    assert "ran out of memory" in str(failure.value)
    assert "OutOfMemoryError" in failure.value.exception_type, "ComfyUI takes it for its own"


def test_out_of_memory_in_the_first_chunk_does_not_say_that_chunks_are_kept(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    empty = tiny.session(BLUE, model=graph("ProbeOutOfMemory", model=tiny.model, at=2)[0])
    probe(graph, tiny.sampled(empty, 2))
    with pytest.raises(PromptFailed, match="ran out of memory") as failure:
        server.run(graph.prompt)
    assert "are kept" not in str(failure.value)
    graph = Graph()
    graph("ProbeFreed")
    server.run(graph.prompt)


def test_a_decoder_that_runs_out_of_memory_says_what_would_fit_and_the_next_try_does(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    sampled = tiny.sampled(tiny.session(BLUE), 2)
    graph("PreviewImage", images=graph("SFDecodeChunks", session=sampled, vae=tiny.vae, fps=16.0)[0])
    failing = Graph()
    tiny = Tiny.of(failing)
    vae = failing("ProbeVaeOutOfMemory", vae=tiny.vae, call="decode_next", times=2)[0]
    decoded = failing("SFDecodeChunks", session=tiny.sampled(tiny.session(BLUE), 2), vae=vae, fps=16.0)
    failing("PreviewImage", images=decoded[0])
    with pytest.raises(PromptFailed, match=r"ran out of memory.*it has been freed\. ") as failure:
        server.run(failing.prompt)
    assert "OutOfMemoryError" in failure.value.exception_type
    server.run(graph.prompt)


def test_pictures_are_encoded_sparingly_where_memory_runs_out(server: Server) -> None:
    """With the same latents; what does not fit even so says what would, and everything is free."""
    given = []
    for times in (0, 1, 2):
        forget_all(server)
        graph = Graph()
        tiny = Tiny.of(graph)
        clip = graph("ProbeFrames", frames=9, width=64, height=64)[0]
        vae = graph("ProbeVaeOutOfMemory", vae=tiny.vae, call="encode_next", times=times)[0] if times else tiny.vae
        begun = graph("SFStartFromImages", session=tiny.session(BLUE), image=clip, vae=vae)[0]
        number = probe(graph, begun)
        if times < 2:
            given.append(latents(server.run(graph.prompt), number))
            continue
        with pytest.raises(PromptFailed, match=r"ran out of memory; it has been freed\. \d+ x \d+ pixels would fit"):
            server.run(graph.prompt)
    assert torch.equal(*given)
    assert given[0].shape[2] == 3
    assert "encoding one by one, more slowly" in server.log_tail(60)


def test_a_decoder_that_runs_out_of_memory_makes_the_same_video_sparingly(server: Server) -> None:
    """As ComfyUI's own VAE Decode goes on with tiles; frame by frame there are no seams."""
    frames = []
    for fails in (False, True):
        forget_all(server)
        graph = Graph()
        tiny = Tiny.of(graph)
        vae = graph("ProbeVaeOutOfMemory", vae=tiny.vae, call="decode_next", times=1)[0] if fails else tiny.vae
        decoded = graph("SFDecodeChunks", session=tiny.sampled(tiny.session(BLUE), 2), vae=vae, fps=16.0)
        number = graph("ProbeTensor", image=decoded[0], name=f"sparing-{fails}").number
        frames.append(tensor(server.run(graph.prompt), number))
    assert torch.equal(*frames)
    assert "decoding one by one, more slowly" in server.log_tail(40)


def test_running_out_of_memory_frees_the_cache_and_says_what_would_fit(server: Server) -> None:
    """What was made is kept, and the same graph goes on from it."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    model = graph("ProbeAttention", model=tiny.model, name="full", at=90, does="out of memory")[0]
    empty = tiny.session(BLUE, model=model)
    made = tiny.sampled(empty, 5)
    number, before = probe(graph, made), probe(graph, empty, "before")
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert "ran out of memory" in str(failure.value)
    assert "2 chunks made so far are kept" in str(failure.value)
    assert "An int8 cache would fit: it takes" in str(failure.value)
    assert any(name.startswith("failed at chunk 2") for name in offered(server))
    rest = {k: v for k, v in graph.prompt.items() if k not in (made.node, number)}
    assert facts(server.run(rest), before)["cache_bytes"] == 0
    found = facts(server.run(graph.prompt), number)
    assert found["chunks"] == 5

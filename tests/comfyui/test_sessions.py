"""What a user does with sessions in graphs: begin with pictures, change prompts over time, save, load, go on."""

from __future__ import annotations

import json
import shutil
from typing import Any

import av
import pytest
import torch

from sf_core.tiny import load_vae
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, RED, SAVE, Graph, Out, Tiny, facts, forget_all, latents, probe, tensor
from tests.comfyui.wan_graphs import sampled, unet
from tools.comfyui.checkout import ROOT
from tools.comfyui.server import PromptFailed, Server


def test_a_video_begins_with_its_picture(server: Server) -> None:
    """Image-to-video: the picture is the first frame, scaled and cut to the session's size."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    image = graph("ProbeFrames", frames=1, width=160, height=96)[0]
    begun = graph("SFStartFromImages", session=tiny.session(), image=image, vae=tiny.vae)[0]
    made = graph("SFStreamVideo", session=begun, vae=tiny.vae, seconds=1.0, fps=16.0)
    number = probe(graph, made[1])
    shown = graph("ProbeTensor", image=graph("GetVideoComponents", video=made[0])[0], name="shown").number
    alone = graph("SFDecodeChunks", session=begun, vae=tiny.vae, fps=16.0)[0]
    first = graph("ProbeTensor", image=alone, name="first").number
    outputs = server.run(graph.prompt)
    found = facts(outputs, number)
    assert (found["chunks"], found["decoded"]) == (2, 7)
    frames = tensor(outputs, shown)
    assert frames.shape == (25, 64, 64, 3)
    assert (frames[0] - tensor(outputs, first)[0]).abs().mean() < 0.02


def test_a_grey_picture_and_one_with_alpha_begin_a_video(server: Server) -> None:
    """Of one channel, of two (with alpha), of four, as nodes of other packs give them. Alpha is dropped."""
    begun = {}
    for channels in (1, 2, 3, 4):
        graph = Graph()
        tiny = Tiny.of(graph)
        for width in (64, 160):  # of the session's size, and to be scaled
            image = graph("ProbeFrames", frames=1, width=width, height=64, channels=channels)[0]
            session = graph("SFStartFromImages", session=tiny.session(), image=image, vae=tiny.vae)[0]
            number = probe(graph, session, f"{channels}-{width}")
            begun[channels, width] = latents(server.run(graph.prompt), number)
    for width in (64, 160):
        assert torch.equal(begun[1, width], begun[2, width])
        assert torch.equal(begun[3, width], begun[4, width])
        assert not torch.equal(begun[1, width], begun[3, width])


def test_a_picture_brighter_than_white_is_cut_off_and_one_of_nan_is_named(server: Server) -> None:
    """Also where it need not be scaled: scaling cuts it off by itself."""
    graph = Graph()
    tiny = Tiny.of(graph)

    def begun(by: str) -> str:
        image = graph("ProbeFrames", frames=1, width=64, height=64, by=by)[0]
        session = graph("SFStartFromImages", session=tiny.session(), image=image, vae=tiny.vae)[0]
        return probe(graph, session, f"by {by}")

    bright, brighter, white = begun("1e20"), begun("1e25"), begun("1e30")
    outputs = server.run(graph.prompt)
    assert torch.equal(latents(outputs, bright), latents(outputs, brighter))
    assert torch.equal(latents(outputs, bright), latents(outputs, white))
    for by in ("nan", "inf"):
        graph = Graph()
        tiny = Tiny.of(graph)
        begun(by)
        with pytest.raises(PromptFailed, match="the images hold NaN or Inf: check the node that made them"):
            server.run(graph.prompt)


@pytest.mark.parametrize(("frames", "used"), [(9, 3), (30, 6), (81, 21)])
def test_a_clip_is_extended_from_as_much_of_its_end_as_fits(server: Server, frames: int, used: int) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    clip = graph("ProbeFrames", frames=frames, width=64, height=64)[0]
    begun = graph("SFStartFromImages", session=tiny.session(), image=clip, vae=tiny.vae)[0]
    numbers = probe(graph, begun, "begun"), probe(graph, tiny.sampled(begun, 2), "longer")
    count = 4 * used - 3
    end = graph("ImageFromBatch", image=clip, batch_index=frames - count, length=count)[0]
    encoded = graph("ProbeTensor", latent=graph("VAEEncode", pixels=end, vae=tiny.vae)[0]).number
    outputs = server.run(graph.prompt)
    context, vae = latents(outputs, numbers[0]), load_vae()
    want = (tensor(outputs, encoded) - vae.mean.view(-1, 1, 1, 1)) / vae.std.view(-1, 1, 1, 1)
    assert context.shape == want.shape == (1, 16, used, 8, 8)
    assert (context - want).abs().max() <= 1e-4 * want.abs().max()
    assert torch.equal(latents(outputs, numbers[1])[:, :, :used], context)
    assert facts(outputs, numbers[1])["chunks"] == 2


def test_what_was_rolled_again_is_decoded_again(server: Server) -> None:
    """Rewind takes decoded frames back too; of the rest nothing is decoded twice."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    three = graph("SFDecodeChunks", session=tiny.sampled(tiny.session(BLUE), 3), vae=tiny.vae, fps=16.0)
    again = tiny.sampled(graph("SFRewind", session=three[1], chunks=1, new_seed=9)[0], 2)
    rest = graph("SFDecodeChunks", session=again, vae=tiny.vae, fps=16.0)[0]
    whole = graph("SFDecodeChunks", session=tiny.sampled(tiny.session(BLUE), 3), vae=tiny.vae, fps=16.0)[0]
    numbers = [graph("ProbeTensor", image=image, name=f"{i}").number for i, image in enumerate((three[0], rest, whole))]
    outputs = server.run(graph.prompt)
    first, second, straight = (tensor(outputs, number) for number in numbers)
    assert (len(first), len(second)) == (33, 24)
    assert torch.equal(first, straight)
    assert not torch.equal(second[:12], straight[21:])


def timed(graph: Graph, tiny: Tiny, rows: str, recache: bool = False, seconds: float = 8.0) -> Out:
    timeline = graph("SFPromptTimeline", rows=rows, clip=tiny.clip, recache=recache)[0]
    inputs = {"vae": tiny.vae, "seconds": seconds, "fps": 16.0, "timeline": timeline}
    return graph("SFStreamVideo", session=tiny.session(RED), **inputs)[1]


@pytest.mark.parametrize("recache", [False, True])
def test_a_timeline_is_switching_prompts_by_hand(server: Server, recache: bool) -> None:
    """A prompt holds from the first chunk that begins at its second or after it: here the sixth (frame 57)."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    number = probe(graph, timed(graph, tiny, f"# a comment\n\n0: {RED}\n3.4: {BLUE}\n", recache), "timeline")
    first = tiny.sampled(tiny.session(RED), 5)
    switched = graph("SFSwitchPrompt", session=first, positive=tiny.text(BLUE), recache=recache)[0]
    by_hand = probe(graph, tiny.sampled(switched, 6), "by hand")
    outputs = server.run(graph.prompt)
    assert torch.equal(latents(outputs, number), latents(outputs, by_hand))


def test_a_timeline_without_a_first_row_begins_with_the_sessions_prompt(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    numbers = [
        probe(graph, timed(graph, tiny, rows), name)
        for name, rows in (("implied", f"3.4: {BLUE}"), ("said", f"0: {RED}\n3.4: {BLUE}"))
    ]
    outputs = server.run(graph.prompt)
    assert torch.equal(*(latents(outputs, number) for number in numbers))


def test_a_saved_session_goes_on_as_if_it_had_never_stopped(server: Server) -> None:
    """Also after the server was started anew; Load Session lists it."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    five = tiny.sampled(tiny.session(BLUE), 5)
    saved = graph("SFSaveSession", session=five, filename_prefix="sessions/kept").number
    whole = probe(graph, tiny.sampled(five, 3))
    outputs = server.run(graph.prompt)
    want, name = latents(outputs, whole), outputs[saved]["text"][0].split(":")[0]
    picture = server.base / "input" / "red_circle.png"  # a template loads a file of this name
    picture.write_bytes(b"the user's own")
    server.restart()
    assert picture.read_bytes() == b"the user's own"
    shutil.copy(ROOT / "workflows" / "input" / picture.name, picture)
    assert name in server.object_info()["SFLoadSession"]["input"]["required"]["file"][1]["options"]
    graph = Graph()
    tiny = Tiny.of(graph)
    loaded = graph("SFLoadSession", model=tiny.model, file=name, allow_other_model=False)[0]
    number = probe(graph, tiny.sampled(loaded, 3))
    assert torch.equal(latents(server.run(graph.prompt), number), want)


def test_a_video_says_how_it_was_made(server: Server) -> None:
    """Workflow and prompt for the editor, and the pack's own record, through core's Save Video."""
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(RED, seed=77), vae=tiny.vae, seconds=1.0, fps=16.0)
    saved = graph("SaveVideo", video=stream[0], filename_prefix="video/record", **SAVE).number
    workflow = {"nodes": [], "links": [], "version": 0.4}
    prompt_id = server.submit(graph.prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    outputs = server.wait(prompt_id)["outputs"]
    for path in server.files({number: outputs[number] for number in (saved, stream.number)}):
        with av.open(str(path)) as container:
            metadata: dict[str, Any] = {k: json.loads(v) for k, v in container.metadata.items() if v[:1] in "{["}
        assert metadata["workflow"] == workflow
        sent = {
            number: {k: v for k, v in node.items() if k != "is_changed"} for number, node in metadata["prompt"].items()
        }
        assert sent == graph.prompt
        assert metadata["self_forcing"]["seeds"] == [77]
        assert metadata["self_forcing"]["chunks"] == 2
        assert metadata["self_forcing"]["settings"]["window_frames"] == 6, "of the tiny model"


def test_weights_that_stay_out_of_the_device_give_the_same_video(server: Server) -> None:
    """As on a card that is too small: every weight, and the LoRA on it, is brought in when its module is called."""
    models.put(server, "loras", "lora.safetensors", models.lora()[0])
    results = []
    for offloaded in (False, True):
        forget_all(server)
        graph = Graph()
        base = unet(server, graph, "base.safetensors", models.wan())
        lora = {"lora_name": "lora.safetensors", "strength_model": models.STRENGTH}
        model = graph("LoraLoaderModelOnly", model=base, **lora)[0]
        results.append(sampled(server, graph, graph("ProbeNoVram", model=model, on=offloaded)[0]))
    assert (results[0] - results[1]).abs().max() <= 1e-5
    graph = Graph()
    number = graph("ProbeOffloaded").number
    assert server.run(graph.prompt)[number]["offloaded"][0] > 0

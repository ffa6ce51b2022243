"""Bad input gets a message that says what was wrong, what was expected and what to do; nothing made before is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Out, Tiny, facts, forget_all, probe
from tests.comfyui.sessions_api import offered
from tests.comfyui.wan_graphs import CUSTOM, SIZE, session, unet
from tests.vae.networks import taehv_state, wan_vae_state
from tools.comfyui.server import PromptFailed, PromptRejected, Server

Build = Callable[[Graph, Tiny], Out]


def refused(server: Server, graph: Graph) -> str:
    with pytest.raises((PromptFailed, PromptRejected)) as failure:
        server.run(graph.prompt)
    return str(failure.value)


def says(server: Server, build: Callable[[Graph, Tiny], Any], *words: str) -> None:
    """The graph is refused with all of ``words``, and the error is one a user reads: no shape mismatch of torch's."""
    graph = Graph()
    out = build(graph, Tiny.of(graph))
    if isinstance(out, Out):
        probe(graph, out)
    message = refused(server, graph)
    for word in words:
        assert word in message
    assert "RuntimeError" not in message


def start(graph: Graph, tiny: Tiny, **changes: Any) -> Out:
    inputs = {"model": tiny.model, "positive": tiny.text(BLUE), "width": 64, "height": 64, "seed": 0, **changes}
    return graph("SFSession", **inputs)[0]


def custom(graph: Graph, **changes: Any) -> Out:
    return graph("SFRolloutSettings", **{**CUSTOM, **changes})[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 72}, ("width is 72 pixels", "multiples of 16", "64 and 80")),
        ({"height": 20}, ("height is 20 pixels", "16 and 32")),
    ],
)
def test_a_size_that_does_not_divide(server: Server, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    says(server, lambda graph, tiny: start(graph, tiny, **changes), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window_frames": 3, "sink_frames": 2}, ("window_frames is 3", "need at least 5", "raise the window")),
        ({"denoising_steps": "1000, 750, x"}, ("denoising steps are '1000, 750, x'", "such as 1000, 750, 500, 250")),
        ({"denoising_steps": "250, 500"}, ("denoising_steps is (250, 500)", "falling")),
        ({"denoising_steps": ""}, ("denoising_steps is ()",)),
    ],
)
def test_settings_that_cannot_work(server: Server, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    says(server, lambda graph, tiny: start(graph, tiny, settings=custom(graph, **changes)), *words)


def test_a_text_encoder_of_another_model(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        text = graph("ProbeConditioning", seed=0, rows=12, width=768, scale=1.0, prompts=1)[0]
        return start(graph, tiny, positive=text)

    says(server, build, "[1, 12, 768]", "[batch, rows, 64]", "another model's text encoder")


def test_several_prompts_in_one_conditioning(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        text = graph("ProbeConditioning", seed=0, rows=12, width=64, scale=1.0, prompts=2)[0]
        return start(graph, tiny, positive=text)

    says(server, build, "holds 2 prompts", "exactly one", "Prompt Timeline")


def test_too_long_a_prompt(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        text = graph("ProbeConditioning", seed=0, rows=13, width=64, scale=1.0, prompts=1)[0]
        return start(graph, tiny, positive=text)

    says(server, build, "13 rows", "reads 12", "shorten it")


def test_a_word_that_the_tiny_model_does_not_know(server: Server) -> None:
    says(server, lambda graph, tiny: start(graph, tiny, positive=tiny.text("a red cat")), "'cat'", "circle", "violet")


def test_a_model_that_is_not_wan(server: Server) -> None:
    """Made of random weights that ComfyUI takes for SD 1.5's: its smallest checkpoint would be two gigabytes."""

    def build(graph: Graph, tiny: Tiny) -> Out:
        return start(graph, tiny, model=graph("ProbeOtherModel")[0])

    says(server, build, "not Wan 2.1", "Load Self Forcing Model")


def test_a_wan_model_led_by_images(server: Server) -> None:
    state = models.wan()
    wide = torch.cat([state["patch_embedding.weight"]] * 2 + [state["patch_embedding.weight"][:, :4]], dim=1)
    state["patch_embedding.weight"] = wide

    def build(graph: Graph, tiny: Tiny) -> Out:
        return start(graph, tiny, model=unet(server, graph, "led.safetensors", state))

    says(server, build, "36 channels", "text-to-video")


def test_a_vae_of_wan_2_2(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        vae = graph("ProbeOtherVAE", family="wan 2.2")[0]
        return graph("SFDecodeChunks", session=tiny.sampled(start(graph, tiny), 1), vae=vae, fps=16.0)[1]

    says(server, build, "latents of 48 channels and the model makes 16", "the VAE that belongs to this one")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_vae_of_another_model(server: Server, swapped: bool) -> None:
    """Wan's real VAE on the tiny model, whose latents have as many channels and the same size; and the reverse."""
    models.put(server, "vae", "other.safetensors", _wan_vae())

    def build(graph: Graph, tiny: Tiny) -> Out:
        if swapped:
            vae, made = tiny.vae, session(graph, unet(server, graph, "base.safetensors", models.wan()))
        else:
            vae, made = graph("VAELoader", vae_name="other.safetensors")[0], start(graph, tiny)
        return graph("SFDecodeChunks", session=tiny.sampled(made, 1), vae=vae, fps=16.0)[1]

    says(server, build, "normalises latents as the model does not", "belongs to another model", "Load Tiny Demo")


def test_a_taehv_on_the_tiny_model(server: Server) -> None:
    models.put(server, "vae", "taehv_other.safetensors", taehv_state(widths=(256, 128, 64, 64)))

    def build(graph: Graph, tiny: Tiny) -> Out:
        vae = graph("VAELoader", vae_name="taehv_other.safetensors")[0]
        return graph("SFDecodeChunks", session=tiny.sampled(start(graph, tiny), 1), vae=vae, fps=16.0)[1]

    says(server, build, "belongs to another model")


def test_a_preview_that_does_not_fit_leaves_no_run_behind(server: Server) -> None:
    """The VAE is refused before the run begins, so that none is left "running" for ever."""
    models.put(server, "vae", "other.safetensors", _wan_vae())

    def build(graph: Graph, tiny: Tiny) -> Out:
        vae = graph("VAELoader", vae_name="other.safetensors")[0]
        return graph("SFSampleChunks", session=start(graph, tiny), chunks=1, preview_vae=vae)[0]

    says(server, build, "belongs to another model")
    with server.events() as viewer:
        runs = server.post("/self_forcing/attach", {"client_id": viewer.client_id})["runs"]
    assert [run for run in runs if run["state"] == "running"] == []


def _wan_vae() -> dict[str, torch.Tensor]:
    state = wan_vae_state(dim=4, mult=(1, 2, 4, 4), temporal=(False, True, True), res_blocks=2, channels=16)
    return {name: value for name, value in state.items() if name not in ("mean", "std")}


def test_a_sampler_with_guidance_says_why_not(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> None:
        latent = graph("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)[0]
        text = tiny.text(BLUE)
        made = graph(
            "KSampler",
            model=tiny.model,
            positive=text,
            negative=text,
            latent_image=latent,
            seed=0,
            steps=4,
            cfg=6.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        )[0]
        graph("ProbeTensor", latent=made)

    says(server, build, "cfg 6", "guidance trained in", "Self Forcing Session")


def test_a_guider_has_no_place(server: Server) -> None:
    """ComfyUI itself names both types."""

    def build(graph: Graph, tiny: Tiny) -> Out:
        text = tiny.text(BLUE)
        guider = graph("CFGGuider", model=tiny.model, positive=text, negative=text, cfg=1.0)[0]
        return start(graph, tiny, model=guider)

    says(server, build, "GUIDER", "MODEL")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", ("the timeline is empty",)),
        ("a red circle", ("row 1", "'a red circle'", "second: prompt")),
        ("0: a red circle\nsoon: a blue circle", ("row 2", "second: prompt")),
        ("0: a red circle\n0: a blue circle", ("two rows at second 0",)),
        ("-1: a red circle", ("row 1",)),
        ("nan: a red circle", ("row 1",)),
        ("0: a red cat", ("'cat'",)),
    ],
)
def test_rows_of_a_timeline_that_are_none(server: Server, rows: str, words: tuple[str, ...]) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        timeline = graph("SFPromptTimeline", rows=rows, clip=tiny.clip, recache=False)[0]
        inputs = {"vae": tiny.vae, "seconds": 0.5, "fps": 16.0, "timeline": timeline}
        return graph("SFStreamVideo", session=start(graph, tiny), **inputs)[1]

    says(server, build, *words)


def test_more_is_taken_back_than_there_is(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        return graph("SFRewind", session=tiny.sampled(start(graph, tiny), 2), chunks=3, new_seed=-1)[0]

    says(server, build, "take back 3", "has 2")


def test_pictures_after_the_beginning(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        images = graph("ProbeFrames", frames=1, width=64, height=64)[0]
        return graph("SFStartFromImages", session=tiny.sampled(start(graph, tiny), 1), image=images, vae=tiny.vae)[0]

    says(server, build, "empty session", "3 latent frames")


def test_too_few_frames_to_extend(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        images = graph("ProbeFrames", frames=8, width=64, height=64)[0]
        return graph("SFStartFromImages", session=start(graph, tiny), image=images, vae=tiny.vae)[0]

    says(server, build, "8 frames are too few", "at least 9")


def test_nothing_left_to_decode(server: Server) -> None:
    def build(graph: Graph, tiny: Tiny) -> Out:
        once = graph("SFDecodeChunks", session=tiny.sampled(start(graph, tiny), 1), vae=tiny.vae, fps=16.0)[1]
        return graph("SFDecodeChunks", session=once, vae=tiny.vae, fps=16.0)[1]

    says(server, build, "no frames that were not decoded", "Sample Chunks")


def test_nan_in_latents_names_the_chunk_and_keeps_the_others(server: Server) -> None:
    forget_all(server)

    def build(graph: Graph, tiny: Tiny) -> Out:
        first = tiny.sampled(start(graph, tiny), 2)
        huge = graph("ProbeConditioning", seed=0, rows=12, width=64, scale=1e30, prompts=1)[0]
        return tiny.sampled(graph("SFSwitchPrompt", session=first, positive=huge, recache=False)[0], 2)

    says(server, build, "the latents of chunk 2 hold NaN or Inf")
    graph = Graph()
    tiny = Tiny.of(graph)
    number = probe(graph, tiny.sampled(start(graph, tiny), 2))
    assert facts(server.run(graph.prompt), number)["how"].split(":")[0] in ("kept", "same")  # not made again


def test_a_session_of_another_model_is_refused_unless_allowed(server: Server) -> None:
    graph = Graph()
    made = session(graph, unet(server, graph, "base.safetensors", models.wan()))
    saved = graph("SFSaveSession", session=made, filename_prefix="sessions/other").number
    name = server.run(graph.prompt)[saved]["text"][0].split(":")[0]
    for seed, allowed, words in ((9, False, "was made by the model"), (9, True, "")):
        graph = Graph()
        other = unet(server, graph, "another.safetensors", models.wan(seed))
        number = probe(graph, graph("SFLoadSession", model=other, file=name, allow_other_model=allowed)[0])
        if words:
            assert words in refused(server, graph)
        else:
            assert facts(server.run(graph.prompt), number)["chunks"] == 0
    graph = Graph()
    tiny = Tiny.of(graph)
    probe(graph, graph("SFLoadSession", model=tiny.model, file=name, allow_other_model=True)[0])
    message = refused(server, graph)
    assert "4096 wide" in message
    assert "Load the model that made it" in message


def test_a_session_file_cut_short(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    saved = graph("SFSaveSession", session=tiny.sampled(start(graph, tiny), 2), filename_prefix="sessions/cut").number
    name = server.run(graph.prompt)[saved]["text"][0].split(":")[0]
    path = server.base / "output" / "sessions" / name
    path.write_bytes(path.read_bytes()[:-100])
    graph = Graph()
    probe(graph, graph("SFLoadSession", model=Tiny.of(graph).model, file=name, allow_other_model=False)[0])
    assert "cut short" in refused(server, graph)


@pytest.mark.parametrize("name", ["no such file.session", "../../secret.session", "no session yet"])
def test_a_session_that_is_not_there(server: Server, name: str) -> None:
    graph = Graph()
    probe(graph, graph("SFLoadSession", model=Tiny.of(graph).model, file=name, allow_other_model=False)[0])
    message = refused(server, graph)
    assert "there is no" in message
    assert name not in offered(server) or name == "no session yet"


def test_a_checkpoint_that_is_none(server: Server) -> None:
    models.put(server, "diffusion_models", "noise.safetensors", {"some.weight": torch.zeros(4)})
    graph = Graph()
    model = graph("SFLoadModel", model_name="noise.safetensors", weight_dtype="default", preset="from the model")[0]
    text = graph("ProbeConditioning", seed=0, rows=12, width=64, scale=1.0, prompts=1)[0]
    probe(graph, graph("SFSession", model=model, positive=text, width=SIZE, height=SIZE, seed=0)[0])
    assert "not a Wan 2.1 transformer" in refused(server, graph)


def test_a_pickle_that_would_run_code(server: Server) -> None:
    path = server.base / "models" / "diffusion_models" / "evil.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": _Evil()}, path)
    graph = Graph()
    model = graph("SFLoadModel", model_name="evil.pt", weight_dtype="default", preset="from the model")[0]
    text = graph("ProbeConditioning", seed=0, rows=12, width=64, scale=1.0, prompts=1)[0]
    probe(graph, graph("SFSession", model=model, positive=text, width=SIZE, height=SIZE, seed=0)[0])
    message = refused(server, graph)
    assert "evil.pt" in message
    assert not (server.base / "owned").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('owned', 'w')",))

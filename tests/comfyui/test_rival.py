"""Against ComfyUI's own autoregressive sampler and its whole VAE decode: the same latents, the same frames."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sf_core.vae.taehv import load_taehv
from sf_core.vae.wan_vae import WAN_MEAN, WAN_STD
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Out, Tiny, facts, forget_all, latents, probe, tensor
from tests.comfyui.wan_graphs import unet
from tests.helpers import PARITY
from tests.vae.networks import taehv_state
from tools.comfyui.server import Server

SIZE = 64
ROUNDING = 2e-5  # of float32 through a whole decoder, in frames of 0..1: a two-hundredth of a step of 8 bits
MODEL_SPACE = [torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN_MEAN, WAN_STD)]


def wired(graph: Graph, model: Out, window: int) -> Out:
    settings = graph(
        "SFRolloutSettings",
        preset="custom",
        chunk_frames=3,
        window_frames=window,
        sink_frames=0,
        sink_position="absolute",
        denoising_steps="1000, 750, 500, 250",
        shift=5.0,
        warp_steps=True,
        context_noise=0.0,
        first_chunk_frames=0,
        first_chunk_steps="",
    )[0]
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    return graph("SFSession", model=model, positive=text, width=SIZE, height=SIZE, seed=0, settings=settings)[0]


@pytest.mark.parametrize("frames", [12, 21])
def test_cores_autoregressive_sampler_makes_the_same_latents(server: Server, frames: int) -> None:
    """Same weights, same noise, a window as long as the clip."""
    if "SamplerARVideo" not in server.object_info():
        pytest.skip(f"ComfyUI {server.checkout.version} has no autoregressive sampler to compare with")
    forget_all(server)
    graph = Graph()
    models.put(server, "diffusion_models", "base.safetensors", models.wan())
    causal = {"config": json.dumps({"transformer": {"causal_ar": True}})}
    models.put(server, "diffusion_models", "causal.safetensors", models.wan(), metadata=causal)
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    model = graph("UNETLoader", unet_name="causal.safetensors", weight_dtype="default")[0]
    empty = graph("EmptyARVideoLatent", width=SIZE, height=SIZE, length=4 * frames - 3, batch_size=1)[0]
    guider = graph("CFGGuider", model=model, positive=text, negative=text, cfg=1.0)[0]
    theirs = graph(
        "SamplerCustomAdvanced",
        noise=graph("RandomNoise", noise_seed=11)[0],
        guider=guider,
        sampler=graph("SamplerARVideo", num_frame_per_block=3)[0],
        sigmas=graph("BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0)[0],
        latent_image=empty,
    )[0]
    ours = wired(graph, unet(server, graph, "base.safetensors", models.wan()), window=frames)
    ours = graph("ProbeCoreNoise", session=ours, seed=11, frames=frames)[0]
    made = graph("SFSampleChunks", session=ours, chunks=frames // 3)
    numbers = [graph("ProbeTensor", latent=out, name=name).number for name, out in (("a", theirs), ("b", made[1]))]
    outputs = server.run(graph.prompt)
    theirs_, ours_ = (tensor(outputs, number) for number in numbers)
    assert ours_.shape == theirs_.shape == (1, 16, frames, SIZE // 8, SIZE // 8)
    assert theirs_.std() > 0.5
    assert (ours_ - theirs_).abs().max() <= 1e-5 * theirs_.abs().max()


def golden_vae(server: Server, graph: Graph) -> Out:
    models.put(server, "vae", "wan_small.safetensors", load_file(PARITY / "weights_vae.safetensors"))
    return graph("VAELoader", vae_name="wan_small.safetensors")[0]


def decoded_both_ways(server: Server, chunks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(ours chunk by chunk, core's of the whole)."""
    graph = Graph()
    session = wired(graph, unet(server, graph, "base.safetensors", models.wan()), window=9)
    vae = golden_vae(server, graph)
    parts: list[str] = []
    for count in chunks:
        sampled = graph("SFSampleChunks", session=session, chunks=count)
        decoded = graph("SFDecodeChunks", session=sampled[0], vae=vae, fps=16.0)
        parts.append(graph("ProbeTensor", image=decoded[0], name=f"part {len(parts)}").number)
        session = decoded[1]
    whole = graph("SFSampleChunks", session=_start(graph, session), chunks=sum(chunks))
    theirs = graph("ProbeTensor", image=graph("VAEDecode", samples=whole[1], vae=vae)[0], name="whole").number
    outputs = server.run(graph.prompt)
    return torch.cat([tensor(outputs, number) for number in parts]), tensor(outputs, theirs)


def _start(graph: Graph, session: Out) -> Out:
    """The empty session that ``session`` came from."""
    node = graph.prompt[session.node]
    while "session" in node["inputs"]:
        session = Out(*node["inputs"]["session"])
        node = graph.prompt[session.node]
    return session


@pytest.mark.parametrize("chunks", [(4,), (1, 1, 2), (2, 1, 1)])
def test_frames_decoded_chunk_by_chunk_are_those_of_cores_whole_decode(server: Server, chunks: tuple[int, ...]) -> None:
    forget_all(server)
    ours, theirs = decoded_both_ways(server, chunks)
    assert ours.shape == theirs.shape == (1 + 4 * (3 * sum(chunks) - 1), SIZE, SIZE, 3)
    assert torch.isfinite(theirs).all()
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= ROUNDING


def test_a_vaes_weights_are_copied_once_for_decodes_in_a_row(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    graph("ProbeVaeLoads")
    server.run(graph.prompt)  # counts from here on
    graph = Graph()
    made = wired(graph, unet(server, graph, "base.safetensors", models.wan()), window=9)
    vae = golden_vae(server, graph)
    for _ in range(3):
        sampled = graph("SFSampleChunks", session=made, chunks=1)[0]
        made = graph("SFDecodeChunks", session=sampled, vae=vae, fps=16.0)[1]
    number = graph("ProbeVaeLoads", after=made).number
    assert server.run(graph.prompt)[number]["loads"] == [1]


def test_two_sessions_decoded_in_turns_do_not_mix(server: Server) -> None:
    """There is one live decoder: whose it is, the session's past decides."""
    forget_all(server)
    graph = Graph()
    model, vae = unet(server, graph, "base.safetensors", models.wan()), golden_vae(server, graph)
    empty = wired(graph, model, window=9)
    other = graph("SFRewind", session=empty, chunks=0, new_seed=5)[0]
    parts: list[list[str]] = [[], []]
    numbers: list[str] = []
    sessions, last = [empty, other], empty
    for turn in range(2):
        for which in range(2):
            turned = graph("ProbeAfter", session=sessions[which], after=last)[0]
            sampled = graph("SFSampleChunks", session=turned, chunks=1)[0]
            decoded = graph("SFDecodeChunks", session=sampled, vae=vae, fps=16.0)
            name = f"turn {turn} of {which}"
            parts[which].append(graph("ProbeTensor", image=decoded[0], name=name).number)
            sessions[which] = last = decoded[1]
    for which, begun in enumerate((empty, other)):
        whole = graph("SFSampleChunks", session=begun, chunks=2)[1]
        image = graph("VAEDecode", samples=whole, vae=vae)[0]
        numbers.append(graph("ProbeTensor", image=image, name=f"whole {which}").number)
    outputs = server.run(graph.prompt)
    for which in range(2):
        ours = torch.cat([tensor(outputs, number) for number in parts[which]])
        assert (ours - tensor(outputs, numbers[which])).abs().max() <= ROUNDING


def test_pictures_are_encoded_as_by_core(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    images = graph("ProbeFrames", frames=9, width=SIZE, height=SIZE)[0]
    vae = golden_vae(server, graph)
    session = wired(graph, unet(server, graph, "base.safetensors", models.wan()), window=9)
    begun = graph("SFStartFromImages", session=session, image=images, vae=vae)[0]
    ours = probe(graph, begun)
    theirs = graph("ProbeTensor", latent=graph("VAEEncode", pixels=images, vae=vae)[0]).number
    outputs = server.run(graph.prompt)
    mean, std = MODEL_SPACE
    want = (tensor(outputs, theirs) - mean) / std
    assert (latents(outputs, ours) - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize(("dtype", "model_space"), [(torch.float16, True), (torch.float32, False)])
def test_a_taehv_file_decodes_through_cores_loader(server: Server, dtype: torch.dtype, model_space: bool) -> None:
    """taew2_1 comes in half precision and sees latents as the transformer does; lighttaew2_1 sees the VAE's."""
    forget_all(server)
    state = {name: value.to(dtype) for name, value in taehv_state(widths=(256, 128, 64, 64)).items()}
    name = f"taehv_{str(dtype).removeprefix('torch.')}.safetensors"
    models.put(server, "vae", name, state)
    graph = Graph()
    session = wired(graph, unet(server, graph, "base.safetensors", models.wan()), window=9)
    made = graph("SFSampleChunks", session=session, chunks=2)[0]
    number = probe(graph, made)
    vae = graph("VAELoader", vae_name=name)[0]
    frames = graph("ProbeTensor", image=graph("SFDecodeChunks", session=made, vae=vae, fps=16.0)[0]).number
    outputs = server.run(graph.prompt)
    z = latents(outputs, number)
    mean, std = MODEL_SPACE
    want = load_taehv({k: v.float() for k, v in state.items()}).decode(z if model_space else z * std + mean)[0]
    assert want.std() > 0.01
    assert (tensor(outputs, frames) - want).abs().max() <= 1e-4


def test_the_tiny_vae_decodes_a_latent_wire_as_the_session(server: Server) -> None:
    """Core's VAE Decode on the LATENT of Sample Chunks gives what Decode Chunks gives of the session."""
    graph = Graph()
    parts = Tiny.of(graph)
    made = graph("SFSampleChunks", session=parts.session(BLUE), chunks=3)
    ours = graph("SFDecodeChunks", session=made[0], vae=parts.vae, fps=16.0)[0]
    theirs = graph("VAEDecode", samples=made[1], vae=parts.vae)[0]
    numbers = [graph("ProbeTensor", image=image, name=name).number for name, image in (("a", ours), ("b", theirs))]
    outputs = server.run(graph.prompt)
    ours_, theirs_ = (tensor(outputs, number) for number in numbers)
    assert ours_.shape == theirs_.shape == (33, 64, 64, 3)
    assert (ours_ - theirs_).abs().max() <= ROUNDING


def test_facts_of_a_decoded_session(server: Server) -> None:
    graph = Graph()
    parts = Tiny.of(graph)
    made = parts.sampled(parts.session(BLUE), 2)
    decoded = graph("SFDecodeChunks", session=made, vae=parts.vae, fps=16.0)[1]
    numbers = probe(graph, made, "made"), probe(graph, decoded, "decoded")
    outputs = server.run(graph.prompt)
    assert [facts(outputs, number)["decoded"] for number in numbers] == [0, 6]

"""A quantised file through the real GGUF loader: its MODEL is one like any other."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, forget_all
from tests.comfyui.training_graphs import train
from tests.comfyui.wan_graphs import from_model, sampled, unet
from tools.comfyui.checkout import Unavailable, gguf_loader
from tools.comfyui.server import PromptFailed, Server

Q8 = gguf.GGMLQuantizationType.Q8_0


def write(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The matrices in 8 bits, the rest in float32; returns what the file's values mean."""
    writer, meant = gguf.GGUFWriter(str(path), arch="wan"), {}
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, weight in state.items():
        values, kind = weight.numpy(), gguf.GGMLQuantizationType.F32
        if weight.ndim == 2:
            values, kind = gguf.quants.quantize(values, Q8), Q8
        if weight.ndim > 4:  # more dimensions than the format has
            writer.add_array(f"comfy.gguf.orig_shape.{name}", tuple(int(size) for size in weight.shape))
            values = np.ascontiguousarray(values.reshape(-1))
        writer.add_tensor(name, values, raw_dtype=kind)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(values, Q8)) if kind == Q8 else weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_quantised_file_gives_the_latents_of_what_it_rounds_to(server: Server, with_lora: bool) -> None:
    try:
        gguf_loader()
    except Unavailable as missing:
        pytest.skip(f"the real GGUF loader: not run: {missing}")
    assert not {name: why for name, why in server.failed_packs().items() if "GGUF" in name}
    forget_all(server)
    path = server.base / "models" / "diffusion_models" / "small-Q8_0.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    meant = write(path, models.wan())
    models.put(server, "loras", "lora.safetensors", models.lora()[0])

    def made(graph: Graph, base: Out) -> Tensor:
        if with_lora:
            lora = {"lora_name": "lora.safetensors", "strength_model": models.STRENGTH}
            base = graph("LoraLoaderModelOnly", model=base, **lora)[0]
        return sampled(server, graph, from_model(graph, base))

    graph = Graph()
    quantised = made(graph, graph("UnetLoaderGGUF", unet_name=path.name)[0])
    graph = Graph()
    want = made(graph, unet(server, graph, "meant.safetensors", meant))
    graph = Graph()
    exact = made(graph, unet(server, graph, "base.safetensors", models.wan()))
    assert (
        quantised - want
    ).abs().max() <= 2e-3 * want.abs().max()  # the loader computes what it unpacks in half precision
    assert (quantised - want).norm() < 0.2 * (quantised - exact).norm()


def test_it_is_no_teacher_and_that_is_said(server: Server) -> None:
    try:
        gguf_loader()
    except Unavailable as missing:
        pytest.skip(f"the real GGUF loader: not run: {missing}")
    path = server.base / "models" / "diffusion_models" / "teacher-Q8_0.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, models.wan())
    graph = Graph()
    train(graph, "quantised", model=graph("UnetLoaderGGUF", unet_name=path.name)[0])
    with pytest.raises(PromptFailed, match="a quantised file cannot be trained over"):
        server.run(graph.prompt)

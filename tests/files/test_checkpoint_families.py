"""The names under which each family of the models is published: packed LoRAs, two sets, other embeddings, shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sf_core
from sf_core.files.checkpoint import open_source
from sf_core.files.convert import convert
from sf_core.files.weights import memory_weights, transformer_weights
from sf_core.model.two_sets import memory_name
from tests.files.formats import State, prefixed
from tests.helpers import random_model

STATE: State = dict(random_model(layers=2, dim=48, heads=4).state_dict())
OTHER: State = dict(random_model(layers=2, dim=48, heads=4, seed=1).state_dict())


def load(source: Any) -> sf_core.CausalWan:
    return sf_core.load_model(source, num_heads=4, text_len=6)


def assert_same(model: sf_core.CausalWan, state: State = STATE) -> None:
    parameters = dict(model.named_parameters())
    assert parameters.keys() == state.keys()
    assert all(torch.equal(parameters[name], state[name]) for name in state)


def in_rcm(state: State) -> State:
    """A state in Causal-rCM's form: the patch embedding is a Linear layer, and the trainer counts in the file."""
    rows = state["patch_embedding.weight"].flatten(1)  # columns: channel, frame, row, column
    return {**state, "patch_embedding.weight": rows, "accum_video_sample_counter": torch.tensor(7)}


def test_the_patch_embedding_may_be_linear(tmp_path: Path) -> None:
    assert_same(load(prefixed("net.", in_rcm(STATE))))
    torch.save(prefixed("net.", in_rcm(STATE)), tmp_path / "m.pt")
    assert_same(load(tmp_path / "m.pt"))
    turned = {**STATE, "patch_embedding.weight": STATE["patch_embedding.weight"].flatten(1).t().contiguous().t()}
    torch.save(turned, tmp_path / "turned.pt")
    assert_same(load(tmp_path / "turned.pt"))


def test_the_averaged_net_of_a_trainer_is_meant() -> None:
    assert_same(load(prefixed("net.", in_rcm(OTHER)) | prefixed("net_ema.", in_rcm(STATE))))


def packed(alpha: float | None = None) -> tuple[State, State]:
    """A trainer's model with PEFT's layers inside, and what it stands for."""
    generator = torch.Generator().manual_seed(3)
    state, merged = {}, {}
    for name, tensor in STATE.items():
        layer, _, kind = name.rpartition(".")
        if not (name.startswith("blocks.") and tensor.ndim == 2):
            state[
                name.replace(layer, f"{layer}.base_layer") if f"{layer}.weight" in STATE and ".ffn" in layer else name
            ] = tensor
            merged[name] = tensor
            continue
        up, down = (torch.randn(size, generator=generator) for size in ((tensor.shape[0], 4), (4, tensor.shape[1])))
        state |= {f"{layer}.base_layer.{kind}": tensor, f"{layer}.lora_A.critic.weight": down}
        state |= {f"{layer}.lora_B.critic.weight": up}
        merged[name] = torch.addmm(tensor, up, down)
    return prefixed("base_model.model.", state), merged


def test_a_lora_inside_the_file_is_merged(tmp_path: Path) -> None:
    state, merged = packed()
    torch.save({"generator_ema": state}, tmp_path / "m.pt")
    assert_same(load(tmp_path / "m.pt"), merged)
    convert(tmp_path / "m.pt", tmp_path / "clean.safetensors", num_heads=4, text_len=6)
    assert_same(load(tmp_path / "clean.safetensors"), merged)


def test_the_second_set_of_weights_is_told_apart() -> None:
    names = {
        "patch_embedding.weight": "memory_patch_embedding.weight",
        "text_embedding.0.bias": "memory_text_embedding.0.bias",
        "head.modulation": "memory_head.modulation",
        "head.head.weight": "memory_head.head.weight",
        "blocks.1.modulation": "blocks.1.memory_modulation",
        "blocks.0.self_attn.norm_q.weight": "blocks.0.self_attn.norm_q.memory_weight",
        "blocks.0.cross_attn.k.bias": "blocks.0.cross_attn.k.memory_bias",
        "blocks.0.norm3.weight": "blocks.0.norm3.memory_weight",
    }  # as published
    assert {name: memory_name(name) for name in names} == names
    both = prefixed("model._fsdp_wrapped_module.", STATE | {memory_name(n): tensor for n, tensor in OTHER.items()})
    for source in (both, {"generator_ema": both, "generator": both}):
        tensors = open_source(source)[0]
        plain, memory = transformer_weights(tensors), memory_weights(tensors)
        assert memory is not None
        assert {name: weight.stored for name, weight in plain.items()} == STATE
        assert {name: weight.stored for name, weight in memory.items()} == OTHER
    assert memory_weights(STATE) is None
    model = load(both)
    assert model.memory is not None
    assert_same(model.memory, OTHER)
    assert {
        name: weight for name, weight in model.named_parameters() if not name.startswith("memory.")
    }.keys() == STATE.keys()
    del both["model._fsdp_wrapped_module.memory_head.modulation"]
    with pytest.raises(ValueError, match=r"two sets of weights, but 1 of them are in one set only \(head.modulation"):
        transformer_weights(open_source(both)[0])


# Several files -------------------------------------------------------------------------------------------------------


def in_shards(folder: Path, index: bool = True) -> list[Path]:
    """A model in three files, as the 14B ones are published."""
    files = [folder / f"diffusion_pytorch_model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    names = list(STATE)
    for number, file in enumerate(files):
        save_file({name: STATE[name] for name in names[number::3]}, file)
    if index:
        where = {name: files[number % 3].name for number, name in enumerate(names)}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return files


def test_a_model_in_several_files_is_one_by_folder_index_or_part(tmp_path: Path) -> None:
    files = in_shards(tmp_path)
    for path in (tmp_path, tmp_path / "diffusion_pytorch_model.safetensors.index.json", *files):
        assert_same(load(path))


def test_parts_find_each_other_without_an_index(tmp_path: Path) -> None:
    files = in_shards(tmp_path, index=False)
    assert_same(load(files[1]))
    files[2].unlink()
    with pytest.raises(ValueError, match=r"a part of a model in 3 files; 1 are missing beside it: .*-00003-of-00003"):
        load(files[1])


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(load(tmp_path))


def test_an_index_names_files_beside_it_only(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match="which is no file beside it"):
        load(tmp_path)


def test_a_distributed_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(IsADirectoryError, match="a distributed checkpoint, as trainers write it"):
        load(tmp_path)

"""Every way in which the family's weights are stored gives the same parameters; a pickle that runs code is not run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sf_core
from sf_core.files.safetensors_file import mapped, open_tensors
from sf_core.files.weight_names import original_name
from sf_core.model.architecture import WanArchitecture
from tests.files.formats import GAN, State, diffusers, fsdp, prefixed
from tests.helpers import random_model

STATE: State = dict(random_model(layers=3, dim=48, heads=4).state_dict())
OTHER: State = {name: tensor + 1 for name, tensor in STATE.items()}


def load(source: Any, **settings: Any) -> sf_core.CausalWan:
    return sf_core.load_model(source, num_heads=4, text_len=6, **settings)


def assert_same(model: sf_core.CausalWan, state: State = STATE) -> None:
    parameters = dict(model.named_parameters())
    assert parameters.keys() == state.keys()
    assert all(torch.equal(parameters[name], state[name]) for name in state)


PREFIXES = [
    "model.",
    "net.",
    "diffusion_model.",
    "model.diffusion_model.",
    "module.",
    "model._orig_mod.",
    "_fsdp_wrapped_module.model._fsdp_wrapped_module.",
    "model.net.",
    "transformer.",
]
RENAMED: dict[str, State] = {
    **{prefix: prefixed(prefix, STATE) for prefix in PREFIXES},
    "wrapped in the middle": {fsdp(name): tensor for name, tensor in STATE.items()},
    "diffusers": {diffusers(name): tensor for name, tensor in STATE.items()},
    "diffusers, prefixed": {f"transformer.{diffusers(name)}": tensor for name, tensor in STATE.items()},
    "a word inside every name": {name.replace(".", ".model.", 1): tensor for name, tensor in STATE.items()},
}


@pytest.mark.parametrize("state", RENAMED.values(), ids=RENAMED.keys())
def test_any_naming_gives_the_same_parameters(state: State, tmp_path: Path) -> None:
    assert_same(load(state))
    save_file(state, tmp_path / "m.safetensors")
    assert_same(load(tmp_path / "m.safetensors"))
    torch.save(state, tmp_path / "m.pt")
    assert_same(load(tmp_path / "m.pt"))


def test_original_names_are_left_alone() -> None:
    assert [original_name(name) for name in STATE] == list(STATE)


GROUPED: dict[str, dict[str, Any]] = {
    "ema before generator": {"generator": prefixed("model.", OTHER), "generator_ema": prefixed("model.", STATE)},
    "generator alone": {"generator": prefixed("model.", STATE), "critic": prefixed("model.", OTHER), "step": 600},
    "ema not begun": {"generator": prefixed("model.", STATE), "generator_ema": None},
    "with the GAN's extras": {
        "generator_ema": prefixed("model.", STATE) | GAN | prefixed("model.", GAN),
        "critic": prefixed("model.", OTHER) | GAN,
    },
    "critic beside plain names": {**STATE, "critic": prefixed("model.", OTHER)},
    "a state dict in a group": {"state_dict": prefixed("model.", STATE), "epoch": 3, "lr": 1e-4},
    "ComfyUI's whole checkpoint": {
        **prefixed("model.diffusion_model.", STATE),
        "first_stage_model.decoder.conv1.weight": torch.ones(3),
        "text_encoders.umt5.shared.weight": torch.ones(3),
    },
}


@pytest.mark.parametrize("state", GROUPED.values(), ids=GROUPED.keys())
def test_the_group_that_is_meant_is_loaded(state: dict[str, Any], tmp_path: Path) -> None:
    assert_same(load(state))
    torch.save(state, tmp_path / "m.pt")
    assert_same(load(tmp_path / "m.pt"))


def test_a_file_of_groups_may_be_flat(tmp_path: Path) -> None:
    save_file(prefixed("generator_ema.model.", STATE) | prefixed("generator.model.", OTHER), tmp_path / "m.safetensors")
    assert_same(load(tmp_path / "m.safetensors"))


def test_two_models_in_one_file_are_not_mixed() -> None:
    with pytest.raises(ValueError, match=r"'model.*' and 'net.*' are both '.*': the file holds several models"):
        load(prefixed("model.", STATE) | prefixed("net.", OTHER))


def test_layouts_that_torch_can_store(tmp_path: Path) -> None:
    """Parameters, transposed tensors and views of one large storage."""
    flat = torch.cat([tensor.flatten() for tensor in STATE.values()])
    state, start = {}, 0
    for index, (name, tensor) in enumerate(STATE.items()):
        view = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
        turned = tensor.t().contiguous().t() if tensor.ndim == 2 else tensor
        state[name] = (view, turned, torch.nn.Parameter(tensor))[index % 3]
    torch.save(state, tmp_path / "m.pth")
    assert_same(load(tmp_path / "m.pth"))
    assert_same(load(tmp_path / "m.pth", dtype=torch.float64), {name: t.double() for name, t in STATE.items()})


# Dtypes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_weights(stored: torch.dtype, wanted: torch.dtype, suffix: str, tmp_path: Path) -> None:
    state = {name: tensor.to(stored) for name, tensor in STATE.items()}
    path = tmp_path / f"m.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save({"generator": state}, path)
    assert_same(load(path, dtype=wanted), {name: tensor.to(wanted) for name, tensor in state.items()})


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("rename", [str, diffusers])
def test_fp8_with_comfyuis_scales(
    suffix: str, dtype: torch.dtype, rename: Callable[[str], str], tmp_path: Path
) -> None:
    state: State = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    expected: State = {}
    for name, tensor in STATE.items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            scale = tensor.abs().max() / torch.finfo(dtype).max
            layer = rename(name).removesuffix(".weight")
            state[f"{layer}.weight"] = (tensor / scale).to(dtype)
            state[f"{layer}.{suffix}"] = scale.reshape(() if "0" in name else (1,))
            state[f"{layer}.scale_input"] = torch.ones(())
            state[f"{layer}.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
            expected[name] = state[f"{layer}.weight"].float() * scale
        else:
            state[rename(name)] = expected[name] = tensor
    save_file(prefixed("diffusion_model.", state), tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    assert_same(model, expected)
    weight = "blocks.1.self_attn.q.weight"
    assert float((model.get_parameter(weight) - STATE[weight]).abs().max()) < 0.1 * float(STATE[weight].abs().max())
    assert_same(load(tmp_path / "m.safetensors", dtype=torch.bfloat16), {n: t.bfloat16() for n, t in expected.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.ffn.0.weight": torch.ones(96, 24, dtype=torch.uint8)}, "blocks.0.ffn.0.weight is stored as uint8"),
        ({"blocks.0.ffn.0.scale_weight": torch.ones(7)}, r"of the shape \[96, 48\] with factors of the shape \[7\]"),
    ],
)
def test_other_quantisations_are_refused(change: State, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load({**STATE, **change})


PEAKS = """
import sys, torch, sf_core
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
for name in sys.argv[1:]:
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = memory("VmRSS:")
    model = sf_core.load_model(name, dtype=torch.bfloat16)
    print(memory("VmHWM:") - before)
    del model
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory")
def test_a_file_is_never_in_memory_beside_its_model(tmp_path: Path) -> None:
    """`benchmarks/load_memory.py` measures it at full size."""
    with torch.device("meta"):
        model = sf_core.CausalWan(WanArchitecture(dim=768, ffn_dim=3072, num_layers=8, num_heads=6, text_dim=768))
    state = {name: torch.ones(p.shape, dtype=torch.bfloat16) for name, p in model.named_parameters()}
    size = sum(tensor.nbytes for tensor in state.values()) / 2**20
    paths = [tmp_path / "m.pt", tmp_path / "m.safetensors"]
    torch.save({"generator_ema": prefixed("model.", state), "generator": state}, paths[0])
    save_file(state, paths[1])
    command = [sys.executable, "-c", PEAKS, *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert all(float(peak) < 1.1 * size + 8 for peak in done.stdout.split())


MAPPED = """
import sys, torch
from pathlib import Path
from sf_core.files.safetensors_file import mapped, open_tensors
def memory():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024
tensors = mapped(open_tensors(Path(sys.argv[1]))[0])
before = memory()
total = sum(float(tensor.sum()) for tensor in tensors.values())
print(memory() - before, total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the memory that is not a file's")
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_mapped_file_is_read_where_it_is(suffix: str, tmp_path: Path) -> None:
    state = {"a": torch.ones(1024, 8192), "b": torch.ones(1024, 8192).t()}
    path = tmp_path / f"m.{suffix}"
    save_file({name: t.contiguous() for name, t in state.items()}, path) if suffix != "pt" else torch.save(state, path)
    command = [sys.executable, "-c", MAPPED, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    grown, total = map(float, done.stdout.split())
    assert total == 2 * 1024 * 8192
    assert grown < 8  # MiB, of 64


def test_a_change_of_a_mapped_tensor_does_not_reach_its_file(tmp_path: Path) -> None:
    state = {"odd": torch.ones(3, dtype=torch.uint8), "whole": torch.arange(4.0)}
    save_file(state, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    tensors = mapped(open_tensors(tmp_path / "m.safetensors")[0])
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    for tensor in tensors.values():
        tensor.zero_()
    assert (tmp_path / "m.safetensors").read_bytes() == data


def test_loading_leaves_a_state_dict_alone_and_shares_nothing_with_it() -> None:
    source = {name: tensor.clone() for name, tensor in STATE.items()}
    model = load({"generator": source})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(source[name], STATE[name]) for name in STATE)


# Pickles -------------------------------------------------------------------------------------------------------------


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Evaluated(Malicious):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('pathlib').Path({str(self.path)!r}).mkdir()",)


@pytest.mark.parametrize("kind", [Malicious, Evaluated])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    kind: type[Malicious], protocol: int, suffix: str, tmp_path: Path
) -> None:
    trace, path = tmp_path / "it ran", tmp_path / f"m.{suffix}"
    called = {Malicious: r"(posix|nt)\.mkdir", Evaluated: r"(__builtin__|builtins)\.eval"}[kind]
    torch.save({"generator": {**STATE, "extra": kind(trace)}}, path, pickle_protocol=protocol)
    reason = called if protocol == 2 else "something by a name put together"
    with pytest.raises(ValueError, match=rf"holds more than tensors: it calls {reason}\. It is refused: a pickle can"):
        load(path)
    path.write_bytes(pickle.dumps({"generator": kind(trace)}, protocol=protocol))
    with pytest.raises(ValueError, match=rf"m.{suffix} is no archive of torch.save but a bare pickle"):
        load(path)
    path.rename(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load(tmp_path / "m.safetensors")
    assert not trace.exists()


def test_an_old_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"m.pt is no archive of torch.save but a bare pickle.*refused"):
        load(tmp_path / "m.pt")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in source.namelist():
            bomb.writestr(member, source.read(member))
    with pytest.raises(ValueError, match=r"bomb.pt is a compressed archive; torch.save writes none"):
        load(tmp_path / "bomb.pt")


def test_an_archive_that_was_packed_again_is_not_misread(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as source, zipfile.ZipFile(tmp_path / "again.pt", "w") as again:
        for member in source.namelist():
            again.writestr(member, source.read(member))
    with pytest.raises(ValueError, match=r"again.pt is a damaged .pt file: .*, is not where it should be"):
        load(tmp_path / "again.pt")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"m.pt is a zip archive, but not one of torch.save"):
        load(tmp_path / "m.pt")


def test_a_folder_and_a_file_that_is_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file"):
        load(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        load(tmp_path)

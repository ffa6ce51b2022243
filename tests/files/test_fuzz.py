"""Damaged and hostile files: always a ValueError or OSError that says something; never a crash, a hang, code run."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

import sf_core
from sf_core.cli.environment import peak_memory
from sf_core.cli.info import describe
from sf_core.files.convert import convert
from sf_core.session.session_file import KEY
from tests.helpers import SIZE, prompt, random_model

MODEL = random_model(layers=1)
STATE = dict(MODEL.state_dict())
MEMORY = 200 * 2**20  # bytes that no refusal may take
SECONDS = 60.0


def session_file(path: Path) -> bytes:
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, sf_core.RolloutConfig(window_frames=6), batch=2)
    session, _ = session.with_context(torch.ones(1, 4, 3, *SIZE)).next_chunk()
    session, _ = session.with_prompt(prompt(1), recache=True).with_seed(4).next_chunk()
    session.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sound files by their suffix."""
    folder = tmp_path_factory.mktemp("whole")
    pickled = io.BytesIO()
    torch.save({"generator": STATE, "step": 3}, pickled)
    return {"safetensors": save(STATE), "pt": pickled.getvalue(), "session": session_file(folder / "s")}


@contextmanager
def frugal() -> Iterator[None]:
    before, begin = peak_memory() or 0, time.process_time()
    yield
    assert time.process_time() - begin < SECONDS
    assert (peak_memory() or 0) - before < MEMORY


def use(path: Path, must_fail: bool = False) -> list[str]:
    """Put a file to every use there is; returns what was said of it."""
    uses: list[Callable[[], object]] = [
        lambda: sf_core.load_model(path, num_heads=2, text_len=6),
        lambda: sf_core.load_model(STATE, lora=path, num_heads=2, text_len=6),
        lambda: describe(path),
        lambda: convert(path, path.with_name("converted"), num_heads=2, text_len=6),
        lambda: sf_core.Session.load(path, MODEL),
    ]
    errors: list[Exception] = []
    with frugal():
        for attempt in uses:
            try:
                attempt()
            except (ValueError, OSError) as error:
                errors.append(error)
    assert not must_fail or len(errors) == len(uses)
    assert not any(isinstance(error, (UnicodeError, json.JSONDecodeError)) for error in errors)  # they name no file
    assert all(len(str(error)) > 20 for error in errors)
    return [str(error) for error in errors]


@given(data=st.data())
def test_bytes_cut_changed_or_made_up(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    suffix = data.draw(st.sampled_from(sorted(whole)))
    contents = bytearray(whole[suffix])
    match data.draw(st.sampled_from(("cut", "changed", "made up", "swollen"))):
        case "cut":
            del contents[data.draw(st.integers(0, len(contents) - 1)) :]
        case "changed":  # mostly in the header, or in the pickle and the directory of an archive
            for _ in range(data.draw(st.integers(1, 8))):
                place = data.draw(st.integers(0, 4000) | st.integers(-4000, -1) | st.integers(0, len(contents) - 1))
                contents[place % len(contents)] = data.draw(st.integers(0, 255))
        case "made up":
            contents = bytearray(data.draw(st.binary(max_size=200)))
        case "swollen":
            place = data.draw(st.integers(0, len(contents)))
            contents[place:place] = data.draw(st.binary(min_size=1, max_size=50))
    path = tmp_path_factory.mktemp("fuzz") / f"m.{suffix}"
    path.write_bytes(contents)
    use(path)


# safetensors headers -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.sampled_from([0, 1, 2, 4, 16, 32, 96, 2**31, 2**62, 2**63, 2**64, -1, -(2**40)])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "U8", "I64", "F4", "F99", ""]),
        "shape": st.lists(NUMBERS, max_size=5),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    }
)


def safetensors_file(header: object, data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@given(
    header=st.dictionaries(st.sampled_from([*list(STATE)[:4], "__metadata__", "x"]), ENTRIES | JSON, max_size=4) | JSON,
    extra=st.binary(max_size=40),
    length=st.none() | st.sampled_from([0, 7, 2**20, 2**40, 2**63, 2**64 - 1]),
)
def test_headers_of_any_kind(
    header: object, extra: bytes, length: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(safetensors_file(header, extra, length))
    use(path)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry("F32", [2**40], 0, 16)},
        {"a": entry("F32", [2**40, 2**40], 0, 16)},
        {"a": entry("F32", [4], -16, 0)},
        {"a": entry("F32", [-4], 0, 16)},
        {"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 0, 16)},
        {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)},
        {"a": entry("F32", [2], 8, 16)},
        {"a": entry("F99", [4], 0, 16)},
        {"a": entry("F32", [4], 16, 0)},
        {"patch_embedding.weight": entry("F32", [2**50, 0, 1, 2, 2], 0, 0)},
        {},
    ],
)
def test_offsets_and_shapes_that_lie(header: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors_file(header, bytes(16 if header else 0)))
    use(tmp_path / "m.safetensors", must_fail=True)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.999999.ffn.0.weight", (1,)),
        (f"blocks.{'9' * 5000}.ffn.0.weight", (1,)),
        ("patch_embedding.weight", (3,)),
        ("patch_embedding.weight", (32, 4, 1, 0, 2)),
        ("text_embedding.0.weight", ()),
        ("head.head.weight", (7, 32)),
    ],
)
def test_shapes_of_no_transformer(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(save({**STATE, name: torch.zeros(shape)}))
    assert all(
        str(tmp_path) in text or "transformer" in text or "LoRA" in text or "model" in text
        for text in use(tmp_path / "m.safetensors", must_fail=True)
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {"sf.rollout": "["},
        {"sf.rollout": "[]"},
        {"sf.rollout": '{"shift": "x"}'},
        {"sf.rollout": "[" * 100_000},
        {"sf.latent_size": "7"},
        {"sf.latent_size": "[1, 2, 3]"},
        {"sf.latent_size": "[NaN, 1]"},
    ],
)
def test_settings_that_make_no_sense(metadata: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(save(STATE, metadata))
    with pytest.raises(ValueError, match=r"the file's own settings \(sf.rollout, sf.latent_size\) make no sense"):
        sf_core.load_model(tmp_path / "m.safetensors", num_heads=2)


@pytest.mark.parametrize("name", ["sf.num_heads", "sf.text_len"])
@pytest.mark.parametrize("value", ["x", "-2", "0", "1.5", "9" * 5000, "٣"])
def test_counts_that_are_none(name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(save(STATE, {"sf.num_heads": "2", name: value}))
    with pytest.raises(ValueError, match=rf"{name[3:]} is .*expected a whole number from 1 on|Exceeds the limit"):
        sf_core.load_model(tmp_path / "m.safetensors")


# Pickles -------------------------------------------------------------------------------------------------------------


def archive(data: bytes, path: Path, **more: bytes) -> Path:
    """A file as torch.save lays it out, around a pickle of ours; it has one storage of 64 bytes."""
    with zipfile.ZipFile(path, "w") as file:
        for name, contents in {
            "data.pkl": data,
            "byteorder": b"little",
            "data/0": bytes(64),
            "version": b"3\n",
        }.items():
            file.writestr(f"m/{name}", contents)
        for name, contents in more.items():
            file.writestr(f"m/{name}", contents)
    return path


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, stored: int = 16) -> bytes:
    """The pickle of a float32 tensor over the storage, which claims to have ``stored`` values."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(stored) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    call = storage + number(offset) + numbers(*shape) + numbers(*stride) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + call + b"tR"


def state_dict(value: bytes) -> bytes:
    return b"\x80\x02}" + text("x") + value + b"s."


def test_the_pickles_below_are_well_made(tmp_path: Path) -> None:
    archive(state_dict(tensor((4, 4), (4, 1))), tmp_path / "m.pt")
    assert torch.load(tmp_path / "m.pt", weights_only=True)["x"].shape == (4, 4)
    assert all("transformer" in said or "LoRA" in said or "session" in said for said in use(tmp_path / "m.pt"))


@pytest.mark.parametrize(
    "value",
    [
        tensor((2**40,), (1,)),
        tensor((2**40,), (0,)),
        tensor((2**31, 2**31, 2**31), (0, 0, 0)),
        tensor((17,), (1,)),
        tensor((16,), (1,), offset=1),
        tensor((16,), (1,), offset=-1),
        tensor((16,), (1,), offset=2**62),
        tensor((-16,), (1,)),
        tensor((4,), (2**61,)),
        tensor((2**20,), (1,), stored=2**20),
        tensor((2**40,), (1,), stored=2**40),
        tensor((4,), (1,), stored=2**80),
        tensor((4, 4), (1,)),
    ],
)
def test_tensors_that_are_not_in_the_file(value: bytes, tmp_path: Path) -> None:
    said = use(archive(state_dict(value), tmp_path / "m.pt"), must_fail=True)
    assert all("m.pt" in text for text in said[:4])


LAUGHS = 60  # doublings
HUGE = number(10**13)
BOMBS = {
    # t = (t, t) again and again, then hashed as a key
    "tuples as a key": b"\x80\x02})" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(LAUGHS))
    + b"K\x01s.",
    # lists in lists, then shown in the message of an error
    "lists in a message": b"\x80\x02]" + b"".join(b"q" + bytes([i]) + b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"e"
                                                  for i in range(LAUGHS)) + b")R.",
    # dictionaries, the outer ones filled first
    "dictionaries": b"\x80\x02" + b"".join(b"}q" + bytes([i]) + b"0" for i in range(LAUGHS))
    + b"".join(b"h" + bytes([i]) + b"(K\x00h" + bytes([i - 1]) + b"K\x01h" + bytes([i - 1]) + b"u0"
               for i in range(LAUGHS - 1, 0, -1)) + b"h" + bytes([LAUGHS - 1]) + b")R.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a deep nest": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "many marks": b"\x80\x02" + b"(" * 500_000 + b".",
    "a huge bytearray": b"\x80\x02c__builtin__\nbytearray\n" + HUGE + b"\x85R.",
    "a huge tensor": b"\x80\x02ctorch\nTensor\n" + HUGE + b"\x85R.",
    "a huge string": b"\x80\x02X\xff\xff\xff\xff.",
    "a huge number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a huge memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "a memo that is not": b"\x80\x02h\x07.",
    "an empty stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "nothing": b"",
    "no dictionary": b"\x80\x02K\x07.",
    "a call by protocol 4": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "a call by INST": b"(X\x04\x00\x00\x00trueiposix\nsystem\n.",
    "a call by extension": b"\x80\x02\x82\x01.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, tmp_path: Path) -> None:
    use(archive(BOMBS[name], tmp_path / "m.pt"), must_fail=True)
    (tmp_path / "bare.pt").write_bytes(BOMBS[name])
    use(tmp_path / "bare.pt", must_fail=True)


def test_a_zip_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data.pkl", b"\x80\x02" + b"]" * (50 * 2**20) + b".")
    assert (tmp_path / "m.pt").stat().st_size < 2**20
    assert "compressed archive" in use(tmp_path / "m.pt", must_fail=True)[0]


OPERATIONS = st.sampled_from(
    [b"(", b"}", b"]", b")", b"\x85", b"\x86", b"\x87", b"t", b"s", b"u", b"a", b"e", b"R", b"b", b"\x81", b"Q",
     b"N", b"\x88", b"\x89", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"K\x01", text("0"), text("storage"), text("x"),
     b"G" + struct.pack(">d", math.nan), number(2**70), b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n",
     b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n",
     b"ctorch\nfloat32\n", b"ctorch\ndevice\n", tensor((4,), (1,)), tensor((0,), (1,))]
)  # fmt: skip


@given(operations=st.lists(OPERATIONS, max_size=30))
def test_pickles_of_any_operations(operations: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    data = b"\x80\x02" + b"".join(operations) + b"."
    use(archive(data, tmp_path_factory.mktemp("fuzz") / "m.pt"), must_fail=True)


# Sessions ------------------------------------------------------------------------------------------------------------


def with_record(file: bytes, change: Callable[[Any], Any]) -> bytes:
    """A session file whose record is what ``change`` gives for it: JSON, or text as it is."""
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    changed = change(json.loads(header["__metadata__"][KEY]))
    header["__metadata__"][KEY] = changed if isinstance(changed, str) else json.dumps(changed)
    return safetensors_file(header, file[8 + length :])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


@given(data=st.data())
def test_records_with_anything_anywhere(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    def change(record: Any) -> Any:
        *path, last = data.draw(st.sampled_from([place for place in places(record) if place]))
        target = record
        for key in path:
            target = target[key]
        if data.draw(st.booleans()) and isinstance(target, dict):
            del target[last]
        else:
            target[last] = data.draw(JSON | NUMBERS)
        return record

    path = tmp_path_factory.mktemp("fuzz") / "s"
    path.write_bytes(with_record(whole["session"], change))
    use(path)


def put(*path: Any, value: Any) -> Callable[[Any], Any]:
    def change(record: Any) -> Any:
        target = record
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return record

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [record], "its record has no version"),
        (lambda record: "{", "its record cannot be read, JSONDecodeError"),
        (lambda record: "[" * 100_000, "its record cannot be read, RecursionError"),
        (put("version", value=True), "its record has no version"),
        (put("version", value="1"), "its record has no version"),
        (put("blocks", value={}), "blocks is {}; expected list"),
        (put("blocks", value=None), "blocks is None; expected list"),
        (put("batch", value=10**30), r"batch, channels and latent_size are \[10+, 4, 4, 4\]"),
        (put("batch", value=3), r"prompt.\d is F32|latents is F32 .*; expected F32"),
        (put("latent_size", value=[4]), r"batch, channels and latent_size are \[2, 4, 4\]; expected whole numbers"),
        (put("latent_size", value=[4, -4]), "batch, channels and latent_size are .*whole numbers"),
        (put("config", value={"window": 3}), "its record cannot be read, ValueError: unknown rollout settings: window"),
        (put("config", "shift", value="x"), "its record cannot be read, TypeError"),
        (put("config", "chunk_frames", value=1), "the block at frame 0 has 3 frames, not 1"),
        (put("config", "window_frames", value=1), "its record cannot be read, ValueError: window_frames is 1"),
        (put("seeds", 0, value=-1), r"seeds is \[-1, 4\]; expected whole numbers"),
        (put("seeds", value=[]), "next is .*; expected numbers of a prompt, a seed and an event"),
        (put("next", 0, value=7), r"next is \[7, 1, 0\]; expected numbers of a prompt"),
        (put("next", 0, value=-1), r"next is \[-1, 1, 0\]; expected numbers of a prompt"),
        (put("other_models", value=[1]), r"other_models is \[1\]; expected names"),
        (put("blocks", 0, value=[]), r"the block at frame 0 is \[\]; expected one of context or chunk"),
        (put("blocks", 2, 0, value="context"), r"the block at frame 6 is \['context'.*; expected one of chunk"),
        (put("blocks", 1, 1, value=10**12), "the block at frame 3 has 1000000000000 frames, not 3"),
        (put("blocks", 1, 2, value=math.nan), "the block at frame 3 is .*nan"),
        (put("blocks", 1, 3, value=0.5), "the block at frame 3 is "),
        (put("blocks", 1, 5, value=8), "the block at frame 3 is "),
        (lambda record: {**record, "blocks": record["blocks"][:2]}, "latents is F32 .*; expected F32"),
        (lambda record: {**record, "blocks": []}, r"it holds \['latents', 'prompt.0', 'prompt.1'\]; expected"),
    ],
)
def test_a_damaged_record_is_named(
    whole: dict[str, bytes], change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "s").write_bytes(with_record(whole["session"], change))
    with pytest.raises(ValueError, match=rf"s is damaged: ({message}).* Take an older copy"):
        sf_core.Session.load(tmp_path / "s", MODEL)
    with pytest.raises(ValueError, match="is damaged"):
        describe(tmp_path / "s")


def test_values_that_are_not_finite_are_named(whole: dict[str, bytes], tmp_path: Path) -> None:
    contents = whole["session"]
    (length,) = struct.unpack("<Q", contents[:8])
    header = json.loads(contents[8 : 8 + length])
    for name, what in (("latents", "the context at frame 0 holds NaN or Inf"), ("prompt.1", "prompt 1 holds NaN")):
        start = 8 + length + header[name]["data_offsets"][0]
        (tmp_path / "s").write_bytes(contents[:start] + struct.pack("<f", math.inf) + contents[start + 4 :])
        with pytest.raises(ValueError, match=f"s is damaged: {what}"):
            sf_core.Session.load(tmp_path / "s", MODEL)


def test_a_session_of_a_later_format_says_so(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(with_record(whole["session"], lambda record: {"version": 5}))
    with pytest.raises(ValueError, match="has session format 5, this version reads up to 4: update the pack"):
        sf_core.Session.load(tmp_path / "s", MODEL)

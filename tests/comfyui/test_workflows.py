"""The shared workflows, on each real server: well-formed, complete, accepted, and run.

Those of the tiny demo run as they are; those for a real model run small, with small models in place of the real ones.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from sf_core.files.published_models import model_by_name
from sf_core.model.two_sets import memory_name
from tests.comfyui import models
from tests.comfyui.servers import VERSIONS
from tests.comfyui.workflow_checks import (
    DOWNLOADABLE,
    FOLDERS,
    FPS,
    check_choices,
    choices_of,
    decoded,
    inputs_of,
    load_workflow,
)
from tests.helpers import PARITY
from tools.comfyui.checkout import ROOT
from tools.comfyui.prompt import ONLY_IN_THE_EDITOR, WIDGET_TYPES, to_prompt, with_an_end
from tools.comfyui.server import PACK, PromptRejected, Server

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
RUNNING = [name for name in NAMES if name.startswith("tiny_")]
REAL = [name for name in NAMES if name not in RUNNING]
TITLE_HEIGHT = 30
# frames of each video that is saved, by its name. The first chunk has 9, the others 12.
FRAMES = {
    "tiny_text_to_video": [81],
    "tiny_live": [81],
    "tiny_live_app": [81],
    "tiny_playable": [81],
    "tiny_image_to_video": [1 + 72],
    "tiny_extend_video": [33 + 72],
    "tiny_video_to_video": [33],
    "tiny_prompt_timeline": [153],
    "tiny_long_video": [969],
    "tiny_fork_and_reroll": [81, 81],
    "tiny_step_by_step": [69],
    "tiny_train": [81, 81],
}
FAMILIES = ("day_long", "rolling", "shots", "krea")  # of other models, with the settings of their own presets
LESSON, LONG = "tiny_train", "tiny_long_video"
BUTTONS = {"Cut", "Re-roll", "Run", "Stop"}  # which notes name, as they name nodes


@cache
def workflow(name: str) -> dict[str, Any]:
    return load_workflow(name)


def nodes(name: str) -> Iterator[dict[str, Any]]:
    yield from workflow(name)["nodes"]


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.object_info()


every = pytest.mark.parametrize("name", NAMES)
real = pytest.mark.parametrize("name", REAL)


def test_the_first_minutes_have_their_workflow() -> None:
    for name, seconds in (("tiny_live", 0.0), ("tiny_text_to_video", 5.0)):
        steps = {node["type"]: node["widgets_values"] for node in nodes(name) if node["type"] != "MarkdownNote"}
        assert list(steps) == ["SFLoadTiny", "CLIPTextEncode", "SFSession", "SFStreamVideo", "SaveVideo"]
        assert steps["SFStreamVideo"][0] == seconds
    assert sorted(RUNNING) == sorted(FRAMES)


def test_a_real_model_has_a_template_for_each_use() -> None:
    uses = ["extend_video", "image_to_video", "live_steering", "long_video", "prompt_timeline", "text_to_video"]
    assert sorted([*uses, *FAMILIES, "with_lora"]) == REAL
    kinds = {name: {node["type"]: node for node in nodes(name)} for name in REAL}
    for found in kinds.values():
        assert {"SFSession", "SFStreamVideo", "SaveVideo"} <= set(found)
    assert {"LoadImage", "SFStartFromImages"} <= set(kinds["image_to_video"])
    assert {"LoadVideo", "GetVideoComponents", "SFStartFromImages"} <= set(kinds["extend_video"])
    assert {"UNETLoader", "LoraLoaderModelOnly", "SFFromModel"} <= set(kinds["with_lora"])
    streams = {name: found["SFStreamVideo"] for name, found in kinds.items()}
    assert streams["long_video"]["widgets_values"][0] >= 60
    assert streams["live_steering"]["widgets_values"][0] == 0
    assert "clip" in _linked(streams["live_steering"]), "it takes prompts while it runs"
    assert "fps" in _linked(streams["extend_video"]), "the clip's own speed"
    for name in ("long_video", "prompt_timeline"):
        assert "timeline" in _linked(streams[name])


def test_a_long_video_runs_with_the_preset_that_its_model_was_trained_with() -> None:
    """No other node changes that preset: 12 latent frames with a sink of 3."""
    kinds = {node["type"]: node for node in nodes("long_video")}
    assert kinds["SFLoadModel"]["widgets_values"] == ["longlive_base.pt", "default", "LongLive"]
    assert "SFRolloutSettings" not in kinds
    config = model_by_name("LongLive").config
    assert config is not None
    assert (config.window_frames, config.sink_frames) == (12, 3)


def _linked(node: dict[str, Any]) -> set[str]:
    """The inputs that something is wired to."""
    return {slot["name"] for slot in node["inputs"] if slot["link"] is not None}


@real
def test_a_template_for_a_real_model_suits_a_small_card(name: str) -> None:
    """A window of 12 latent frames, whose cache is 3.2 GiB, and a sink, at the size that the model was trained at.

    Those of other families have what their model was trained with.
    """
    settings = [node["widgets_values"][:4] for node in nodes(name) if node["type"] == "SFRolloutSettings"]
    (session,) = (node["widgets_values"] for node in nodes(name) if node["type"] == "SFSession")
    assert settings == ([] if name in ("long_video", *FAMILIES) else [["custom", 3, 12, 3]])
    assert session[:2] == ([1280, 704] if name == "shots" else [832, 480])


@real
def test_each_node_is_in_a_group_that_says_its_place(name: str) -> None:
    groups = sorted(workflow(name)["groups"], key=lambda group: (group["bounding"][1], group["bounding"][0]))  # in rows
    assert [group["title"].split(". ")[0] for group in groups] == [str(number + 1) for number in range(len(groups))]
    for node in nodes(name):
        (x, y), (width, height) = node["pos"], node["size"]
        inside = [
            group
            for group in groups
            if (left := group["bounding"][0]) <= x
            and x + width <= left + group["bounding"][2]
            and (top := group["bounding"][1]) <= y - TITLE_HEIGHT
            and y + height <= top + group["bounding"][3]
        ]
        assert len(inside) == (node["type"] != "MarkdownNote"), node["type"]


@every
def test_the_editor_can_read_it(name: str) -> None:
    content = workflow(name)
    assert content["version"] == 0.4
    assert content["extra"]["frontendVersion"]
    ids = [node["id"] for node in nodes(name)]
    assert len(set(ids)) == len(ids)
    assert content["last_node_id"] == max(ids)
    assert content["last_link_id"] == max(link[0] for link in content["links"])
    for node in nodes(name):
        assert {"id", "type", "pos", "size", "flags", "order", "mode", "properties", "widgets_values"} <= set(node)
        assert node["mode"] == 0


@every
def test_links_are_known_at_both_ends(name: str) -> None:
    by_id = {node["id"]: node for node in nodes(name)}
    links = workflow(name)["links"]
    for link, source, output, target, slot, kind in links:
        assert link in by_id[source]["outputs"][output]["links"]
        assert by_id[target]["inputs"][slot]["link"] == link
        assert by_id[source]["outputs"][output]["type"] == by_id[target]["inputs"][slot]["type"] == kind
    known = Counter(link[0] for link in links)
    assert set(known.values()) == {1}
    outgoing = Counter(link for node in nodes(name) for slot in node["outputs"] for link in slot["links"])
    incoming = Counter(slot["link"] for node in nodes(name) for slot in node["inputs"] if slot["link"] is not None)
    assert outgoing == incoming == known


@every
def test_every_node_says_where_it_comes_from(name: str) -> None:
    for node in nodes(name):
        properties = node["properties"]
        assert properties["cnr_id"] == ("self-forcing" if node["type"].startswith("SF") else "comfy-core")
        assert properties["ver"].count(".") == 2
        assert properties["Node name for S&R"] == node["type"]


@every
def test_every_loader_says_where_its_model_is_had(name: str) -> None:
    for node in nodes(name):
        models = node["properties"].get("models", [])
        assert bool(models) == (node["type"] in FOLDERS)
        for model in models:
            address = urlsplit(model["url"])
            assert (address.scheme, address.netloc) == ("https", "huggingface.co")
            assert "/resolve/main/" in address.path
            assert not address.query
            assert model["name"] == node["widgets_values"][0] == Path(address.path).name
            assert model["name"].endswith(DOWNLOADABLE)
            assert model["directory"] == FOLDERS[node["type"]]


@every
def test_a_note_explains_it_and_names_what_it_needs(name: str) -> None:
    boxes = [node for node in nodes(name) if node["type"] == "MarkdownNote"]
    notes = [node["widgets_values"][0] for node in boxes]
    assert len(notes) == 1
    # in the colours of the editor's theme: a fixed colour is hardly readable in another one
    assert [boxes[0][key] for key in ("title", "color", "bgcolor")] == ["Note", "", ""]
    assert notes[0].startswith("## ")
    assert "**To try**" in notes[0]
    for node in nodes(name):
        for model in node["properties"].get("models", []):
            row = next(line for line in notes[0].splitlines() if f"[{model['name']}]({model['url']})" in line)
            assert "GB |" in row
            assert "**Licences**" in notes[0]
            assert f"| {model['directory']} |" in row
        if node["type"] in ("LoadImage", "LoadVideo"):
            assert (FOLDER / "input" / node["widgets_values"][0]).is_file()
            assert f"`{node['widgets_values'][0]}`" in notes[0]


@every
def test_a_note_names_only_what_exists(name: str, info: dict[str, Any]) -> None:
    """Templates, nodes, inputs and presets, which a note writes in italics."""
    (note,) = (node["widgets_values"][0] for node in nodes(name) if node["type"] == "MarkdownNote")
    known = set(NAMES) | BUTTONS | {node["title"] for node in nodes(name) if "title" in node}
    for kind in info.values():
        known |= {kind["display_name"], *(key for group in kind["input"].values() for key in group)}
    for node in nodes(name):
        for spec in inputs_of(info, node["type"]).values() if node["type"] in info else ():
            known |= set(map(str, choices_of(spec)))
    named = [words for words in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", note) if len(words.split()) <= 4]
    named = [words for words in named if "_" in words or words[0].isupper()]
    assert named
    assert [words for words in named if words not in known] == []


@every
def test_no_node_covers_another(name: str) -> None:
    def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
        (x, y), (width, height) = node["pos"], node["size"]
        return x, y - TITLE_HEIGHT, x + width, y + height

    for one, other in itertools.combinations(nodes(name), 2):
        a, b = box(one), box(other)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one["type"], other["type"])
    by_id = {node["id"]: node for node in nodes(name)}
    for _, source, _, target, _, _ in workflow(name)["links"]:  # left to right, or down to the next row
        one, other = by_id[source], by_id[target]
        assert one["pos"][0] <= other["pos"][0] or box(one)[3] <= box(other)[1]


@every
def test_it_has_a_moving_picture_for_the_template_browser(name: str) -> None:
    """Under the one name that the editor asks for."""
    with Image.open(FOLDER / f"{name}.jpg") as picture:
        assert picture.format == "WEBP"
        assert picture.width == picture.height >= 384
        assert getattr(picture, "n_frames", 1) >= 8
        first = np.asarray(picture.convert("RGB")).astype(int)
        picture.seek(picture.n_frames // 2)  # type: ignore[attr-defined]
        assert first.std() > 5
        assert np.abs(np.asarray(picture.convert("RGB")) - first).max() > 50, "it moves"
    assert (FOLDER / f"{name}.jpg").stat().st_size < 100_000


def test_the_template_browser_lists_them_all(server: Server) -> None:
    assert sorted(server.get("/api/workflow_templates")[PACK]) == NAMES


@every
def test_the_server_has_every_node(name: str, info: dict[str, Any]) -> None:
    assert {node["type"] for node in nodes(name)} - ONLY_IN_THE_EDITOR <= set(info)


@every
def test_no_node_is_deprecated(name: str, info: dict[str, Any]) -> None:
    for kind in {node["type"] for node in nodes(name)} - ONLY_IN_THE_EDITOR:
        assert not info[kind].get("deprecated")
        assert "DEPRECATED" not in info[kind]["display_name"]


@every
def test_every_widget_has_its_value(name: str, info: dict[str, Any]) -> None:
    for node in nodes(name):
        if node["type"] in ONLY_IN_THE_EDITOR:
            continue
        values, groups = node["widgets_values"], info[node["type"]]["input"]
        required, optional = (_widgets(groups.get(group, {})) for group in ("required", "optional"))
        if node["type"] == "SaveVideo" and "codec" not in required:
            required.append("codec")  # newer versions have it below the format
        # widgets that came with a later version are optional, and take their default
        assert len(required) <= len(values) <= len(required) + len(optional), (node["type"], required, optional, values)
        if "control after seed" in required:
            assert values[required.index("control after seed")] == "fixed"


def _widgets(inputs: dict[str, Any]) -> list[str]:
    """The widgets in the order in which the editor saves their values."""
    found = []
    for name, spec in inputs.items():
        options = spec[1] if len(spec) > 1 else {}
        if isinstance(spec[0], list) or spec[0] in WIDGET_TYPES:
            found.append(name)
            if options.get("control_after_generate"):
                found.append(f"control after {name}")
            if options.get("image_upload") or options.get("video_upload"):
                found.append("upload")
    return found


@every
def test_the_server_accepts_it(name: str, server: Server, info: dict[str, Any]) -> None:
    prompt = to_prompt(workflow(name), info)
    check_choices(prompt, info)
    if name in RUNNING:
        return  # is run below
    with pytest.raises(PromptRejected) as rejected:
        server.submit(prompt)
    missing = {str(node["id"]): node["widgets_values"][0] for node in nodes(name) if node["type"] in FOLDERS}
    assert rejected.value.node_errors
    for node, failed in rejected.value.node_errors.items():
        for error in failed["errors"]:
            assert error["type"] == "value_not_in_list"
            assert missing[node] in error["details"]


@pytest.mark.parametrize("name", [name for name in RUNNING if name != LESSON])
def test_what_needs_no_download_runs(name: str, server: Server, info: dict[str, Any]) -> None:
    prompt, lengths = to_prompt(workflow(name), info), FRAMES[name]
    if name == LONG and server.checkout.version != VERSIONS["primary"]:  # its minute of video is made once
        (stream,) = (node for node in prompt.values() if node["class_type"] == "SFStreamVideo")
        stream["inputs"]["seconds"], lengths = 5.0, [81]
    outputs = server.run(with_an_end(prompt), timeout=600)
    saved = [str(node["id"]) for node in nodes(name) if node["type"] == "SaveVideo"]
    videos = [path for node in saved for path in server.files({node: outputs[node]})]
    assert [len(video) for video in map(decoded, videos)] == lengths
    for path in videos:
        frames = decoded(path)
        assert frames.shape[1:] == (64, 64, 3)
        without_shape = frames.std(axis=(1, 2)).max(axis=1) < 5
        assert without_shape.mean() < 0.05, "it may vanish for a moment when the prompt changes"
        assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 20, "nothing moves"
    shown = [str(node["id"]) for node in nodes(name) if node["type"] in ("SFStreamVideo", "SFDecodeChunks")]
    assert all(path.is_file() for node in shown for path in server.files({node: outputs[node]}))


@pytest.fixture
def small_models(server: Server) -> Iterator[None]:
    """Small models under the names of the real ones, while a test runs. umT5 has no small one."""
    weights = models.wan()
    published = {"generator_ema": {f"model.{k}": v for k, v in weights.items()}}
    states: dict[tuple[str, str], Any] = {
        ("diffusion_models", "self_forcing_dmd.pt"): published,
        ("diffusion_models", "longlive_base.pt"): published,
        ("diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors"): weights,
        ("loras", "Wan2_1_self_forcing_dmd_1_3B_lora_rank_32_fp16.safetensors"): models.lora()[0],
        ("vae", "wan_2.1_vae.safetensors"): load_file(PARITY / "weights_vae.safetensors"),
        ("diffusion_models", "model.pt"): {
            "generator_ema": weights | {memory_name(k): v for k, v in models.wan(3).items()}
        },
        ("diffusion_models", "rolling_forcing_dmd.pt"): published,
        ("diffusion_models", "krea-realtime-video-14b.safetensors"): weights,
        ("diffusion_models", "model_bf16.pt"): models.wan(arch=replace(models.ARCH, in_dim=48, out_dim=48)),
    }
    files = [
        server.base / "models" / kind / models.put(server, kind, file, states[kind, file]) for kind, file in states
    ]
    yield
    for path in files:
        path.unlink()


@real
def test_a_template_for_a_real_model_runs(name: str, server: Server, small_models: None, info: dict[str, Any]) -> None:
    """Small: 64 x 64 pixels, two seconds, the rows of a timeline a hundred times as dense."""
    prompt = to_prompt(workflow(name), info)
    prompt["tiny"] = {"class_type": "SFLoadTiny", "inputs": {}}
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == "CLIPLoader":
            node |= {"class_type": "ProbeTextEncoder", "inputs": {"clip": ["tiny", 1]}}
        elif inputs.get("vae_name") == "wan2.2_vae.safetensors":  # a small one has no file that core knows
            node |= {"class_type": "ProbeOtherVAE", "inputs": {"family": "wan 2.2"}}
        elif node["class_type"] == "SFSession":
            inputs |= {"width": 64, "height": 64}
        elif node["class_type"] == "SFStreamVideo":
            inputs["seconds"] = 2.0
        elif node["class_type"] == "SFPromptTimeline":
            inputs["rows"] = re.sub(r"^\d+", lambda second: str(int(second[0]) / 100), inputs["rows"], flags=re.M)
    outputs = server.run(prompt, timeout=300)
    (saved,) = (str(node["id"]) for node in nodes(name) if node["type"] == "SaveVideo")
    (path,) = server.files({saved: outputs[saved]})
    frames = {"image_to_video": 1 + 36, "extend_video": 33 + 36, "shots": 61}.get(name, 33)
    assert decoded(path, 24 if name == "shots" else FPS).shape == (frames, 64, 64, 3)


def test_a_timeline_changes_the_colours(server: Server, info: dict[str, Any]) -> None:
    frames = decoded(_only_video(server, "tiny_prompt_timeline", info)).astype(int)
    before, between, after = (frames[at].reshape(-1, 3) for at in (40, 90, 140))
    assert before.mean() < 60 < 120 < between.mean(), "black, then white"
    assert np.ptp(after, axis=1).max() > 60, "still a coloured shape"
    shape = [pixels[np.ptp(pixels, axis=1).argmax()].argmax() for pixels in (before, between, after)]
    assert shape == [0, 2, 1], "red, blue, green"


def test_futures_share_their_past_and_differ_after_it(server: Server, info: dict[str, Any]) -> None:
    outputs = server.run(to_prompt(workflow("tiny_fork_and_reroll"), info), timeout=300)
    saved = {
        str(node["id"]): outputs[str(node["id"])] for node in nodes("tiny_fork_and_reroll") if "Save" in node["type"]
    }
    one, other = (decoded(path).astype(int) for path in server.files(saved))
    assert np.abs(one[:20] - other[:20]).max() < 24, "the past, but for the codec's rounding"
    assert np.abs(one[24:] - other[24:]).max() > 60


def _only_video(server: Server, name: str, info: dict[str, Any]) -> Path:
    outputs = server.run(to_prompt(workflow(name), info), timeout=300)
    node = next(str(node["id"]) for node in nodes(name) if node["type"] == "SaveVideo")
    (path,) = server.files({node: outputs[node]})
    return path

"""What the tests of workflows check alike, of today's workflows and of old ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tools.comfyui.checkout import ROOT
from tools.comfyui.server import Prompt

# every node that loads a model, and its folder
FOLDERS = {"SFLoadModel": "diffusion_models", "UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders"}
FOLDERS |= {"VAELoader": "vae", "LoraLoaderModelOnly": "loras"}
DOWNLOADABLE = (".safetensors", ".sft", ".ckpt", ".pth", ".pt")  # what the editor offers to download
FPS = 16


def load_workflow(name: str) -> dict[str, Any]:
    """Read a shared workflow."""
    content: dict[str, Any] = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    return content


def inputs_of(info: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the inputs of a kind of node, required and optional."""
    groups: dict[str, dict[str, Any]] = info[kind]["input"]
    return {name: spec for group in groups.values() for name, spec in group.items()}


def choices_of(spec: list[Any]) -> list[Any]:
    """Return what a combo offers; nothing for any other input."""
    if isinstance(spec[0], list):
        return spec[0]
    return list(spec[1].get("options", [])) if spec[0] == "COMBO" else []


def check_choices(prompt: Prompt, info: dict[str, Any]) -> None:
    """Check choices other than files, which an older server does not check for nodes of the newer kind."""
    for node in prompt.values():
        known = inputs_of(info, node["class_type"])
        for name, value in node["inputs"].items():
            spec = known.get(name, [None])
            choices = choices_of(spec)
            is_file = str(value).endswith((*DOWNLOADABLE, ".png", ".jpg", ".mp4"))
            assert is_file or not choices or value in choices, (node["class_type"], name, value)


def decoded(path: Path, rate: float = FPS) -> NDArray[np.uint8]:
    """Decode a video to [T, H, W, 3], and check its frame rate."""
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert stream.average_rate == rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(stream)])

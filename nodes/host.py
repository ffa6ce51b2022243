"""ComfyUI as the nodes see it: progress, interrupts, memory, folders. Both versions' differences end here."""

from __future__ import annotations

import dataclasses
import io as bytes_io
import itertools
import logging
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy_api.v0_0_2 import io
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..sf_core.video import to_bytes

log = logging.getLogger("self_forcing")

CATEGORY = "video/self forcing"
SESSIONS = "self_forcing_sessions"  # ComfyUI's name for the folders that sessions are loaded from
SESSION_ENDING = ".session"
GIB = 2**30
MOVES_AT_ONCE = 100  # of a bar of progress
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**settings: Any) -> Any:
    """A node's schema, without the fields that this ComfyUI does not know yet (such as search_aliases)."""
    settings.setdefault("category", CATEGORY)
    return io.Schema(**{name: value for name, value in settings.items() if name in _SCHEMA_FIELDS})


def with_extra(widget: Any, **extra: Any) -> Any:
    """An input that carries more than ComfyUI knows of, for the pack's own JavaScript."""
    widget.extra_dict = {**widget.extra_dict, **extra}
    return widget


# Interrupts, progress, text ---------------------------------------------------------------------------------------


def check_interrupt() -> None:
    """Raises ComfyUI's interrupt if the user asked for it; works in any thread."""
    mm.throw_exception_if_processing_interrupted()


def interrupted() -> bool:
    """Whether the user asked for it; the request stands until somebody raises it."""
    return bool(mm.processing_interrupted())


Interrupted = mm.InterruptProcessingException  # a BaseException in newer versions, an Exception in older ones


def is_interrupt(error: BaseException) -> bool:
    return isinstance(error, Interrupted)


class Budget:
    """So many things at once, and then so many a second of wall time."""

    def __init__(self, at_once: float, a_second: float) -> None:
        self._most, self._rate = at_once, a_second
        self._room, self._at = at_once, time.perf_counter()

    @property
    def room(self) -> float:
        now = time.perf_counter()
        self._room = min(self._most, self._room + self._rate * (now - self._at))
        self._at = now
        return self._room

    def take(self, count: int) -> None:
        self._room -= count


class Progress:
    """The bar and the text on a node while it works.

    Each move of a bar costs the editor some memory for good, so one that goes on for long moves once a second.
    """

    def __init__(self, node: Any, total: int) -> None:
        self.node_id: str = str(node.hidden.unique_id)
        self.total = max(1, total)
        self._bar = comfy.utils.ProgressBar(self.total, node_id=self.node_id)
        self._moves = Budget(at_once=MOVES_AT_ONCE, a_second=1)

    def at(self, value: int) -> None:
        """Move the bar. Raises ComfyUI's interrupt if the user asked for it."""
        if self._moves.room < 1 and value < self.total:
            return check_interrupt()
        self._moves.take(1)
        self._bar.update_absolute(min(value, self.total), self.total)

    def say(self, text: str) -> None:
        say(self.node_id, text)


def say(node_id: str | None, text: str) -> None:
    """Show ``text`` on a node, for the client whose graph runs."""
    if node_id is not None:
        PromptServer.instance.send_progress_text(text, str(node_id), PromptServer.instance.client_id)


# Text encoders ----------------------------------------------------------------------------------------------------


def encode(clip: Any, text: str) -> Any:
    """The CONDITIONING of ``text``; weights are moved as ComfyUI sees fit. Only in the thread that runs the graph."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def can_encode_beside(clip: Any) -> bool:
    """Whether `encode_beside` works: whether the weights lie ready where they move nobody's."""
    patcher = clip.patcher
    plain = clip.apply_hooks_to_conds is None and not clip.use_clip_schedule and patcher.forced_hooks is None
    loaded = [entry.model for entry in list(mm.current_loaded_models)]
    ready = any(model is not None and model.is_clone(patcher) for model in loaded)
    return bool(plain and ready and patcher.load_device.type == "cpu")


def encode_beside(clip: Any, text: str) -> Any:
    """As `encode`, in any thread, and moving no weights."""
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    return [[model.encode_token_weights(clip.tokenize(text))[0], {}]]


def temp_file_facts(path: Path) -> dict[str, str]:
    """How ComfyUI's /view names a file in the temporary folder."""
    subfolder = path.parent.relative_to(folder_paths.get_temp_directory()).as_posix()
    return {"filename": path.name, "subfolder": subfolder, "type": "temp"}


def picture(frame: Tensor) -> Image.Image:
    """A frame [H, W, 3] in 0..1."""
    return Image.fromarray(to_bytes(frame).numpy())


# Memory -----------------------------------------------------------------------------------------------------------


def load_models(patchers: Iterable[Any], nbytes: int) -> None:
    """Have the models ready, with room for ``nbytes`` beside them. Only in the thread that runs the graph."""
    mm.load_models_gpu(list(patchers), memory_required=nbytes)


def free_memory(device: torch.device) -> int:
    return int(mm.get_free_memory(device))


def total_memory(device: torch.device) -> int:
    return int(mm.get_total_memory(device))


def intermediate(tensor: Tensor) -> Tensor:
    """On the device where ComfyUI keeps what travels between nodes."""
    return tensor.to(mm.intermediate_device())


def is_out_of_memory(error: BaseException) -> bool:
    known = [torch.OutOfMemoryError]
    if mm.OOM_EXCEPTION is not Exception:  # its stand-in where torch has none
        known.append(mm.OOM_EXCEPTION)
    return isinstance(error, tuple(known))


def gib(nbytes: float) -> str:
    """A number of bytes as people say it."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= 0.1 * unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} bytes"


_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_counter = itertools.count()


def token(thing: object) -> str:
    """Names an object for as long as the server runs; never the same for two, even if one is gone."""
    try:
        if thing not in _serials:
            _serials[thing] = next(_counter)
        return str(_serials[thing])
    except TypeError:  # cannot be remembered: then it is another one each time
        return f"new {next(_counter)}"


# Folders ----------------------------------------------------------------------------------------------------------


def temp_folder(*parts: str) -> Path:
    folder = Path(folder_paths.get_temp_directory(), "self_forcing", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def interrupted_folder() -> Path:
    """Where the sessions of runs lie that did not end."""
    return temp_folder("interrupted")


def register_folders() -> None:
    """Tell ComfyUI where sessions are kept, so that it lists them like models."""
    saved = output_folder() / "sessions"
    saved.mkdir(parents=True, exist_ok=True)
    folders = [str(saved), str(interrupted_folder())]
    folder_paths.folder_names_and_paths[SESSIONS] = (folders, {SESSION_ENDING})


def files(kind: str) -> list[str]:
    return list(folder_paths.get_filename_list(kind))


def file(kind: str, name: str) -> Path:
    """Raises ValueError if the file is gone, naming those that are there."""
    found = folder_paths.get_full_path(kind, name)
    if found is None:
        there = ", ".join(files(kind)[:10]) or "none"
        raise ValueError(f"there is no {name!r} among the files of {kind.replace('_', ' ')}; there are: {there}")
    return Path(found)


def models_folder(kind: str) -> Path:
    """Where new files of a kind go that ComfyUI lists; some kinds have an old folder besides, by another name."""
    folders = [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
    return next((folder for folder in folders if folder.name == kind), folders[0])


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def new_temp_file(stem: str, ending: str) -> Path:
    """A path in the temporary folder that nothing has used."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return temp_folder() / f"{stem}-{stamp}-{next(_counter):04d}{ending}"


def output_path(prefix: str, ending: str) -> Path:
    """The next free numbered file below the output folder, as all of ComfyUI's savers choose it."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    path = Path(folder, f"{name}_{counter:05}_{ending}")
    while path.exists():
        counter += 1
        path = Path(folder, f"{name}_{counter:05}_{ending}")
    return path


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Out of the inference mode that ComfyUI runs nodes in: tensors made here may be changed in place later on."""
    with torch.inference_mode(False), torch.no_grad():
        yield


# Pictures ---------------------------------------------------------------------------------------------------------


def fit_pictures(images: Tensor, width: int, height: int) -> Tensor:
    """IMAGE [T, H, W, C] filling ``width`` x ``height`` pixels, three colours; what sticks out is cut off."""
    if images.shape[1:3] == (height, width):
        return images[..., :3]
    channels_first = images[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(channels_first, width, height, "lanczos", "center").movedim(1, -1)


def jpegs_of(frames: Tensor, longest_edge: int) -> list[bytes]:
    """Of frames [T, H, W, 3] in 0..1, made smaller if an edge is longer than so many pixels."""
    return [_jpeg(Image.fromarray(one), longest_edge) for one in to_bytes(frames).numpy()]


def _jpeg(picture: Image.Image, longest_edge: int) -> bytes:
    picture.thumbnail((longest_edge, longest_edge))
    buffer = bytes_io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def make_room(nbytes: int, device: torch.device) -> None:
    """Let ComfyUI push models out until ``nbytes`` are free. Only in the thread that runs the graph."""
    mm.free_memory(nbytes, device)

"""ComfyUI's services for nodes: progress, interrupts, memory, folders.

Hides the differences between ComfyUI 0.3.75 and 0.33.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from server import PromptServer
from torch import Tensor

from ...sf_core.cancellation import Cancellation
from .rate_limit import RateLimit

log = logging.getLogger("self_forcing")
_counter = itertools.count()

SESSIONS = "self_forcing_sessions"  # ComfyUI's name for the folders that sessions are loaded from
SESSION_ENDING = ".session"
MOVES_AT_ONCE = 100  # of a bar of progress


# Interrupts, progress, text ---------------------------------------------------------------------------------------


class HostCancellation(Cancellation):
    """A run's cancellation by ComfyUI's Cancel button, which sets a flag of the server."""

    error = mm.InterruptProcessingException  # a BaseException in newer versions, an Exception in older ones

    def __init__(self) -> None:
        super().__init__(mm.processing_interrupted)


def is_interrupt(error: BaseException) -> bool:
    """Whether the user ended what raised ``error``."""
    return isinstance(error, HostCancellation.error)


class NodeProgress:
    """The progress bar of a node, and the text under it.

    Each move of a bar costs the editor some memory for good, so after a burst of moves it moves once a second.
    """

    def __init__(self, node: Any, total: int, cancellation: Cancellation) -> None:
        self.node_id: str = str(node.hidden.unique_id)
        self.total = max(1, total)
        self._bar = comfy.utils.ProgressBar(self.total, node_id=self.node_id)
        self._cancellation, self._moves = cancellation, RateLimit(burst=MOVES_AT_ONCE, per_second=1)

    def at(self, value: int) -> None:
        """Move the bar to ``value``. Raises the interrupt if the run was cancelled."""
        self._cancellation.raise_if_asked()
        if self._moves.available < 1 and value < self.total:
            return
        self._moves.take(1)
        self._bar.update_absolute(min(value, self.total), self.total)

    def say(self, text: str) -> None:
        """Show ``text`` on the node."""
        say(self.node_id, text)


def say(node_id: str | None, text: str) -> None:
    """Show ``text`` on a node, for the client whose graph runs."""
    if node_id is not None:
        PromptServer.instance.send_progress_text(text, str(node_id), PromptServer.instance.client_id)


# Memory -----------------------------------------------------------------------------------------------------------


def load_models(patchers: Iterable[Any], nbytes: int) -> None:
    """Have the models ready, with room for ``nbytes`` beside them. Only in the thread that runs the graph."""
    mm.load_models_gpu(list(patchers), memory_required=nbytes)


def free_memory(device: torch.device) -> int:
    return int(mm.get_free_memory(device))


def total_memory(device: torch.device) -> int:
    return int(mm.get_total_memory(device))


def make_room(nbytes: int, device: torch.device) -> None:
    """Let ComfyUI push models out until ``nbytes`` are free. Only in the thread that runs the graph."""
    mm.free_memory(nbytes, device)


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Out of the inference mode that ComfyUI runs nodes in: tensors made here may be changed in place later on."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def intermediate(tensor: Tensor) -> Tensor:
    """On the device where ComfyUI keeps what travels between nodes."""
    return tensor.to(mm.intermediate_device())


def is_out_of_memory(error: BaseException) -> bool:
    known = [torch.OutOfMemoryError]
    if mm.OOM_EXCEPTION is not Exception:  # its stand-in where torch has none
        known.append(mm.OOM_EXCEPTION)
    return isinstance(error, tuple(known))


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


def temp_file_facts(path: Path) -> dict[str, str]:
    """How ComfyUI's /view names a file in the temporary folder."""
    subfolder = path.parent.relative_to(folder_paths.get_temp_directory()).as_posix()
    return {"filename": path.name, "subfolder": subfolder, "type": "temp"}


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

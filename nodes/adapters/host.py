"""ComfyUI's services for nodes: progress, interrupts, tensors, folders.

Hides the differences between ComfyUI 0.3.75 and 0.33.
"""

from __future__ import annotations

import html
import itertools
import logging
import os
import time
from collections.abc import Iterator
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
from ...sf_core.files.atomic_write import sweep_parts
from ...sf_core.files.disk import make_folder
from ...sf_core.files.file_names import check_file_name
from ...sf_core.message import Message
from . import languages, leftovers, users
from .rate_limit import RateLimit
from .running_prompt import executing_node, running_prompt

log = logging.getLogger("self_forcing")
_counter = itertools.count()

SESSIONS = "self_forcing_sessions"  # ComfyUI's name for the folders that sessions are loaded from
SESSION_ENDING = ".session"
MOVES_AT_ONCE = 100  # of a progress bar


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

    def __init__(self, total: int, cancellation: Cancellation) -> None:
        self.node_id = executing_node()
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

    def prepare(self, done: int, total: int) -> None:
        """Show the progress of a preparation on the bar, which begins anew after it."""
        if self._moves.available < 1:
            return
        self._moves.take(1)
        # of its own, because ComfyUI's bar does not move back
        comfy.utils.ProgressBar(total, node_id=self.node_id).update_absolute(done)

    def say(self, message: Message) -> None:
        """Show a message on the node."""
        say(self.node_id, message)


def say(node_id: str, message: Message) -> None:
    """Show a message on a node while it runs, to the client whose graph runs, in that client's language.

    Without such a client nobody gets it: ComfyUI would send it to everybody. Editors show this text as HTML, so it is
    escaped: names in it may come from anybody's files.
    """
    server = PromptServer.instance
    if node_id and server.client_id is not None:
        text = languages.for_client(message, server.client_id)
        server.send_progress_text(html.escape(text, quote=False), node_id, server.client_id)


def keep_saying(message: Message) -> dict[str, list[Any]]:
    """Show a message on the node that runs; return its ``ui``, with which js/texts.js shows it after the run too.

    ComfyUI keeps the ``ui`` and sends it again, perhaps to a page in another language: it has the text in all of them.
    """
    if message:
        say(executing_node(), message)
    text = languages.for_client(message, PromptServer.instance.client_id)
    return {"sf_text": [text], "sf_text_in": [languages.in_all(message)]}


def output_is_taken(output: int) -> bool:
    """Whether a node of the prompt takes an output of the node that runs; true where that cannot be known."""
    prompt, node_id = running_prompt().graph, executing_node()
    if node_id not in prompt:  # a node that another node expanded to
        return True
    return any([node_id, output] == value for other in prompt.values() for value in other["inputs"].values())


def remark(message: Message) -> dict[str, list[Any]]:
    """Show a message on the node that runs as `keep_saying` does, and write it to the log, if it is not empty."""
    if message:
        log.info("%s", message)
    return keep_saying(message)


# Tensors ----------------------------------------------------------------------------------------------------------


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Leave the inference mode that ComfyUI runs nodes in, so that new tensors may be changed in place later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def intermediate(tensor: Tensor) -> Tensor:
    """Move a tensor to the device on which ComfyUI keeps node outputs."""
    return tensor.to(mm.intermediate_device())


# Folders ----------------------------------------------------------------------------------------------------------


def temp_path(*parts: str) -> Path:
    """Return a path below the pack's temporary folder; nothing is made."""
    return Path(folder_paths.get_temp_directory(), leftovers.FOLDER, *parts)


def temp_folder(*parts: str) -> Path:
    """Return a folder of the pack below ComfyUI's temporary folder; it is made if need be. Raises OSError."""
    folder = temp_path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def interrupted_folder() -> Path:
    """Return the folder of autosaved sessions of interrupted and failed runs of this user, which need not exist."""
    return _own_temp_path(leftovers.INTERRUPTED)


def ended_folder() -> Path:
    """Return the folder of the last sessions of this user's runs that ended well, which need not exist."""
    return _own_temp_path(leftovers.ENDED)


def unfinished_folder() -> Path:
    """Return the folder of copies of this user's active runs, which need not exist."""
    return _own_temp_path(leftovers.UNFINISHED)


def _own_temp_path(name: str) -> Path:
    user = users.current()
    return temp_path(name) if user == users.DEFAULT else temp_path(leftovers.USERS, user, name)


def saving_folder() -> Path:
    """Return the folder below which this user's sessions are saved: ComfyUI's output, or one of the user's own data."""
    user = users.current()
    if user == users.DEFAULT:
        return output_folder()
    return Path(folder_paths.get_public_user_directory(user), "self_forcing")


def session_folders() -> list[Path]:
    """Return the folders of this user's sessions."""
    if users.current() == users.DEFAULT:
        return [Path(folder) for folder in folder_paths.get_folder_paths(SESSIONS)]
    return [saving_folder() / "sessions", interrupted_folder(), ended_folder()]


def session_names() -> list[str]:
    """Return the names of this user's sessions in Load Session."""
    if users.current() == users.DEFAULT:
        return files(SESSIONS)
    names = {file.relative_to(one) for one in session_folders() for file in one.rglob(f"*{SESSION_ENDING}")}
    return sorted(map(str, names))


def session_file(name: str) -> Path:
    """Return the path of a session of this user. Raises ValueError, naming the sessions there are, if it is gone."""
    if users.current() == users.DEFAULT:
        return file(SESSIONS, name)
    names = session_names()
    paths = [one / name for one in session_folders() if name in names and (one / name).is_file()]
    if not paths:
        raise ValueError(f"you have no session {name!r}; there are: {', '.join(names[:10]) or 'none'}")
    return paths[0]


def register_folders() -> None:
    """Register the folders of sessions, so that ComfyUI lists the files like models.

    The pack is there also when they cannot be made: who saves a session is told.
    """
    try:
        if files_kept := leftovers.put_back(Path(folder_paths.get_temp_directory())):
            log.info("%s files of a server that was killed are kept; Load Session lists its sessions", files_kept)
    except OSError as error:
        log.warning("what a killed server left cannot be put back: %s", error)
    folders = [output_folder() / "sessions", interrupted_folder(), ended_folder()]
    of_others = [
        *Path(folder_paths.get_user_directory()).glob("*/self_forcing/sessions"),
        *temp_path(leftovers.USERS).glob(f"*/{leftovers.INTERRUPTED}"),
        *temp_path(leftovers.USERS).glob(f"*/{leftovers.ENDED}"),
    ]
    for folder in (*folders, *of_others):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep_parts(folder, f"*{SESSION_ENDING}")
        except OSError as error:
            log.warning("sessions cannot be saved in %s: %s", folder, error.strerror)
    folder_paths.folder_names_and_paths[SESSIONS] = ([str(folder) for folder in folders], {SESSION_ENDING})


def offer_inputs(folder: Path) -> None:
    """Copy the files of ``folder`` to ComfyUI's input folder, so that templates run at once. Replaces no file."""
    for source in sorted(folder.iterdir()):
        target = Path(folder_paths.get_input_directory(), source.name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                copy.write(source.read_bytes())
        except FileExistsError:
            pass
        except OSError as error:
            log.warning("cannot copy %s for the templates: %s", target, error)


def temp_file_facts(path: Path) -> dict[str, str]:
    """Return the parameters of ComfyUI's /view route for a file in the temporary folder."""
    subfolder = path.parent.relative_to(folder_paths.get_temp_directory()).as_posix()
    return {"filename": path.name, "subfolder": subfolder, "type": "temp"}


def files(kind: str) -> list[str]:
    """Return the names of the files that ComfyUI lists under ``kind``."""
    try:
        return list(folder_paths.get_filename_list(kind))
    except OSError:  # a folder of ComfyUI's former list has been removed
        folder_paths.filename_list_cache.pop(kind, None)
        return list(folder_paths.get_filename_list(kind))


def file(kind: str, name: str) -> Path:
    """Return the path of a listed file. Raises ValueError, naming the files there are, if it is gone."""
    path = folder_paths.get_full_path(kind, name)
    if path is None:
        names = ", ".join(files(kind)[:10]) or "none"
        raise ValueError(f"there is no {name!r} among the files of {kind.replace('_', ' ')}; there are: {names}")
    return Path(path)


def models_folder(kind: str) -> Path:
    """Return the folder for new files of ``kind``. Some kinds also have an older folder of another name."""
    folders = [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
    return next((folder for folder in folders if folder.name == kind), folders[0])


def output_folder() -> Path:
    """Return ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory())


def new_temp_file(stem: str, ending: str) -> Path:
    """Return an unused path in the temporary folder, which need not exist."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return temp_path() / f"{stem}-{stamp}-{next(_counter):04d}{ending}"


def output_path(prefix: str, ending: str, width: int = 0, height: int = 0) -> Path:
    """Return the next free numbered path below `saving_folder`, chosen as by ComfyUI's own savers.

    A link in the output folder is followed: its owner wants the files there.

    Args:
        prefix: Folder and beginning of the name, with %width%, %height%, %year% and so on.
        ending: Ending of the name.
        width: Pixels, for %width%.
        height: Pixels, for %height%.

    Raises:
        ValueError: ``prefix`` is no name for a file on this system, or leads out of the output folder.
        OSError: The folder cannot be made, or takes no files.
    """
    check_file_name(Path(f"{prefix}_00001_{ending}"))
    output = saving_folder()
    place = Path(os.path.normpath(output / prefix))
    if output not in place.parents:
        raise ValueError(f"{prefix!r} leads out of ComfyUI's output folder: name a folder below it")
    base, prefix = (output, prefix) if _is_below(place.parent, output) else (place.parent.resolve(), place.name)
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(base), width, height)
    except OSError as error:
        reason = f"no file can be made in {place.parent}: {error.strerror}. Name another folder"
        raise OSError(error.errno, reason) from error
    make_folder(Path(folder))
    path = Path(folder, f"{name}_{counter:05}_{ending}")
    while path.exists():
        counter += 1
        path = Path(folder, f"{name}_{counter:05}_{ending}")
    return path


def _is_below(folder: Path, top: Path) -> bool:
    return folder.resolve().is_relative_to(top.resolve())

"""Nodes that save, load and describe sessions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui

from ..sf_core.byte_units import format_bytes
from ..sf_core.message import Message
from ..sf_core.session.session import Session
from .adapters import host, users
from .adapters.graph_facts import about_session
from .adapters.model import HostedWan
from .adapters.wire_types import GraphSession, SessionWire
from .inputs import checked, schema
from .live import results, saved_sessions
from .session_picture import draw_session, session_in_words

_NONE = "no session yet"


class SFSaveSession(io.ComfyNode):
    """Saves a session to a file."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSaveSession",
            display_name="Save Session",
            description="Saves a session as a small file: settings, prompts, seeds, latents. See Load Session.",
            search_aliases=["save latents", "save video state"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to save."),
                io.String.Input(
                    "filename_prefix",
                    default="sessions/session",
                    tooltip="Folder below output and beginning of the name, with the patterns of Save Video. "
                    "Load Session lists output/sessions.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Path of the file.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Check before the work that a file can be written there, unless another node or the session names it."""
        try:
            if filename_prefix is not None and not re.search("%(width|height)%", filename_prefix):
                host.output_path(filename_prefix, host.SESSION_ENDING)
        except (OSError, ValueError) as error:
            return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        return f"{users.current()} {results.times_lost(cls)}"  # another user's file is not this one's result

    @classmethod
    @checked
    def execute(cls, session: GraphSession, filename_prefix: str) -> Any:
        path = _saved(session.core, filename_prefix)
        results.remember(cls, path)
        facts = {"name": path.name, "n": session.core.chunks, "size": format_bytes(path.stat().st_size)}
        summary = Message("{name}: {n} chunks, {size}", **facts)
        shown = host.keep_saying(summary)
        return io.NodeOutput(str(path), ui={**ui.PreviewText(str(summary)).as_dict(), **shown})


def _saved(session: Session, prefix: str) -> Path:
    """Save a session; if that fails, keep it with those of interrupted runs, and say so in the error."""
    about = about_session()
    try:
        return saved_sessions.save_new(session, prefix, about)
    except (OSError, ValueError) as error:
        path = saved_sessions.keep(session, "unsaved", about) if session.frames else None
        if path is None:
            raise
        kept = f"The session is kept: Load Session lists it as '{path.stem}'"
        raise OSError(f"{getattr(error, 'strerror', None) or error}. {kept}") from error


class SFLoadSession(io.ComfyNode):
    """Loads a session from a file."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFLoadSession",
            display_name="Load Session",
            description="Loads a session from a file or of an interrupted run, to extend it. R refreshes the list.",
            search_aliases=["continue video", "resume video", "interrupted"],
            inputs=[
                io.Model.Input("model", tooltip="The model that made the session."),
                io.Combo.Input(
                    "file",
                    options=host.session_names() or [_NONE],
                    tooltip="A file in output/sessions, or 'interrupted at chunk k' of an earlier run.",
                ),
                io.Boolean.Input(
                    "allow_other_model",
                    default=False,
                    tooltip="Accept another model or LoRA than the one that made the session; recorded in the session.",
                ),
            ],
            outputs=[
                SessionWire.Output(display_name="session", tooltip="The session; no part of it counts as decoded.")
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        """Check the file itself, not the page's list, which lacks files saved since the page was loaded."""
        if file is None:  # another node gives it
            return True
        if file == _NONE:
            return "there is no session yet: make one with Save Session, then press R to refresh the list"
        try:
            host.session_file(file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **others: Any) -> str | float:
        if file is None:  # another node gives it, later: nobody can tell whether that file has changed
            return float("nan")
        path = host.session_file(file)
        facts = path.stat()
        return f"{path} {facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_size}"

    @classmethod
    @checked
    def execute(cls, model: Any, file: str, allow_other_model: bool) -> Any:
        wan = HostedWan(model)
        path, archive = host.session_file(file), host.temp_path("archive")
        session = Session.load(
            path,
            wan,
            allow_other_model=allow_other_model,
            archive_folder=archive,
            cancellation=host.HostCancellation(),
        )
        return io.NodeOutput(GraphSession(session))


class SFSessionInfo(io.ComfyNode):
    """Describes a session as text and as a picture."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSessionInfo",
            display_name="Session Info",
            description="Shows what a session holds and takes, as text and as a picture of its KV cache and timings.",
            search_aliases=["kv cache size", "session debug"],
            inputs=[SessionWire.Input("session", tooltip="Any session.")],
            outputs=[
                io.String.Output(display_name="text", tooltip="Length, prompts, events, settings, memory."),
                io.Image.Output(
                    display_name="picture", tooltip="Layout of the KV cache, seconds and drift of each chunk."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(cls, session: GraphSession) -> Any:
        description = session_in_words(session)
        text = str(description)  # for other nodes and programs: English
        picture = torch.from_numpy(np.asarray(draw_session(session)).copy()).float()[None] / 255
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(text, picture, ui={**previews, **host.keep_saying(description)})


NODES = [SFSaveSession, SFLoadSession, SFSessionInfo]

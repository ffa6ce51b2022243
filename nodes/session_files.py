"""Nodes that keep sessions, bring them back, and show what one is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui

from ..sf_core.byte_units import format_bytes
from ..sf_core.session.session import Session
from .adapters import host
from .adapters.model import HostedWan
from .adapters.wire_types import GraphSession, SessionWire
from .inputs import schema
from .live import thumbnails
from .session_picture import draw_session, session_in_words

_NONE = "no session yet"


class SFSaveSession(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSaveSession",
            display_name="Save Session",
            description="Keeps a session as a small file: settings, prompts, seeds, latents. See Load Session.",
            search_aliases=["save latents", "save video state"],
            inputs=[
                SessionWire.Input("session", tooltip="The session to keep."),
                io.String.Input(
                    "filename_prefix",
                    default="sessions/session",
                    tooltip="Folder and beginning of the name, below output; Load Session lists output/sessions.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Where the file lies.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, session: GraphSession, filename_prefix: str) -> Any:
        path = host.output_path(filename_prefix, host.SESSION_ENDING)
        session.core.save(path)
        thumbnails.write_beside(path, session.core)
        size = format_bytes(path.stat().st_size)
        said = f"{path.name}: {session.core.chunks} chunks, {size}"
        host.say(cls.hidden.unique_id, said)
        return io.NodeOutput(str(path), ui=ui.PreviewText(said))


class SFLoadSession(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFLoadSession",
            display_name="Load Session",
            description="A session from a file, or of a run that was interrupted, to go on with. R refreshes the list.",
            search_aliases=["continue video", "resume video", "interrupted"],
            inputs=[
                io.Model.Input("model", tooltip="The model that made it."),
                io.Combo.Input(
                    "file",
                    options=host.files(host.SESSIONS) or [_NONE],
                    tooltip="From output/sessions, or 'interrupted at chunk k' of a run since the server started.",
                ),
                io.Boolean.Input(
                    "allow_other_model",
                    default=False,
                    tooltip="Go on with another model or LoRA than the one that made it; noted in the session.",
                ),
            ],
            outputs=[SessionWire.Output(display_name="session", tooltip="The session, none of it decoded yet.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """In place of the check against the list: a file that was saved since the page was loaded is as good."""
        if file == _NONE:
            return "there is no session yet: make one with Save Session, then press R to refresh the list"
        try:
            host.file(host.SESSIONS, file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> str:
        path = host.file(host.SESSIONS, file)
        facts = path.stat()
        return f"{path} {facts.st_mtime_ns} {facts.st_size}"

    @classmethod
    def execute(cls, model: Any, file: str, allow_other_model: bool) -> Any:
        wan = HostedWan(model)
        session = Session.load(host.file(host.SESSIONS, file), wan, allow_other_model=allow_other_model)
        return io.NodeOutput(GraphSession(session))


class SFSessionInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFSessionInfo",
            display_name="Session Info",
            description="What a session holds and takes, in words and as a picture of its cache and timings.",
            search_aliases=["kv cache size", "session debug"],
            inputs=[SessionWire.Input("session", tooltip="Any session.")],
            outputs=[
                io.String.Output(display_name="text", tooltip="Length, prompts, events, settings, memory."),
                io.Image.Output(
                    display_name="picture", tooltip="The cache as it lies in memory, and seconds for each chunk."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, session: GraphSession) -> Any:
        text = session_in_words(session)
        picture = torch.from_numpy(np.asarray(draw_session(session)).copy()).float()[None] / 255
        host.say(cls.hidden.unique_id, text)
        shown = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(text, picture, ui=shown)


NODES = [SFSaveSession, SFLoadSession, SFSessionInfo]

"""The nodes of the pack, one file a family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import ComfyExtension

from . import (
    decoding,
    loading,
    prompt_timeline,
    rollout_settings,
    sampling,
    session,
    session_files,
    stream_video,
    train,
    verifying,
    video_source,
)
from .adapters import host, users
from .server import live_routes

TEMPLATE_INPUTS = Path(__file__).parents[1] / "workflows" / "input"
FAMILIES = (
    loading,
    rollout_settings,
    session,
    sampling,
    decoding,
    stream_video,
    video_source,
    prompt_timeline,
    session_files,
    train,
    verifying,
)


class SelfForcingExtension(ComfyExtension):
    """The pack, as ComfyUI loads it."""

    async def get_node_list(self) -> list[type[Any]]:
        """Return the classes of all nodes."""
        return [node for family in FAMILIES for node in family.NODES]


async def comfy_entrypoint() -> SelfForcingExtension:
    """Register folders, users and routes, copy what templates load, and return the extension. Called by ComfyUI."""
    host.register_folders()
    host.offer_inputs(TEMPLATE_INPUTS)
    users.register()
    live_routes.register()
    return SelfForcingExtension()

"""The nodes of the pack: one file a family, all of ComfyUI behind `host`."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import ComfyExtension

from . import decoding, host, loading, routes, sampling, session, session_files, steering, streaming, training

FAMILIES = (loading, session, sampling, decoding, streaming, steering, session_files, training)


class SelfForcingExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[Any]]:
        return [node for family in FAMILIES for node in family.NODES]


async def comfy_entrypoint() -> SelfForcingExtension:
    host.register_folders()
    routes.register()
    return SelfForcingExtension()

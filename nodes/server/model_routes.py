"""HTTP route that says, before any run, which model a file holds."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ...sf_core.files.published_models import frame_rate
from ...sf_core.message import Message
from ..adapters import host, languages
from ..adapters.model_loader import recognised
from ..presets import MODEL_PRESETS, said_of
from .validation import Refused, body_of, json_route


def register(routes: web.RouteTableDef) -> None:
    """Add the route. To be called while ComfyUI loads its packs."""
    routes.post("/self_forcing/model")(described)


@json_route
async def described(request: web.Request) -> dict[str, Any]:
    """Answer what Load Self Forcing Model says of a file and a preset, and the frames a second of such a model.

    Body: ``{"name", "preset", "language"?}``.
    """
    body = await body_of(request, {"name": str, "preset": str}, {"language": str})
    name, preset, language = body["name"], body["preset"], body.get("language", "")
    if preset not in MODEL_PRESETS:
        raise Refused(400, f"there is no preset {preset[:100]!r}")
    if name not in host.files("diffusion_models"):  # as in a template before its files are there: no error
        missing = Message(
            "There is no file {name} in models/diffusion_models. Put it there, or choose another.",
            name=repr(name[:100]),
        )
        return {"text": languages.in_language(missing, language)}
    try:
        model = await asyncio.to_thread(recognised, host.file("diffusion_models", name))
        said = said_of(model, preset, model.channels)
        rate = {} if model.channels is None else {"fps": frame_rate(model.channels)}
        return {"text": languages.in_language(said, language), **rate}
    except (ValueError, OSError) as error:
        raise Refused(409, str(error)) from error

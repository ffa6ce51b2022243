"""HTTP routes of the sessions panel: list sessions, save the session of a run, delete a file.

Files are read and written in a worker thread, because the event loop also serves every viewer's pictures.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp import web

from ..adapters import host, users
from ..adapters.model import comfy_model
from ..live import saved_sessions
from ..live.run import Run, live_runs, run_of
from . import session_listing
from .validation import NODE_ID, Refused, body_of, json_route


def register(routes: web.RouteTableDef) -> None:
    """Add the routes. To be called while ComfyUI loads its packs."""
    routes.get("/self_forcing/sessions")(listed)
    routes.get("/self_forcing/sessions/picture/{key}")(picture)
    routes.post("/self_forcing/sessions/keep")(keep)
    routes.post("/self_forcing/sessions/delete")(delete)
    routes.post("/self_forcing/sessions/rename")(rename)
    routes.post("/self_forcing/keep")(keep_file)


@json_route
async def listed(request: web.Request) -> dict[str, Any]:
    """Answer ``{"sessions": [...]}``: the live sessions of this user, then the files, newest first."""
    runs = live_runs(users.current())
    try:
        return {"sessions": await asyncio.to_thread(_all, runs)}
    except OSError as error:
        raise Refused(409, f"the sessions cannot be read now: {error.strerror}") from error


def _all(runs: list[Run]) -> list[dict[str, Any]]:
    return [*map(_live, runs), *session_listing.all_sessions()]


def _live(run: Run) -> dict[str, Any]:
    session, shown = run.newest, run.view.state()
    rows, columns = session.latent_size
    factor = comfy_model(session).spatial_factor
    return {
        "name": run.node_id,
        "kind": "live",
        "node_id": run.node_id,
        "chunks": session.chunks,
        "frames": session.frames,
        "width": columns * factor,
        "height": rows * factor,
        "model": session.model.fingerprint,
        "run": shown["run"],
        "prompt_id": shown["prompt_id"],
        **session_listing.facts_for_people(
            run.view.about, session.frames, saved_sessions.prompt_of(session), session.model.arch.in_dim
        ),
        "bytes": None,
        "modified": None,
        "picture": f"/self_forcing/frames/{shown['run']}/{shown['frames'] - 1}?or=newest" if shown["frames"] else None,
    }


@partial(json_route, anybody=True)  # a page's <img> names no user, and nobody guesses the key
async def picture(request: web.Request) -> Any:
    """Answer with the picture of a session, by the address in its entry."""
    jpeg = await asyncio.to_thread(session_listing.picture, request.match_info["key"])
    if jpeg is None:
        raise Refused(404, "there is no picture of that name: list the sessions again")
    return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "private"})


@json_route
async def keep(request: web.Request) -> dict[str, Any]:
    """Save the session of a run as it is now; it continues. Body: ``{"node_id"}``, and perhaps ``run``, ``name``."""
    body = await body_of(request, {"node_id": NODE_ID}, {"run": str, "name": str})
    try:
        name = session_listing.checked_name(body["name"]) if "name" in body else None
    except ValueError as error:
        raise Refused(400, str(error)) from error
    node_id = str(body["node_id"])
    run = run_of(node_id, users.current(), body.get("run"))
    if run is None:
        raise Refused(404, f"node {node_id[:40]} makes no video now")
    session = run.newest
    if not session.frames:
        raise Refused(409, "there is nothing to keep yet: wait for the first chunk")
    try:
        newest, about = run.view.newest_picture(), run.view.about
        return {"name": await asyncio.to_thread(session_listing.keep, session, name, about, newest and newest[1])}
    except (OSError, ValueError) as error:
        host.log.warning("cannot save a session: %s", error)
        reason = getattr(error, "strerror", None) or error
        raise Refused(409, f"the session cannot be kept: {reason}") from error


@json_route
async def keep_file(request: web.Request) -> dict[str, Any]:
    """Save a session that Load Session lists for good. Body: ``{"session"}``, perhaps ``"name"``."""
    body = await body_of(request, {"session": str}, {"name": str})
    try:
        return {"name": await asyncio.to_thread(session_listing.keep_file, body["session"], body.get("name"))}
    except FileNotFoundError as error:
        raise Refused(404, f"the session {body['session'][:100]!r} is gone: newer ones have taken its place") from error
    except OSError as error:
        host.log.warning("cannot save a session: %s", error)
        raise Refused(409, f"the session cannot be kept: {error.strerror or error}") from error
    except ValueError as error:
        raise Refused(400, str(error)) from error


@json_route
async def rename(request: web.Request) -> dict[str, Any]:
    """Rename a session that Load Session lists. Body: ``{"session", "name"}``."""
    body = await body_of(request, {"session": str, "name": str})
    session = body["session"]
    try:
        return {"name": await asyncio.to_thread(session_listing.rename, session, body["name"])}
    except FileNotFoundError as error:
        raise Refused(404, f"there is no session {session[:100]!r}") from error
    except OSError as error:
        raise Refused(409, f"{session[:100]!r} cannot be renamed: {error.strerror or error}") from error
    except ValueError as error:
        raise Refused(400, str(error)) from error


@json_route
async def delete(request: web.Request) -> dict[str, Any]:
    """Delete a file that Load Session lists. Body: ``{"name"}``."""
    name = (await body_of(request, {"name": str}))["name"]
    try:
        await asyncio.to_thread(session_listing.delete, name)
    except FileNotFoundError as error:
        raise Refused(404, f"there is no session {name[:100]!r}") from error
    except OSError as error:
        raise Refused(
            409, f"{name[:100]!r} cannot be deleted: {error.strerror or 'it is not a file of ours'}"
        ) from error
    return {"deleted": name}

"""What the pack answers over HTTP while nodes run."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from . import running

MAX_BYTES = 4096


def register() -> None:
    """Add the routes to ComfyUI's server; to be called while it loads its packs."""
    PromptServer.instance.routes.post("/self_forcing/stop")(stop)


async def stop(request: web.Request) -> web.Response:
    """End a node's run after the chunk at work. Body: ``{"node_id": "<execution id>"}``, as events carry it."""
    if (request.content_length or 0) > MAX_BYTES:
        return _refused("the body is too long", 413)
    try:
        body = await request.json()
    except ValueError:
        return _refused("the body is not JSON")
    node_id = body.get("node_id") if isinstance(body, dict) else None
    if not isinstance(node_id, (str, int)):
        return _refused('expected {"node_id": "<execution id>"}')
    if not running.stop(str(node_id)):
        return _refused(f"node {str(node_id)[:40]} makes no video now", 404)
    return web.json_response({"stopping": str(node_id)})


def _refused(why: str, status: int = 400) -> web.Response:
    return web.json_response({"error": why}, status=status)

"""HTTP routes for live runs: attaching, steering, frames. See docs/live.md."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from aiohttp import web
from server import PromptServer

from ...sf_core.noise import MAX_SEED
from ...sf_core.session.commands import Command, Pause, ReRoll, Resume, Stop
from ...sf_core.session.timeline import MAX_BLEND
from ..adapters import users
from ..adapters.languages import LONGEST_LANGUAGE
from ..live import clients
from ..live.run import Run, run_of
from ..live.view import picture_of, states_for
from . import model_routes, session_routes
from .validation import NODE_ID, Kinds, Refused, body_of, json_route

MAX_ACTIONS = 1000  # of one run
MAX_WAITING = 64  # actions that wait for a run's next chunk
LONGEST_CLIENT_ID = 128
PROMPT_CHARACTERS = 2000
_COMMANDS: dict[str, Command] = {"pause": Pause(), "resume": Resume(), "stop": Stop()}


def register() -> None:
    """Add the routes to ComfyUI's server. To be called while it loads its packs."""
    routes = PromptServer.instance.routes
    routes.post("/self_forcing/attach")(attach)
    routes.post("/self_forcing/steer")(steer)
    routes.get("/self_forcing/frames/{run}/{number}")(frame)
    session_routes.register(routes)
    model_routes.register(routes)


@json_route
async def attach(request: web.Request) -> Any:
    """Send the messages of a user's runs to a client from now on. Answers with the state of each run."""
    optional: dict[str, Kinds] = {"own": bool, "visible": bool, "runs": list, "previews": bool, "language": str}
    body = await body_of(request, {"client_id": str}, optional)
    client = body["client_id"]
    if not 0 < len(client) <= LONGEST_CLIENT_ID:
        raise Refused(400, "client_id is of the wrong length; expected that of your websocket")
    language = body.get("language", "")
    if len(language) > LONGEST_LANGUAGE:
        raise Refused(400, "language is of the wrong length; expected a tag such as 'en' or 'zh'")
    user, own = users.current(), body.get("own", False)
    states = states_for(user, client if own else None)
    shown = body.get("runs")
    left_out = frozenset() if shown is None else frozenset(one["run"] for one in states if one["run"] not in shown)
    wishes = clients.Attached(user, own, body.get("visible", True), left_out, body.get("previews", False))
    if not clients.attach(client, wishes, language):
        raise Refused(409, "this client_id is another user's; expected that of your own websocket")
    return {"runs": states}


@json_route
async def steer(request: web.Request) -> Any:
    """Steer a node's run. The action takes effect between two chunks."""
    which: dict[str, Kinds] = {"run": str, "client_id": str}
    optional: dict[str, Kinds] = {"prompt": str, "blend": int, "recache": bool, "seed": (int, str)}
    body = await body_of(request, {"node_id": NODE_ID, "action": str}, {**optional, **which})
    action, node_id = body["action"], str(body["node_id"])
    run = run_of(node_id, users.current(), body.get("run"), body.get("client_id"))
    if run is None:
        raise _ended(node_id)
    if run.steering is None and action != "stop":
        raise Refused(409, "this node can only be stopped; Stream Video can be steered")
    if action != "stop" and run.waiting >= MAX_WAITING:
        raise Refused(409, f"{MAX_WAITING} actions wait for the next chunk already: send more after it")
    refusals = run.view.refusals
    if action in _COMMANDS:
        run.steer(_COMMANDS[action])
    elif not _steer_content(run, action, body):
        raise _ended(node_id)
    run.view.accept(refusals)
    return {"accepted": action}


def _ended(node_id: str) -> Refused:
    return Refused(404, f"node {node_id[:40]} makes no video now")


def _steer_content(run: Run, action: str, body: dict[str, Any]) -> bool:
    """Change what is sampled. Returns whether the run still took it."""
    steering = run.steering
    assert steering is not None
    if len(steering.actions) + run.waiting >= MAX_ACTIONS:
        raise Refused(409, f"this run was steered {MAX_ACTIONS} times; stop it, and continue in a new run")
    match action:
        case "prompt":
            if not steering.takes_prompts:
                raise Refused(409, "this node cannot read prompts: wire a CLIP into its input 'clip'")
            prompt = _prompt(body)
            if not steering.takes(prompt):
                raise Refused(409, "the prompts of this run are too long together; stop it, and continue in a new run")
            return steering.prompt(prompt, _integer(body, "blend", 1, MAX_BLEND, 1), body.get("recache", False))
        case "cut":
            return steering.cut()
        case "reroll":
            run.steer(ReRoll(_integer(body, "seed", 0, MAX_SEED, secrets.randbelow(2**32))))
            return True
        case _:
            actions = ", ".join(["prompt", "cut", "reroll", *_COMMANDS])
            raise Refused(400, f"there is no action {action[:40]!r}; there are: {actions}")


def _prompt(body: dict[str, Any]) -> str:
    text = " ".join(body.get("prompt", "").split())
    if not 0 < len(text) <= PROMPT_CHARACTERS:
        raise Refused(400, f"the prompt has {len(text)} characters; expected 1 to {PROMPT_CHARACTERS}")
    return text


def _integer(body: dict[str, Any], name: str, least: int, most: int, default: int) -> int:
    """Read a whole number, or one as text, since JavaScript has none beyond 2^53."""
    value = body.get(name, default)
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else -1
    if not least <= value <= most:
        raise Refused(400, f"{name} is out of range; expected {least} to {most}")
    return int(value)


@json_route
async def frame(request: web.Request) -> Any:
    """Answer with the JPEG of a frame, or of the nearest earlier one that is stored."""
    number = request.match_info["number"]
    if not (number.isascii() and number.isdigit() and len(number) <= 12):
        raise Refused(400, "expected the number of a frame")
    user, run = users.current(), request.match_info["run"]
    or_newest = request.query.get("or") == "newest"
    picture = await asyncio.to_thread(picture_of, user, run, int(number), or_newest)  # it reads a file
    if picture is None:
        raise Refused(404, "there is no picture of that frame, or of any before it")
    headers = {"X-Frame": str(picture[0]), "Cache-Control": "no-store"}
    return web.Response(body=picture[1], content_type="image/jpeg", headers=headers)

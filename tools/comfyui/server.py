"""A real ComfyUI server as an object: to start, query, listen to and stop."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkout import ROOT, Checkout, frontend
from .events import Events

Prompt = dict[str, Any]  # node id -> {"class_type", "inputs"}, which /prompt takes

PACK = "comfyui-self-forcing"
ARGUMENTS = (
    *("--cpu", "--listen", "127.0.0.1", "--disable-auto-launch", "--disable-api-nodes"),
    *("--database-url", "sqlite:///:memory:", "--use-pytorch-cross-attention"),
)
# requests to a local server use no proxy, whatever the environment says
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerFailed(Exception):
    """The server did not start, or has ended; the message has the end of its log."""


class PromptRejected(Exception):
    """The server rejected the prompt; the message has the errors of each node, `details` the whole answer."""

    def __init__(self, details: dict[str, Any], note: str = "") -> None:
        self.details = details
        self.node_errors: dict[str, Any] = details.get("node_errors") or {}
        error = details.get("error") or {}
        lines = [f"{error.get('message', error)} {error.get('details', '')}".strip()] if error else []
        for node, answer in self.node_errors.items():
            for one in answer.get("errors", []):
                text = f"{one.get('message', '')}: {one.get('details', '')}".strip(": ")
                lines.append(f"node {node} ({answer.get('class_type')}): {text}")
        super().__init__("\n".join(lines + ([note] if note else [])) or str(details))


class PromptFailed(Exception):
    """A node raised while the prompt ran."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.exception_message = str(data.get("exception_message", ""))
        self.exception_type = str(data.get("exception_type", ""))
        self.node_id = str(data.get("node_id", ""))
        where = f"node {self.node_id} ({data.get('node_type')})"
        trace = "".join(data.get("traceback") or [])
        super().__init__(f"{where}: {self.exception_type}: {self.exception_message}\n{trace}")


class PromptInterrupted(Exception):
    """The prompt was stopped."""


class Server:
    """A ComfyUI server: `with Server(checkout, folder) as server:`, or `start` and `stop`.

    The folder holds models, input and output. The packs are linked into its custom_nodes under their names. The server
    ends with this process, also when this process is killed.
    """

    def __init__(
        self,
        checkout: Checkout,
        base: Path,
        *,
        packs: Mapping[str, Path] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        threads: int | None = None,
        port: int | None = None,
        log: Path | None = None,
        start_within: float = 180,
    ) -> None:
        self.checkout, self.base = checkout, base.resolve()
        self.packs = {PACK: ROOT} if packs is None else dict(packs)
        self.arguments, self.environment, self.threads = tuple(arguments), dict(environment or {}), threads
        self.log = log or self.base / "server.log"
        self.port = port or _free_port()
        self.start_within = start_within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._running().pid

    # -- the process

    def start(self) -> Server:
        """Start the server, and wait until it answers."""
        for folder in (
            "custom_nodes",
            "models",
            "input",
            "output",
            "temp",
            "user/default/workflows",
            "user/default/subgraphs",
        ):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, pack in self.packs.items():
            link = self.base / "custom_nodes" / name
            link.unlink(missing_ok=True)
            link.symlink_to(pack.resolve(), target_is_directory=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **self.environment}
        environment.pop("PYTHONPATH", None)  # ComfyUI has modules of the same names, such as `nodes`
        if self.threads:
            environment |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        launch = [sys.executable, str(Path(__file__).with_name("launch.py")), str(self.checkout.path), "--"]
        places = ["--port", str(self.port), "--base-directory", str(self.base)]
        editor = ["--front-end-root", str(frontend(self.checkout))]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*launch, *ARGUMENTS, *places, *editor, *self.arguments],
                env={**environment, "COMFYUI_ENDS_WITH_STDIN": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)
        self._wait_until_it_answers()
        return self

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self.start_within
        while True:
            try:
                self.get("/system_stats", timeout=5)
                return
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    tail = self.log_tail()
                    self.stop()
                    raise ServerFailed(f"no answer in {self.start_within:.0f} s:\n{tail}") from None
            self._running()
            time.sleep(0.1)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed("the server is not started")
        if self._process.poll() is not None:
            raise ServerFailed(f"the server ended with {self._process.returncode}:\n{self.log_tail()}")
        return self._process

    def stop(self) -> None:
        """Stop the server and its child processes."""
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is None:
            return
        for how, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)  # with its child processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        if process.stdin:
            process.stdin.close()

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def __enter__(self) -> Server:
        return self if self._process else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log_text(self) -> str:
        """Return the log without colour codes."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def failed_packs(self) -> dict[str, str]:
        """Return the log of each linked pack that ComfyUI could not import; the server starts without them."""
        text, failed = self.log_text(), {}
        for name in self.packs:
            folder = str(self.base / "custom_nodes" / name)
            if f"(IMPORT FAILED): {folder}\n" in text:
                before, cannot, after = text.partition(f"Cannot import {folder} ")
                trace = before[before.rfind("Traceback") :] if cannot and "Traceback" in before else ""
                skipped = [line for line in text.splitlines() if folder in line and "skipping" in line]
                failed[name] = (
                    trace + cannot + after.partition("\n")[0] if cannot else "\n".join(skipped) or self.log_tail()
                )
        return failed

    # -- requests

    def get(self, path: str, timeout: float = 60) -> Any:
        """Request JSON."""
        with _http.open(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any, timeout: float = 60) -> Any:
        """Send JSON, and return the JSON of the answer if it has any."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with _http.open(request, timeout=timeout) as answer:
            content = answer.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else None

    def object_info(self) -> dict[str, Any]:
        """Return the descriptions of all nodes."""
        info: dict[str, Any] = self.get("/object_info")
        return info

    def settings(self, values: Mapping[str, Any]) -> None:
        """Change settings of the editor."""
        self.post("/api/settings", dict(values))

    def submit(self, prompt: Prompt, *, client_id: str | None = None, extra_data: Any = None) -> str:
        """Queue a prompt, and return its id."""
        body: dict[str, Any] = {"prompt": prompt}
        if client_id:
            body["client_id"] = client_id
        if extra_data:
            body["extra_data"] = extra_data
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            failed = [
                f"pack {name} was not imported: {why.splitlines()[-1]}" for name, why in self.failed_packs().items()
            ]
            raise PromptRejected(json.loads(error.read()), "\n".join(failed)) from None
        if answer.get("node_errors"):  # some outputs can run and others cannot: a test never wants that
            self.interrupt()
            raise PromptRejected(answer)
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 120) -> dict[str, Any]:
        """Wait for a prompt, and return its entry in the history; raises its error if it failed."""
        deadline = time.monotonic() + timeout
        while not (history := self.get(f"/history/{prompt_id}")):
            self._running()
            if time.monotonic() > deadline:
                raise TimeoutError(f"prompt {prompt_id} is not done after {timeout:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)
        entry: dict[str, Any] = history[prompt_id]
        for kind, data in entry["status"]["messages"]:
            if kind == "execution_error":
                raise PromptFailed(data)
            if kind == "execution_interrupted":
                raise PromptInterrupted(f"at node {data.get('node_id')} ({data.get('node_type')})")
        return entry

    def run(self, prompt: Prompt, *, timeout: float = 120, client_id: str | None = None) -> dict[str, Any]:
        """Run a prompt, and return the `ui` output of each node by its id."""
        outputs: dict[str, Any] = self.wait(self.submit(prompt, client_id=client_id), timeout)["outputs"]
        return outputs

    def files(self, outputs: Mapping[str, Any]) -> list[Path]:
        """List the files that the outputs of a run name."""
        lists = (value for shown in outputs.values() for value in shown.values() if isinstance(value, list))
        named = (one for values in lists for one in values if isinstance(one, dict) and "filename" in one)
        return [self.base / one.get("type", "output") / one.get("subfolder", "") / one["filename"] for one in named]

    def interrupt(self) -> None:
        """Interrupt the running prompt."""
        self.post("/interrupt", {})

    def settle(self, timeout: float = 60) -> None:
        """Clear the queue, interrupt the running prompt and wait until nothing runs."""
        self.post("/queue", {"clear": True})
        deadline = time.monotonic() + timeout
        while any(self.get("/queue").values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a prompt still runs {timeout:.0f} s after an interrupt:\n{self.log_tail()}")
            self.interrupt()  # again: an interrupt before the prompt begins is forgotten
            time.sleep(0.05)

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Ask the server to free memory; it does so after the running prompt, or within a second when idle."""
        self.post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def events(self, client_id: str | None = None) -> Events:
        """Collect the messages of the websocket."""
        return Events(self.url, client_id)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

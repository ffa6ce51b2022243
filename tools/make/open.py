"""`make comfyui`: run a real ComfyUI with the pack until Ctrl-C; the link opens the editor with the workflow."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import webbrowser
from pathlib import Path

from ..comfyui.checkout import Unavailable, primary
from ..comfyui.server import PACK, Server, ServerFailed
from .run import BASE

PORT = 8188  # ComfyUI's usual one


def link(server: Server, workflow: Path) -> str:
    """Return the editor's address with the name of a template of the pack, which the editor then opens."""
    return f"{server.url}/?template={workflow.stem}&source={PACK}"


def usual_port() -> int | None:
    """Return ComfyUI's usual port, or None if it is in use."""
    with socket.socket() as probe:
        return None if probe.connect_ex(("127.0.0.1", PORT)) == 0 else PORT


def has_display() -> bool:
    """Return whether a browser can open a window."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workflow", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # stops the server, too
    try:
        with Server(primary(), BASE, port=usual_port()) as server:
            for failed in server.failed_packs().values():
                print(f"ComfyUI could not import the pack:\n{failed}", file=sys.stderr)
            server.settings({"Comfy.TutorialCompleted": True})  # no introduction in front of the workflow
            print(f"ComfyUI {server.checkout.version} with {PACK}: {link(server, args.workflow)}")
            print(f"models, input and output: {server.base}; log: {server.log}; Ctrl-C stops", flush=True)
            if has_display():
                webbrowser.open(link(server, args.workflow))
            while server.pid:
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nstopped")
    except (Unavailable, ServerFailed) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

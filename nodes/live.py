"""What the pack's own view on a node is told: frames while they are made, the video once it is there.

ComfyUI's previews cannot be used for it: its editor shows a node's live pictures and its finished video in one place,
and once there was a video it takes every live picture for one.
"""

from __future__ import annotations

import base64
import io as bytes_io
import time
from pathlib import Path
from typing import Any

from server import PromptServer
from torch import Tensor

from . import host

EVENT = "self_forcing.frames"
IMAGES_A_SECOND = 30  # of wall time, at most; a model that is faster than that leaves some out
LONGEST_EDGE = 512  # pixels
JPEG_QUALITY = 80


class LiveView:
    """Sends a run's frames to the client that queued it."""

    def __init__(self, node_id: str, fps: float) -> None:
        self._node_id, self._fps = node_id, fps
        self._sent, self._started = 0, time.perf_counter()

    def show(self, frames: Tensor, first: int) -> None:
        """``frames`` [T, H, W, 3] in 0..1, the first of which is number ``first`` of the run's video."""
        server = PromptServer.instance
        if server.client_id not in server.sockets:  # nobody is looking
            return
        numbers = self._affordable(len(frames))
        self._sent += len(numbers)
        pictures = [_jpeg(frames[number]) for number in numbers]
        seconds = len(frames) / self._fps
        message = {"node_id": self._node_id, "first": first, "seconds": seconds, "frames": pictures}
        server.send_sync(EVENT, message, server.client_id)

    def _affordable(self, count: int) -> list[int]:
        """Which of ``count`` new frames to send: evenly spread, the last among them, the first chunk whole."""
        room = int(IMAGES_A_SECOND * (time.perf_counter() - self._started)) - self._sent if self._sent else count
        sent = min(count, max(1, room))
        return [count - 1 - k * count // sent for k in reversed(range(sent))]

    def end(self, path: Path) -> None:
        """The video of a node that will not get to return it."""
        server = PromptServer.instance
        message = {"node": self._node_id, "display_node": self._node_id, "output": video_on_node(path)}
        server.send_sync("executed", {**message, "prompt_id": server.last_prompt_id}, server.client_id)


def _jpeg(frame: Tensor) -> str:
    picture = host.picture(frame)
    picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
    buffer = bytes_io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def video_on_node(path: Path) -> dict[str, Any]:
    """A node's ``ui``: the pack's view on it shows the video, which lies in the temporary folder."""
    return {"sf_video": [host.temp_file_facts(path)]}

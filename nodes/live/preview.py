"""ComfyUI's own preview of a run, for a client that queued it and shows no frames of it, or wants it all the same.

Such are programs that do not know the pack, the editor where no player is on the screen, as outside of a subgraph, and
App mode, whose large area shows previews also if the player is a part of the app.
"""

from __future__ import annotations

from typing import Any

from comfy_api import feature_flags
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import BinaryEventTypes, PromptServer
from torch import Tensor

from ...sf_core.files.pixels import to_bytes
from ..adapters.rate_limit import RateLimit
from . import clients

A_SECOND = 2.0  # previews, at most
LONGEST_EDGE = 384  # pixels
# in place of a node outside of subgraphs, for a page with players: App mode needs only the prompt's id, and the node
# would have the preview below its player as soon as that is on the screen again
NO_NODE = "0"


class Preview:
    """Sends the newest frame now and then."""

    def __init__(self, node_id: str, prompt_id: str, client: str) -> None:
        """Begin; to be called in the graph's thread.

        Args:
            node_id: The node's execution id.
            prompt_id: ComfyUI's id of the prompt.
            client: The client that queued it; "" if it named none, which gets no previews.
        """
        self.client, self._node_id = client, node_id
        self._limit = RateLimit(burst=1, per_second=A_SECOND)
        graph = get_progress_state().dynprompt
        self._names: dict[str, Any] = {
            "node_id": node_id,
            "prompt_id": prompt_id,
            "display_node_id": graph.get_display_node_id(node_id),
            "parent_node_id": graph.get_parent_node_id(node_id),
            "real_node_id": graph.get_real_node_id(node_id),
        }

    def offer(self, frames: Tensor) -> None:
        """Send the last of ``frames`` [T, H, W, 3] if the client is there, and if it is time. From any thread."""
        server, names = PromptServer.instance, dict(self._names)
        if self.client not in server.sockets or self._limit.available < 1:
            return
        self._limit.take(1)
        picture = Image.fromarray(to_bytes(frames[-1:]).numpy()[0])
        picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
        if clients.is_attached(self.client) and ":" not in self._node_id:
            names["display_node_id"] = NO_NODE
        image = ("JPEG", picture, None)  # None: ComfyUI would enlarge it to this size
        if feature_flags.supports_feature(server.sockets_metadata, self.client, "supports_preview_metadata"):
            server.send_sync(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (image, names), self.client)
        else:
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, image, self.client)

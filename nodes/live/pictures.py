"""Pictures of a run's frames on their way to its viewers."""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..adapters import host
from ..adapters.images import jpegs_of
from ..adapters.rate_limit import RateLimit
from . import clients
from .frame_store import FrameStore
from .preview import Preview

IMAGES_A_SECOND = 30  # of wall time, at most; of a faster model some frames are left out
PART = IMAGES_A_SECOND // 2  # frames in a message, at most
PICTURE_BYTES = 180_000  # in a message, at most; base64 makes a third more of them
BYTES_A_SECOND = 500_000  # of a run's pictures, about
SIZES = ((512, 80), (512, 60), (384, 60), (256, 50))  # longest edge in pixels, and JPEG's quality; the best first
FOR_LAGGING = (192, 50)
WAITING = 2  # queued chunks, at most; the pictures of further ones are left out

Watchers = Callable[[], list[str]]


class Pictures:
    """A thread that compresses frames and sends them in order, leaving out frames that come too fast."""

    def __init__(
        self, names: dict[str, str], fps: float, store: FrameStore, watchers: Watchers, preview: Preview
    ) -> None:
        """Begin.

        Args:
            names: ``node_id`` and ``run``.
            fps: Frames a second of the video.
            store: Keeps the pictures.
            watchers: Returns the client ids of the run's viewers.
            preview: For the client that queued the run, while it shows no frames or wants previews too.
        """
        self._names, self._store, self._watchers, self._preview = names, store, watchers, preview
        self._fps = min(fps, IMAGES_A_SECOND)
        self._size = 0  # index in SIZES
        self._ending = threading.Event()
        self._budget = RateLimit(burst=IMAGES_A_SECOND, per_second=IMAGES_A_SECOND)
        self._todo: queue.Queue[tuple[int, int, Tensor | None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="self-forcing-pictures", daemon=True)
        self._thread.start()

    def show(self, chunk: int, first: int, frames: Tensor) -> None:
        """Send the frames [T, H, W, 3] of a chunk, of which ``first`` is the number of the first one."""
        if not self._watchers():
            return
        try:
            self._todo.put_nowait((chunk, first, frames))
        except queue.Full:
            self._send(chunk, first, len(frames), {}, {})

    def withdraw(self, chunk: int, first: int) -> None:
        """Withdraw the frames from ``first`` on."""
        self._todo.put((chunk, first, None))

    def end(self) -> None:
        """Wait until everything is sent."""
        self._ending.set()
        self._todo.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (todo := self._todo.get()) is not None:
            chunk, first, frames = todo
            try:
                if frames is None:
                    self._store.forget_from(first)
                    message = {**self._names, "chunk": chunk, "first": first}
                    clients.send("self_forcing.withdrawn", self._watchers(), message)
                    continue
                for part in frames.split(PART):
                    self._show(chunk, first, part)
                    first += len(part)
            except Exception as error:  # the video is more important than the view on it; without this thread it hangs
                host.log.warning("cannot show a chunk: %s", error)

    def _show(self, chunk: int, first: int, frames: Tensor) -> None:
        chosen = self._affordable(len(frames))
        numbers, shown = [first + number for number in chosen], frames[chosen]
        pictures = dict(zip(numbers, jpegs_of(shown, *SIZES[self._size]), strict=True))
        for number, picture in pictures.items():
            self._store.add(number, picture)
        self._choose_size(sum(map(len, pictures.values())) / len(pictures))
        showing = self._showing()
        if clients.takes_previews(self._preview.client, showing):
            self._preview.offer(frames)
        lagging = clients.any_lags(showing)
        small = dict(zip(numbers, jpegs_of(shown, *FOR_LAGGING), strict=True)) if lagging else {}
        self._send(chunk, first, len(frames), pictures, small)

    def _choose_size(self, nbytes: float) -> None:
        """Choose the size of the next pictures; the last ones had ``nbytes`` each."""
        rate = nbytes * self._fps
        if rate > BYTES_A_SECOND:
            self._size = min(self._size + 1, len(SIZES) - 1)
        elif rate < BYTES_A_SECOND / 3:
            self._size = max(self._size - 1, 0)

    def _affordable(self, count: int) -> list[int]:
        """Choose the frames to send: all, after a short wait, if nothing is queued; else evenly spread ones."""
        while (missing := count - self._budget.available) > 0 and self._todo.empty():
            if self._ending.wait(min(missing / IMAGES_A_SECOND, 0.05)):
                break
        sent = min(count, max(1, int(self._budget.available)))
        self._budget.take(sent)
        return [count - 1 - k * count // sent for k in reversed(range(sent))]

    def _showing(self) -> list[str]:
        return clients.showing(self._watchers(), self._names["run"])

    def _send(self, chunk: int, first: int, count: int, pictures: dict[int, bytes], small: dict[int, bytes]) -> None:
        """Send ``count`` frames, in several messages if one would be too long."""
        if sum(map(len, pictures.values())) > PICTURE_BYTES:
            if count > 1:
                half = count // 2
                for begin, number in ((first, half), (first + half, count - half)):
                    inside = range(begin, begin + number)
                    parts = [{n: one for n, one in all_.items() if n in inside} for all_ in (pictures, small)]
                    self._send(chunk, begin, number, *parts)
                return
            pictures = {}  # noise; the next ones are smaller
        facts = {**self._names, "chunk": chunk, "first": first, "count": count}
        versions = [{**facts, **_in_json(one)} for one in (pictures, small, {})]
        clients.send("self_forcing.frames", self._showing(), *versions)


def _in_json(pictures: dict[int, bytes]) -> dict[str, Any]:
    # base64 in JSON: the editor reports an error for each binary message of a type that it does not know
    return {"numbers": list(pictures), "frames": [base64.b64encode(one).decode() for one in pictures.values()]}

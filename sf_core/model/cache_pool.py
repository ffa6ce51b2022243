"""The pool of live caches that a model owns."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..cuda_streams import free_pinned_memory
from .cache_shape import CacheShape
from .kv_cache import RollingKVCache
from .quantised_cache import new_cache


class LiveCache:
    """A cache in the pool, and its contents.

    Attributes:
        key: Digest of the history whose passes are in the cache. None: nothing of use.
        tip: Lineage of the newest chunk that was sampled from it.
        front: Lineage of the block whose keys and values are in the front, as they are to be kept. None: of no block.
        busy: Whether it is leased.
    """

    def __init__(self, cache: RollingKVCache) -> None:
        self.cache = cache
        self.key: bytes | None = None
        self.tip: bytes | None = None
        self.front: bytes | None = None
        self.busy = False


class CachePool:
    """The live caches of one model. The least recently used one is dropped first.

    ``budget_bytes`` None: one cache. Else as many as fit, so that each branch of a forked session keeps its own.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self._caches: list[LiveCache] = []  # least recently used first
        self._changed = threading.Condition()

    @property
    def nbytes(self) -> int:
        """Bytes of all live caches."""
        return sum(live.cache.nbytes for live in self._caches)

    def release(self) -> None:
        """Drop every cache that is not leased."""
        with self._changed:
            self._keep([live for live in self._caches if live.busy])

    def make_way(self, shape: CacheShape) -> None:
        """Drop the caches that a lease of ``shape`` would drop, so that their memory is free when it is planned."""
        with self._changed:
            if self.budget_bytes is None:
                self._keep([live for live in self._caches if live.busy or live.cache.shape == shape])

    def _keep(self, caches: list[LiveCache]) -> None:
        """Drop all caches but these."""
        pinned = sum(live.cache.host_nbytes for live in self._caches)
        self._caches = caches
        if pinned > sum(live.cache.host_nbytes for live in caches):
            free_pinned_memory()

    @contextmanager
    def lease(self, shape: CacheShape, keys: Sequence[bytes], ancestors: set[bytes]) -> Iterator[tuple[LiveCache, str]]:
        """Lease a cache for one chunk. Waits while none is free.

        Args:
            shape: Shape of the cache.
            keys: Digests of histories that would serve, the best first.
            ancestors: Lineages of the chunks that the session descends from. A cache with another tip belongs to
                another branch, and is copied where the budget allows.

        Yields:
            The cache, and how it was obtained: ``same``, ``copy`` or ``empty``.
        """
        with self._changed:
            found = self._find(shape, keys, ancestors)
            while found is None:
                self._changed.wait()
                found = self._find(shape, keys, ancestors)
            live, how = found
            live.busy = True
            self._caches.remove(live)
            self._caches.append(live)
        try:
            yield live, how
        finally:
            with self._changed:
                live.busy = False
                self._changed.notify_all()

    def _find(self, shape: CacheShape, keys: Sequence[bytes], ancestors: set[bytes]) -> tuple[LiveCache, str] | None:
        alike = [live for live in self._caches if not live.busy and live.cache.shape == shape]
        fitting = [live for live in alike if live.key in keys]
        if fitting:
            best = min(fitting, key=lambda live: keys.index(live.key or b""))
            if best.tip is None or best.tip in ancestors or not self._has_room(best.cache.nbytes):
                return best, "same"
            branch = self._add(shape)
            branch.cache.copy_from(best.cache)
            branch.key = best.key
            return branch, "copy"
        if self._has_room(shape.nbytes()):
            return self._add(shape), "empty"
        if alike:
            alike[0].key = alike[0].tip = alike[0].front = None
            return alike[0], "empty"
        while self._drop_oldest():
            if self._has_room(shape.nbytes()):
                return self._add(shape), "empty"
        if not self._caches and self.budget_bytes is not None:
            raise ValueError(
                f"the cache needs {shape.nbytes() / 2**30:.2f} GiB and the budget is "
                f"{self.budget_bytes / 2**30:.2f} GiB; take a smaller window or picture, or raise the budget"
            )
        return None

    def _drop_oldest(self) -> bool:
        """Drop the least recently used idle cache, so that no name refers to it while the next is allocated."""
        place = next((place for place, live in enumerate(self._caches) if not live.busy), None)
        if place is None:
            return False
        self._keep([*self._caches[:place], *self._caches[place + 1 :]])
        return True

    def _has_room(self, nbytes: int) -> bool:
        if self.budget_bytes is None:
            return not self._caches
        return sum(live.cache.nbytes for live in self._caches) + nbytes <= self.budget_bytes

    def _add(self, shape: CacheShape) -> LiveCache:
        live = LiveCache(new_cache(shape))
        self._caches.append(live)
        return live

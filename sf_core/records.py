"""The records that a session's past is made of: prompts, events, blocks of latents."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .archive import Archive, Archived, StoredLatents
from .kv_cache import Place
from .noise import NoiseSource


def digest(*parts: bytes) -> bytes:
    """16 bytes that stand for ``parts``."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def tensor_digest(tensor: Tensor) -> bytes:
    """Of shape and values; waits for the device."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return digest(repr(tuple(values.shape)).encode(), values.numpy().tobytes())


class Prompt:
    """Text embeddings [B or 1, rows, text_dim], float32 on the CPU, without the zero rows that fill them up.

    words: what was encoded, as far as anybody said; it is for people, and counts for nothing.
    """

    def __init__(self, text: Tensor, words: str = "") -> None:
        self.words = words
        text = text.detach().to("cpu", torch.float32)
        used = text.ne(0).any(dim=2).any(dim=0).nonzero()
        self.text = text[:, : int(used[-1]) + 1 if len(used) else 0].clone()
        self.digest = tensor_digest(self.text)


@dataclass(frozen=True)
class Event:
    """What happens to the cache right before a chunk."""

    cut: bool = False  # it is emptied: a new scene
    recache: bool = False  # the ring is written again under the chunk's prompt
    recache_sink: bool = False  # and the sink before it

    @property
    def code(self) -> int:
        return 1 * self.cut + 2 * self.recache + 4 * self.recache_sink

    @staticmethod
    def from_code(code: int) -> Event:
        return Event(bool(code & 1), bool(code & 2), bool(code & 4))


NOTHING = Event()


@dataclass(frozen=True)
class Recache:
    """A recache event as it was carried out: blocks from ``first`` to before ``end`` were passed again."""

    first: int  # frame
    end: int  # frame
    prompt: Prompt
    ring_origin: int


@dataclass(frozen=True)
class Era:
    """A stretch without cuts and recaches: what the places of its blocks have in common."""

    start: int = 0  # frame
    scene: int = 0
    ring_origin: int = 0
    recache: Recache | None = None  # that began it
    sink: Recache | None = None  # that last rewrote the sink; blocks after it wrote their part themselves


@dataclass(eq=False, repr=False)
class Block:
    """Some latents that were given or sampled together, and all that made them.

    Immutable but for where its past lies: in memory, or in the archive.
    """

    past: Block | Archived | None
    place: Place
    era: Era
    prompt: Prompt
    timestep: float  # of the pass that writes its keys and values
    event: Event
    chunk: int | None  # index among the sampled chunks; None: given context
    noise: NoiseSource
    latents: StoredLatents
    root: bytes  # digest of what the whole session shares
    known_lineage: bytes | None = None

    @property
    def parent(self) -> Block | None:
        """The block before this one."""
        if isinstance(self.past, Archived):
            return _from_archive(self.past)
        return self.past

    @property
    def lineage(self) -> bytes:
        """Digest of this block and its whole past: latents, prompts, timesteps, events."""
        if self.known_lineage is None:
            past = self.parent.lineage if self.parent else self.root
            facts = struct.pack("<dqq", self.timestep, self.place.frames, self.event.code)
            self.known_lineage = digest(past, tensor_digest(self.latents.get()), self.prompt.digest, facts)
        return self.known_lineage

    def back(self) -> Iterator[Block]:
        """This block and those before it, newest first."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent

    def archive_past(self, archive: Archive) -> bool:
        """Move the block before this one, whose own past has been moved, out of memory; whether it was there."""
        if not isinstance(self.past, Block):
            return False
        self.past = _to_archive(self.past, archive)
        return True


# A block's record, before its latents: where its past lies (-1: none), first frame, chunk (-1: context), timestep,
# frames, event, and the numbers of prompt, noise, era and root among the archive's shared objects; its lineage.
_RECORD = struct.Struct("<qqqdiiiiii16s")
RECORD_BYTES = _RECORD.size


def _to_archive(block: Block, archive: Archive) -> Archived:
    past = block.past.offset if isinstance(block.past, Archived) else -1
    shared = (archive.number(item) for item in (block.prompt, block.noise, block.era, block.root))
    chunk = -1 if block.chunk is None else block.chunk
    facts = (past, block.place.start, chunk, block.timestep, block.place.frames, block.event.code)
    return archive.put(_RECORD.pack(*facts, *shared, block.lineage), block.latents)


def _from_archive(archived: Archived) -> Block:
    archive = archived.archive
    record, latents = archive.get(archived, _RECORD.size)
    past, start, chunk, timestep, frames, code, *numbers, lineage = _RECORD.unpack(record)
    prompt, noise, era, root = (archive.shared(number) for number in numbers)
    place = Place(start, frames, era.scene, era.ring_origin)
    before = None if past < 0 else Archived(archive, past)
    index = None if chunk < 0 else chunk
    stored = latents(frames)
    return Block(before, place, era, prompt, timestep, Event.from_code(code), index, noise, stored, root, lineage)

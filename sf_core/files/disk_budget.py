"""The budget of temporary files that may be deleted, by the free space of their disk.

Each kind of file may take a quarter of the space that would be free without it, and never more than a limit of its own.
In the nodes the kinds are stored chunks, sessions of interrupted runs, pictures of runs, and finished videos.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from .disk import free_bytes

log = logging.getLogger("self_forcing")
SHARE = 4


def allowance(folder: Path, used: int, limit: int) -> int:
    """Return the bytes that one kind of file may take.

    Args:
        folder: Where it is.
        used: Bytes that it takes already.
        limit: The most that it may take on any disk.
    """
    return min(limit, (free_bytes(folder) + used) // SHARE)


def delete(file: Path) -> None:
    """Delete a file that nobody needs. If another program has it open, it is deleted another time."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.debug("cannot delete a temporary file now: %s", error)


def trim(
    files: Iterable[Path], limit: int, most: int, always: int = 1, remove: Callable[[Path], None] = delete
) -> None:
    """Delete the least recently used files of one kind until the others keep to the budget.

    Args:
        files: All files of the kind.
        limit: See `allowance`.
        most: Number of files to keep at most.
        always: Number of the newest files that stay, whatever they take.
        remove: Deletes a file.
    """
    facts = []
    for file in files:
        try:
            on_disk = file.stat()
        except OSError:  # deleted meanwhile
            continue
        facts.append((on_disk.st_mtime, on_disk.st_size, file))
    facts.sort(reverse=True)
    if not facts:
        return
    allowed = allowance(facts[0][2].parent, sum(size for _, size, _ in facts), limit)
    used = 0
    for number, (_, size, file) in enumerate(facts):
        used += size
        if number >= most or (number >= always and used > allowed):
            remove(file)

"""Latents of the past take no memory of a GPU."""

from __future__ import annotations

import errno
import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sf_core.session.archive import Archive, StoredLatents


class OnGPU:
    """As much of a tensor on a GPU as storing reads."""

    device, shape = torch.device("cuda"), (1, 4, 3, 2, 2)

    def __init__(self) -> None:
        self.copy = torch.randn(self.shape)

    def cpu(self) -> Tensor:
        return self.copy


def test_latents_of_the_past_are_on_the_cpu_alone() -> None:
    latents = OnGPU()
    copy, reference = latents.copy, weakref.ref(latents)
    stored = StoredLatents(latents)  # type: ignore[arg-type]
    del latents
    assert reference() is None
    assert stored.on_cpu() is copy


def test_after_a_full_disk_what_was_archived_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tempfile.TemporaryFile
    room = [6000]  # bytes, less than two latents

    def small_disk(**how: Any) -> Any:
        file = made(**how)
        raw = getattr(file, "raw", file)
        assert raw is file, "a buffer would keep what the disk did not take"

        class Small:
            def __getattr__(self, name: str) -> Any:
                return getattr(raw, name)

            def write(self, data: memoryview) -> int:
                if not room[0]:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = data[: min(room[0], 1000)]  # a disk may take a part
                room[0] -= len(part)
                return int(raw.write(part))

        return Small()

    monkeypatch.setattr(tempfile, "TemporaryFile", small_disk)
    archive, made_before, later = Archive(tmp_path), torch.randn(1, 16, 1, 8, 8), torch.randn(1, 16, 1, 8, 8)
    kept, refused = StoredLatents(made_before), StoredLatents(later)
    kept.move_to(archive)
    with pytest.raises(OSError, match="The session is intact"):
        refused.move_to(archive)
    assert torch.equal(kept.get(), made_before)
    assert torch.equal(refused.get(), later)
    room[0] = 10_000
    refused.move_to(archive)
    assert torch.equal(kept.get(), made_before)
    assert torch.equal(refused.get(), later)

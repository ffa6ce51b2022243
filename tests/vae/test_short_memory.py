"""A VAE that runs out of memory goes on with fewer frames at once, and makes the same frames and latents."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from sf_core.vae import layers
from sf_core.vae.loading import load_vae
from sf_core.vae.taehv import load_taehv
from sf_core.vae.video_vae import VideoVAE
from sf_core.vae.wan22_vae import Wan22VAEConfig
from tests.vae.networks import frames_for, latents_for, random_vae_weights, stream, taehv_state, wan_vae_state


class Card(TorchDispatchMode):
    """A device with so much memory for what is made in the block: more raises what torch does."""

    def __init__(self, limit: float = float("inf")) -> None:
        super().__init__()
        self.limit, self.used, self.most = limit, 0, 0
        self._users: Counter[int] = Counter()  # tensors by their memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        memory, nbytes = storage._cdata, storage.nbytes()
        self._users[memory] += 1
        weakref.finalize(tensor, self._forget, memory, nbytes)
        if self._users[memory] > 1:
            return
        self.used += nbytes
        self.most = max(self.most, self.used)
        if self.used > self.limit:
            raise torch.OutOfMemoryError("simulated")

    def _forget(self, memory: int, nbytes: int) -> None:
        self._users[memory] -= 1
        self.used -= 0 if self._users[memory] else nbytes


def vaes() -> list[Any]:
    return [
        pytest.param(load_vae(wan_vae_state(dim=8, mult=(1, 2, 4), temporal=(True, True))), id="wan"),
        pytest.param(load_vae(random_vae_weights(Wan22VAEConfig(4, 6, (1, 2, 2), 1, (False, True), 8))), id="wan 2.2"),
        pytest.param(load_taehv(taehv_state()), id="taehv"),
    ]


@pytest.mark.parametrize("vae", vaes())
def test_decoding_sparingly_makes_the_same_bits(vae: VideoVAE) -> None:
    latents = latents_for(vae, 7, (4, 4))
    decoder, whole = vae.stream_decoder(), vae.decode(latents)
    decoder.sparing = True
    decoder.reset()
    assert torch.equal(stream(decoder, latents, [1, 3, 3]), whole)
    jumped = decoder(latents[:, :, 5:], at=5, history=latents[:, :, :5])
    assert torch.equal(jumped, whole[:, -jumped.shape[1] :])


@pytest.fixture
def ram(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAM that is no part of the simulated card."""

    def copied(tensor: Tensor) -> Tensor:
        with _disable_current_modes():
            return tensor.clone()

    monkeypatch.setattr(layers, "in_ram", copied)


@pytest.mark.parametrize("vae", vaes())
@pytest.mark.usefixtures("ram")
def test_a_decoder_that_runs_out_of_memory_goes_on_sparingly(vae: VideoVAE, caplog: pytest.LogCaptureFixture) -> None:
    """With the same frames, from the chunk on that ran out; nothing was lost, and the log says so once."""
    latents = latents_for(vae, 9, (8, 8))
    whole, most = vae.decode(latents), list[int]()
    for sparing in (False, True):
        with Card() as card:
            decoder = vae.stream_decoder()
            decoder.sparing = sparing
            decoder.reset()
            for at in (0, 3, 6):
                decoder(latents[:, :, at : at + 3], at=at)
        most.append(card.most)
    assert most[1] < 0.7 * most[0]

    with Card() as card:
        decoder = vae.stream_decoder()
        frames = [decoder(latents[:, :, :3], at=0)]
        card.limit = 0.9 * most[0]
        frames += [decoder(latents[:, :, at : at + 3], at=at) for at in (3, 6)]
        assert decoder.cache_bytes == 0
        assert len(caplog.records) == 1
        assert "decoding one by one" in caplog.text
        card.limit = card.used
        place = decoder.at
        with pytest.raises(torch.OutOfMemoryError):
            decoder(latents[:, :, :3], at=0)
    assert decoder.at == place
    assert torch.equal(torch.cat(frames, dim=1), whole)


@pytest.mark.parametrize("frames", [1, 5, 13])
@pytest.mark.parametrize("vae", vaes())
def test_encoding_sparingly_makes_the_same_bits(vae: VideoVAE, frames: int) -> None:
    clip = frames_for(vae, frames, (4, 4))
    assert torch.equal(vae.encode_with(clip, vae.state_type(sparing=True)), vae.encode(clip))


@pytest.mark.parametrize("vae", vaes())
@pytest.mark.usefixtures("ram")
def test_an_encoding_that_runs_out_of_memory_is_made_again_sparingly(
    vae: VideoVAE, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same latents; the log says so once. What is still too much is raised."""
    clip = frames_for(vae, 9, (8, 8))
    whole, most = vae.encode(clip), list[int]()
    for sparing in (False, True):
        with Card() as card:
            vae.encode_with(clip, vae.state_type(sparing=sparing))
        most.append(card.most)
    assert most[1] < 0.7 * most[0]

    with Card(0.9 * most[0]):
        latents = vae.encode(clip)
    assert torch.equal(latents, whole)
    assert len(caplog.records) == 1
    assert "encoding one by one" in caplog.text
    with Card(0.5 * most[1]), pytest.raises(torch.OutOfMemoryError):
        vae.encode(clip)

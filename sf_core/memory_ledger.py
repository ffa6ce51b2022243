"""The memory ledger: what a run takes on its device, part by part.

Reservations and refusals come from here, and `memory_advice` says these numbers in words. Weights and cache are counted
exactly, in the dtypes that they have on the device. Activations are figures that were measured, see
`benchmarks/realtime.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .byte_units import GIB
from .config import RolloutConfig
from .model.cache_shape import CacheShape
from .model.causal_model import CausalModel
from .vae.video_vae import PIXELS_AT_ONCE, VideoVAE
from .vae.wan22_vae import Wan22VAE, Wan22VAEConfig
from .vae.wan_vae import WAN_MEAN, WanVAE, WanVAEConfig

SPARE = GIB  # of a GPU, for CUDA itself and the desktop
SPARE_RAM = 4 * GIB  # of the RAM beside a GPU, for the system and the programs

# Values of the computation's dtype, measured as the growth of memory, without weights. GPU: on an NVIDIA H200 at
# 832 x 480. CPU: resident memory.
SAMPLING_VALUES = 15.3  # for each token and channel of a pass: 0.20 GiB for a chunk
WAN_VALUES = {"cpu": 110.0, "gpu": 67.8}  # for each pixel of a frame and channel of the last layer: 4.8 GiB on a GPU
WAN_KEPT = 25.0  # of these, held between calls
# for each pixel of a frame and channel of the decoder's last level: counted operation by operation as for Wan 2.1's,
# and scaled by what that one took when it was measured
WAN22_VALUES, WAN22_KEPT = {"cpu": 34.0, "gpu": 21.0}, 7.0
TAEHV_VALUES, TAEHV_KEPT = 1000.0, 84.0  # for each pixel of a frame: at most, for the published widths
TAEHV_WEIGHTS = 24 * 2**20
# floating-point operations for each pixel of a frame, counted by torch over the published sizes
WAN_WORK, WAN22_WORK, TAEHV_WORK = 8.48e6, 18.4e6, 0.33e6
WAN_WIDTH, WAN22_WIDTH = 96, 256  # of the last level there
WAN_VAE, SMALL = "Wan VAE", "TAEHV"


@dataclass(frozen=True)
class DeviceMemory:
    """The memory that a run may use.

    Attributes:
        kind: torch's type of the device.
        total: Its memory in bytes; 0: the host cannot tell, and everything is taken to fit.
        offloads: Whether the host can leave a part of the weights in RAM.
        weight_share: Share of the memory that the host fills with weights, even where other things need it.
        spare: Bytes that other programs take.
        ram: Bytes of RAM beside the device's memory; 0: not known, and everything is taken to fit there.
    """

    kind: str
    total: int
    offloads: bool = False
    weight_share: float = 0.0
    spare: int = 0
    ram: int = 0

    @property
    def name(self) -> str:
        """``GPU``, or ``RAM`` where the device has no memory of its own."""
        return "RAM" if self.kind in ("cpu", "mps") else "GPU"

    @property
    def room(self) -> int:
        """Bytes that a run may take."""
        return max(0, self.total - self.spare)

    @staticmethod
    def card(gib: float, offloads: bool = True, ram: int = 0) -> DeviceMemory:
        """An NVIDIA GPU with ``gib`` GiB, under a host that offloads weights, beside so many bytes of RAM."""
        return DeviceMemory("cuda", round(gib * GIB), offloads, spare=SPARE, ram=ram)


@dataclass(frozen=True)
class DecoderCost:
    """The memory that a decoder takes.

    Attributes:
        name: ``Wan VAE`` or ``TAEHV``.
        weights: Bytes of its weights.
        spatial_factor: Pixels along an edge for each one of a latent.
        temporal_factor: Frames of a latent.
        peak: Bytes for each pixel of a frame while it decodes, state included.
        kept: Bytes for each pixel of a frame between calls: its state.
        operations: Floating-point operations for each pixel of a frame.
        replaceable: Whether a TAEHV decodes the same latents.
    """

    name: str
    weights: int
    spatial_factor: int
    temporal_factor: int
    peak: float
    kept: float
    operations: float = 0.0
    replaceable: bool = False

    @staticmethod
    def published(channels: int, dtype: torch.dtype, kind: str = "cuda") -> DecoderCost:
        """The cost of Wan's own VAE for latents of ``channels`` channels, on a device of torch's type ``kind``."""
        with torch.device("meta"):
            newer = channels == Wan22VAEConfig().z_dim
            vae = Wan22VAE(Wan22VAEConfig()) if newer else WanVAE(WanVAEConfig())
            return DecoderCost.of(vae.to(dtype), kind)

    @staticmethod
    def of(vae: VideoVAE, kind: str = "") -> DecoderCost:
        """The cost of ``vae`` on the device of its weights, or on one of torch's type ``kind``."""
        weight = next(vae.parameters())
        factors = (vae.spatial_factor, vae.temporal_factor)
        nbytes = sum(parameter.nbytes for parameter in vae.parameters())
        if isinstance(vae, WanVAE):
            newer = isinstance(vae, Wan22VAE)
            unit = vae.config.decoder_width * weight.element_size()
            values, kept = (WAN22_VALUES, WAN22_KEPT) if newer else (WAN_VALUES, WAN_KEPT)
            peak = values["cpu" if (kind or weight.device.type) == "cpu" else "gpu"]
            published = not newer and _has_latents_of_wan21(vae)
            work, width = (WAN22_WORK, WAN22_WIDTH) if newer else (WAN_WORK, WAN_WIDTH)
            work *= (vae.config.decoder_width / width) ** 2
            return DecoderCost(WAN_VAE, nbytes, *factors, peak * unit, kept * unit, work, published)
        unit = weight.element_size()
        return DecoderCost(SMALL, nbytes, *factors, TAEHV_VALUES * unit, TAEHV_KEPT * unit, TAEHV_WORK)

    def small(self) -> DecoderCost:
        """The cost of a published TAEHV in half precision, in its place."""
        return DecoderCost(
            SMALL,
            TAEHV_WEIGHTS,
            self.spatial_factor,
            self.temporal_factor,
            TAEHV_VALUES * 2,
            TAEHV_KEPT * 2,
            TAEHV_WORK,
        )

    def decoding(self, setup: Setup) -> int:
        """Bytes while a chunk is decoded, without weights."""
        pixels = self._pixels(setup)
        # several latents of a small picture are decoded together
        together = min(pixels * setup.config.front_frames, PIXELS_AT_ONCE // self.temporal_factor)
        return round(max(pixels, together) * self.peak) * setup.batch

    def state(self, setup: Setup) -> int:
        """Bytes between chunks, without weights."""
        return round(self._pixels(setup) * self.kept) * setup.batch

    def work(self, setup: Setup) -> float:
        """Floating-point operations of a frame."""
        return self._pixels(setup) * self.operations * setup.batch

    def _pixels(self, setup: Setup) -> int:
        rows, columns = setup.latent_size
        return rows * columns * self.spatial_factor**2


def _has_latents_of_wan21(vae: WanVAE) -> bool:
    """Whether a VAE decodes the latents that a published TAEHV decodes too; one without values is taken for such."""
    if vae.channels != len(WAN_MEAN) or vae.mean.is_meta:
        return vae.channels == len(WAN_MEAN)
    return torch.allclose(vae.mean.float().cpu(), torch.tensor(WAN_MEAN), rtol=0, atol=0.02)


@dataclass(frozen=True)
class Setup:
    """The settings that decide how much memory a run takes.

    Attributes:
        config: Rollout settings.
        latent_size: Height and width of the latents.
        batch: Number of videos that are made together.
        frames: Latent frames of the video that the cache is planned for; they matter to an unbounded window only.
        decoder: The decoder, if the run decodes.
        joint_frames: Latent frames of the largest joint recache, before the window limits them; 0: there is none.
    """

    config: RolloutConfig
    latent_size: tuple[int, int]
    batch: int = 1
    frames: int = 0
    decoder: DecoderCost | None = None
    joint_frames: int = 0

    @property
    def recached_frames(self) -> int:
        """Latent frames that a joint recache passes together; 0: there is none."""
        if self.config.context == "recompute":  # passes its context chunk by chunk, whatever is asked for
            return 0
        window = self.config.window_frames
        return self.joint_frames if window is None else min(self.joint_frames, window)


@dataclass(frozen=True)
class Parts:
    """Bytes of the parts of a run.

    Attributes:
        weights: The transformer's weights.
        cache: The KV cache, on the device.
        host_cache: The KV cache in RAM, beside the device's memory (`RolloutConfig.kv_offload`).
        sampling: Activations while a chunk is sampled.
        recache: Activations and buffers of a joint recache before it; 0: there is none.
        vae: The decoder's weights.
        decoding: Activations and state while a chunk is decoded.
        state: The decoder's state between chunks.
        at_once: Whether a chunk is sampled while another is decoded.
    """

    weights: int
    cache: int
    sampling: int
    recache: int = 0
    vae: int = 0
    decoding: int = 0
    state: int = 0
    at_once: bool = False
    host_cache: int = 0

    @property
    def working(self) -> int:
        """Most that sampling and decoding take at any time."""
        passes = max(self.sampling, self.recache)
        return passes + self.decoding if self.at_once else max(passes + self.state, self.decoding)

    @property
    def beside_weights(self) -> int:
        """Everything but the transformer's weights."""
        return self.cache + self.vae + self.working

    @property
    def total(self) -> int:
        """Most that the run takes at any time."""
        return self.weights + self.beside_weights


@dataclass(frozen=True)
class Ledger:
    """The memory that runs of one model take on one device.

    Attributes:
        model: The model; its weights are not read.
        weights: Bytes of its weights, in the dtype that they have on the device.
        device: The device.
        passing: Bytes of activations of a pass over so many latent frames. None: the figure for fused attention.
        spatial_factor: Pixels along an edge for each one of a latent.
        decodes_only: Whether only the VAE works, with everything else out of the way.
    """

    model: CausalModel
    weights: int
    device: DeviceMemory
    passing: Callable[[Setup, int], int] | None = None
    spatial_factor: int = 8
    decodes_only: bool = False

    def without_sampling(self) -> Ledger:
        """Return the ledger of decoding, or encoding, alone."""
        return replace(self, weights=0, decodes_only=True)

    def parts(self, setup: Setup) -> Parts:
        """Count the parts of a run."""
        decoder = setup.decoder
        if self.decodes_only:
            assert decoder is not None
            return Parts(0, 0, 0, vae=decoder.weights, decoding=decoder.decoding(setup))
        sampling = self._pass(setup, setup.config.pass_frames)
        at_once = self.device.kind == "cpu"  # on a GPU the nodes sample and decode in turn
        shape = self._shape(setup)
        in_ram = shape.pinned_bytes if self.device.kind == "cuda" else shape.host_bytes
        host = in_ram(setup.frames) if self.device.name == "GPU" else 0
        parts = Parts(self.weights, self.cache(setup), sampling, self._recache(setup), at_once=at_once, host_cache=host)
        if decoder is None:
            return parts
        return replace(parts, vae=decoder.weights, decoding=decoder.decoding(setup), state=decoder.state(setup))

    def cache(self, setup: Setup) -> int:
        """Bytes of the KV cache on the device; in RAM, a device's own memory, all of it."""
        shape = self._shape(setup)
        return shape.nbytes(setup.frames) + (shape.host_bytes(setup.frames) if self.device.name == "RAM" else 0)

    def _shape(self, setup: Setup) -> CacheShape:
        return self.model.cache_shape(setup.config, setup.latent_size, setup.batch)

    def _recache(self, setup: Setup) -> int:
        """Bytes of a joint recache."""
        frames = setup.recached_frames
        if not frames:
            return 0
        return self._pass(setup, frames) + self._shape(setup).wide_bytes(frames)

    def _pass(self, setup: Setup, frames: int) -> int:
        """Bytes of activations of a pass over ``frames`` latent frames."""
        if self.passing is not None:
            return self.passing(setup, frames)
        rows, columns = self.model.arch.token_grid(setup.latent_size)
        values = rows * columns * frames * self.model.arch.dim * SAMPLING_VALUES
        itemsize = self._shape(setup).dtype.itemsize
        return round(values * itemsize) * setup.batch

    @property
    def least_weights(self) -> int:
        """Bytes of weights that stay on the device when the host offloads the rest: two layers are in flight."""
        if not self.device.offloads:
            return self.weights
        in_flight = 2 * self.weights // self.model.arch.num_layers
        return min(self.weights, max(in_flight, int(self.device.weight_share * self.device.room)))

    def offloaded(self, setup: Setup) -> int | None:
        """Bytes of weights that have to stay in RAM; 0: everything fits. None: too much even so."""
        missing = max(0, self.parts(setup).total - self.device.room) if self.device.total else 0
        if self.fills_ram(setup) or (missing and missing > self.weights - self.least_weights):
            return None
        return missing

    def fills_ram(self, setup: Setup) -> bool:
        """Whether a cache in RAM takes more than there is, beside all weights, which the host may keep there."""
        host_cache = self.parts(setup).host_cache
        return 0 < self.device.ram < host_cache + self.weights + SPARE_RAM and bool(host_cache)

    def fits(self, setup: Setup, offloading: bool = True) -> bool:
        """Whether a run fits; without ``offloading``, whether it fits with all its weights."""
        missing = self.offloaded(setup)
        return missing == 0 or (offloading and missing is not None)

    def held_frames(self, setup: Setup) -> int:
        """Frames that an unbounded cache holds."""
        shape = self._shape(setup)
        return setup.config.chunk_frames + shape.sink_frames + shape.ring_capacity(setup.frames)

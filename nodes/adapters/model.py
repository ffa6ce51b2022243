"""ComfyUI's MODEL as a model of `sf_core`: the causal forward over the modules of its Wan transformer.

The weights stay ComfyUI's: modules are only called, never read, so LoRAs, fp8, GGUF, offloading and the attention
that the user chose all apply. A LoRA on ``modulation`` has no effect, as everywhere in ComfyUI.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import comfy.model_management as mm
import comfy.model_sampling
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...sf_core.cancellation import Cancellation
from ...sf_core.config import RolloutConfig
from ...sf_core.hashing import digest
from ...sf_core.memory_ledger import DecoderCost, Ledger, Setup
from ...sf_core.model.architecture import WanArchitecture
from ...sf_core.model.attention import prefers_cudnn, sdpa
from ...sf_core.model.cache_pool import CachePool
from ...sf_core.model.forward import WanForward
from ...sf_core.schedule import TRAIN_STEPS
from ...sf_core.session.session import Session
from ...sf_core.vae.wan_vae import WAN_MEAN
from . import host, memory
from .fingerprint import exact_patches, named_patches, token, weights_of
from .idle_memory import IdleMemory

ATTACHMENT = "self_forcing"
# Pixels along the edge of a latent, and frames of a latent, of every Wan 2.1 VAE; where the latent format lacks them
WAN_SPATIAL_FACTOR, WAN_TEMPORAL_FACTOR = 8, 4
WAN_CHANNELS = 16  # of its latents


@dataclass(frozen=True)
class Settings:
    """Rollout settings attached to a MODEL, as far as its loader or the user set them."""

    config: RolloutConfig | None = None
    latent_size: tuple[int, int] | None = None


def with_settings(patcher: Any, settings: Settings) -> Any:
    """Return a MODEL with the same weights that carries ``settings``."""
    clone = patcher.clone()
    clone.set_attachments(ATTACHMENT, settings)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, ATTACHMENT)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, ATTACHMENT, _explain_to_guiders)
    return clone


def _explain_to_guiders(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Warn of core's samplers, which make all frames of a clip at once. Raises ValueError for a cfg other than 1."""
    guidance = getattr(executor.class_obj, "cfg", 1.0)
    if guidance != 1.0:
        raise ValueError(
            f"a Self Forcing model was wired into a sampler with cfg {guidance:g}. Such models have guidance trained "
            "in: at any cfg but 1 they burn out, and they make video chunk by chunk, which this sampler does not. Wire "
            "the MODEL into Self Forcing Session, and that into Sample Chunks or Stream Video"
        )
    host.log.warning("a Self Forcing model in a core sampler makes all frames at once, without its cache of the past")
    return executor(*args, **kwargs)


def settings_of(patcher: Any) -> Settings:
    """Return the settings attached to a MODEL."""
    return patcher.get_attachment(ATTACHMENT) or Settings()


class SharedState:
    """Caches and decoder, shared by all sessions of one model; freed with the last of these sessions.

    Between runs ComfyUI sees them as a loaded model, and unloads them when another model needs the memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.caches = CachePool()
        self.decoder: tuple[tuple[str, bytes], Any] | None = None  # ((its VAE, what it has decoded), decoder)
        self.idle = IdleMemory(self, device)
        self._runs = 0

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.caches.nbytes + self.decoder_bytes

    @property
    def decoder_bytes(self) -> int:
        """Memory of the decoder's state, in bytes."""
        return int(self.decoder[1].cache_bytes) if self.decoder else 0

    def release(self) -> None:
        """Free everything."""
        self.caches.release()
        self.decoder = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep everything, whoever asks for memory, while the block runs."""
        self._runs += 1
        self.idle.withdraw()
        try:
            yield
        finally:
            self._runs -= 1
            self.offer()

    def offer(self) -> None:
        """Let ComfyUI have the memory when it needs it, unless a run is using it."""
        if not self._runs:
            self.idle.offer()


def _shared_state_of(model: Any, device: torch.device) -> SharedState:
    reference = getattr(model, "_sf_shared", None)
    shared = reference() if reference else None
    if shared is None:
        shared = SharedState(device)
        model._sf_shared = weakref.ref(shared)
    return shared


class HostedWan(WanForward):
    """A Wan 2.1 text-to-video MODEL from any loader, LoRA or merge. Raises ValueError for another model."""

    def __init__(self, patcher: Any) -> None:
        net = check_wan(patcher)
        settings = settings_of(patcher)
        self.patcher = patcher.clone()
        self.shared = _shared_state_of(self.patcher.model, self.patcher.load_device)
        self.cancellation: Cancellation = host.HostCancellation()  # of the run that uses the model, if one does
        self.arch = _architecture(net)
        self.rollout_config, self.latent_size = settings.config, settings.latent_size
        latent_format = self.patcher.model.latent_format
        self.spatial_factor = int(getattr(latent_format, "spacial_downscale_ratio", WAN_SPATIAL_FACTOR))
        self.temporal_factor = int(getattr(latent_format, "temporal_downscale_ratio", WAN_TEMPORAL_FACTOR))
        self.latents_mean = torch.as_tensor(getattr(latent_format, "latents_mean", WAN_MEAN)).flatten()
        for name in ("blocks", "patch_embedding", "text_embedding", "time_embedding", "time_projection", "head"):
            setattr(self, name, getattr(net, name))
        self._options: dict[str, Any] = {}
        self._ready: tuple[memory.Loaded | None, int] = (None, 0)  # what was loaded, with room for how many bytes
        self._use_cudnn = False  # both are set before each pass
        self._known_patches: tuple[object, str, bytes] = (None, "", b"")

    # What `WanForward` asks ---------------------------------------------------------------------------------------

    @property
    def caches(self) -> CachePool:  # type: ignore[override]
        """KV caches of all sessions of this model."""
        return self.shared.caches

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the computation."""
        model = self.patcher.model
        return model.manual_cast_dtype or model.get_dtype()

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.patcher.load_device

    def cast_parameter(self, parameter: Tensor, like: Tensor) -> Tensor:
        """Cast a parameter that belongs to no layer, as ComfyUI does."""
        return mm.cast_to(parameter, dtype=like.dtype, device=like.device)

    def embed_latents(self, x: Tensor) -> Tensor:
        """Embed latents [B, C, F, H, W] as patches, in `dtype`."""
        return self.patch_embedding(x.float()).to(self.dtype)  # ComfyUI keeps these weights in float32

    def use_attention(self) -> None:
        """Read the options that attention gets in the following passes."""
        self._options = dict(self.patcher.model_options["transformer_options"])
        self._options |= {"cond_or_uncond": [0], "block_type": "double", "total_blocks": self.arch.num_layers}
        chosen = args.use_pytorch_cross_attention or "optimized_attention_override" in self._options
        default = optimized_attention is attention_pytorch and not chosen
        self._use_cudnn = default and prefers_cudnn(self.device, self.dtype)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Call ComfyUI's attention, or the override that the user chose, for one layer."""
        self.cancellation.raise_if_asked()  # core's layers poll by themselves, layers of other packs (GGUF) do not
        if self._use_cudnn:  # ComfyUI's own call asks for FlashAttention 2 first
            return sdpa(q, k, v)
        heads = q.shape[2]
        options = {**self._options, "block_index": layer}
        out = optimized_attention(q.flatten(2), k.flatten(2), v.flatten(2), heads=heads, transformer_options=options)
        return out.unflatten(-1, (heads, -1))

    def before_pass(self, x: Tensor, timestep: Tensor) -> None:
        """Set the options that attention overrides of other packs read."""
        rows, columns = self.arch.token_grid((x.shape[3], x.shape[4]))
        self._options |= {"sigmas": timestep[:, 0] / TRAIN_STEPS, "grid_sizes": (x.shape[2], rows, columns)}

    def state_key(self) -> bytes:
        """Return the digest of everything that keys and values depend on: stored bits, patches, kinds of arithmetic."""
        override = self.patcher.model_options["transformer_options"].get("optimized_attention_override")
        attention = "" if override is None else token(override)
        contents = weights_of(self.patcher).contents
        return digest(contents, self._patches[1], f"{self.dtype} {self.device} {attention}".encode())

    @property
    def fingerprint(self) -> str:
        """Name of the weights with all patches; equal whenever the same files and LoRAs are loaded."""
        return weights_of(self.patcher).name + self._patches[0]

    def description(self) -> dict[str, str]:
        """Description of the weights with all patches, for saved sessions."""
        return {**weights_of(self.patcher).description, "patches": self._patches[1].hex()}

    def is_model(self, name: str, description: Mapping[str, str] | None) -> bool:
        """See `CausalModel.is_model`. Sessions without a description carry a name of any earlier version."""
        if not description:
            return name in {known + self._patches[0] for known in weights_of(self.patcher).names}
        return description.get("patches", "") == self._patches[1].hex() and super().is_model(name, description)

    @property
    def _patches(self) -> tuple[str, bytes]:
        """Addition of the patches to the name, and a digest of their bits."""
        state = (self.patcher.patches_uuid, len(self.patcher.object_patches))
        if self._known_patches[0] != state:
            self._known_patches = (state, named_patches(self.patcher), exact_patches(self.patcher))
        return self._known_patches[1:]

    # Memory -------------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The memory that runs of this model take on its device. Not kept: it refers to the model."""
        estimate = None if memory.attention_is_fused() else self._host_estimate
        device = memory.device_memory(self.device, self.patcher)
        return Ledger(self, self._weight_bytes, device, estimate, self.spatial_factor)

    @cached_property
    def _weight_bytes(self) -> int:
        return memory.loaded_bytes(self.patcher.model)

    def setup(self, session: Session, decoder: DecoderCost | None = None, frames: int = 0) -> Setup:
        """Return what decides the memory of a run of ``session``.

        Args:
            session: The session that is extended.
            decoder: The decoder, if the run decodes.
            frames: Latent frames that the run will reach, where that is known; at least the next chunk is planned.
        """
        end = session.frames + session.config.frames_of_block(session.frames)
        return Setup(session.config, session.latent_size, session.batch, max(end, frames), decoder)

    def _host_estimate(self, setup: Setup) -> int:
        shape = [setup.batch, self.arch.in_dim, setup.config.front_frames, *setup.latent_size]
        return int(self.patcher.model.memory_required(shape))  # the patcher's own pads it under DynamicVRAM

    def next_cache_bytes(self, session: Session) -> int:
        """Return the memory of the KV cache for the next chunk of ``session``."""
        return self.ledger.parts(self.setup(session)).cache

    def make_ready(self, session: Session, decoder: DecoderCost | None = None, decoder_state: int = 0) -> None:
        """Load the weights with their patches, with room for the cache, activations and the decoder.

        To be called before each chunk: clones of other graphs share the modules, and may have patched them. It does
        nothing while everything is as the last call left it, and no more memory is needed.

        Args:
            session: The session whose next chunk is made.
            decoder: The decoder of the run, if it decodes.
            decoder_state: Bytes that the decoder's state holds already.
        """
        self.caches.make_way(self.cache_shape(session.config, session.latent_size, session.batch))
        parts = self.ledger.parts(self.setup(session, decoder))
        loaded, planned = self._ready
        if loaded is not None and parts.beside_weights <= planned and loaded == memory.loaded(self.patcher):
            return
        missing = max(0, parts.cache - self.caches.nbytes) + max(0, parts.working - decoder_state)
        memory.load_models([self.patcher], missing)
        self._ready = (memory.loaded(self.patcher), parts.beside_weights)


def check_wan(patcher: Any) -> Any:
    """Return the transformer of a MODEL. Raises ValueError unless it is Wan 2.1's for text-to-video."""
    model = getattr(patcher, "model", None)
    net = getattr(model, "diffusion_model", None)
    kind = type(net).__name__
    if net is None or not all(hasattr(net, name) for name in ("blocks", "time_projection", "patch_embedding", "head")):
        raise ValueError(
            f"this MODEL is a {type(model).__name__}, not Wan 2.1. Self Forcing needs a Wan 2.1 text-to-video model: "
            "load one with Load Self Forcing Model, Load Diffusion Model or a GGUF loader"
        )
    if getattr(net, "model_type", "t2v") != "t2v" or getattr(net, "img_emb", None) is not None:
        raise ValueError(
            f"this MODEL ({kind}) is a Wan model led by images or control signals; Self Forcing models are "
            "text-to-video ones. To begin with a picture, use Start From Images on a session of a text-to-video model"
        )
    if net.in_dim != net.out_dim:
        raise ValueError(
            f"this MODEL ({kind}) reads {net.in_dim} channels and gives {net.out_dim}: not a text-to-video model"
        )
    if net.in_dim != WAN_CHANNELS and settings_of(patcher).config is None:  # a file of this pack has its settings in it
        raise ValueError(
            f"this MODEL ({kind}) makes latents of {net.in_dim} channels, as Wan 2.2's 5B model does. Self Forcing "
            f"models are Wan 2.1 ones, of {WAN_CHANNELS} channels; only one that was trained with this pack may differ"
        )
    return net


def _architecture(net: Any) -> WanArchitecture:
    same = ("dim", "ffn_dim", "num_heads", "text_dim", "text_len", "freq_dim", "in_dim", "out_dim", "eps")
    return WanArchitecture(
        num_layers=len(net.blocks),
        patch_size=tuple(net.patch_size),
        qk_norm=bool(net.qk_norm),
        cross_attn_norm=bool(net.cross_attn_norm),
        **{name: getattr(net, name) for name in same},
    )


def config_for(patcher: Any, given: RolloutConfig | None) -> RolloutConfig:
    """Return the connected rollout settings, else the model's own, with the shift of ModelSamplingSD3.

    Raises:
        ValueError: The MODEL has the noise schedule of another kind of model.
    """
    sampling = patcher.object_patches.get("model_sampling")
    shift = None if sampling is None else _flow_shift(sampling)
    if given is not None:
        return given
    config = settings_of(patcher).config or RolloutConfig()
    return config if shift is None else replace(config, shift=shift)


def _flow_shift(sampling: Any) -> float:
    """Return the shift of a flow-matching schedule, as ModelSamplingSD3 sets it. Raises ValueError for another one."""
    known = comfy.model_sampling
    if not (isinstance(sampling, known.ModelSamplingDiscreteFlow) and isinstance(sampling, known.CONST)):
        kind = ", ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(
            f"a ModelSampling node gave this MODEL the noise schedule of another kind of model ({kind}). "
            "A Self Forcing model needs flow matching with a shift: use ModelSamplingSD3, or remove the node"
        )
    return float(sampling.shift)


def comfy_model(session: Session) -> HostedWan:
    """Return the model of ``session``, which a node made over a MODEL of ComfyUI."""
    model = session.model
    assert isinstance(model, HostedWan)
    return model


def latent_size(wan: HostedWan, width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of the latents. Raises ValueError, naming the nearest sizes, for one that does not fit."""
    return wan.arch.latent_size(width, height, wan.spatial_factor)

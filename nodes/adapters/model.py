"""ComfyUI's MODEL as a model of `sf_core`: the causal forward over the modules of its Wan transformer.

The weights stay ComfyUI's: modules are only called, never read, so LoRAs, fp8, GGUF, offloading and the attention
that the user chose all apply. A LoRA on ``modulation`` has no effect, as everywhere in ComfyUI.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import comfy.model_management as mm
import torch
from comfy.cli_args import args
from comfy.latent_formats import Wan22
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ...sf_core.cancellation import Cancellation
from ...sf_core.hashing import digest
from ...sf_core.memory_ledger import DecoderCost, Ledger, Setup
from ...sf_core.model.architecture import WanArchitecture
from ...sf_core.model.attention import prefers_cudnn, sdpa
from ...sf_core.model.cache_pool import CachePool
from ...sf_core.model.forward import WanForward
from ...sf_core.schedule import TRAIN_STEPS, declare_without_float64
from ...sf_core.session.session import Session
from ...sf_core.vae.wan_vae import WAN_MEAN
from . import host, memory, second_set
from .compiling import compile_options, compile_token
from .fingerprint import exact_patches, named_patches, token, weights_of
from .model_settings import settings_of
from .shared_state import shared_state_of

# Pixels along the edge of a latent, and frames of a latent, of every Wan 2.1 VAE; where the latent format lacks them
WAN_SPATIAL_FACTOR, WAN_TEMPORAL_FACTOR = 8, 4
WAN22_SPATIAL_FACTOR = 16  # of Wan 2.2's 5B model
WAN_CHANNELS = 16  # of its latents
_PARTS = ("blocks", "patch_embedding", "text_embedding", "time_embedding", "time_projection", "head")


def _ask_for_float64(device: torch.device) -> None:
    """Tell `sf_core` if ComfyUI knows the device for one without float64; older versions do not say."""
    supports = getattr(mm, "supports_fp64", None)
    if supports is not None and not supports(device):
        declare_without_float64(device.type)


class HostedWan(WanForward):
    """A Wan 2.1 text-to-video MODEL from any loader, LoRA or merge. Raises ValueError for another model."""

    def __init__(self, patcher: Any) -> None:
        net = check_wan(patcher)
        settings = settings_of(patcher)
        self.patcher = patcher.clone()
        _ask_for_float64(self.patcher.load_device)
        self.shared = shared_state_of(self.patcher.model, self.patcher.load_device)
        self.cancellation: Cancellation = host.HostCancellation()  # of the run that uses the model, if one does
        self.arch = _architecture(net)
        self.rollout_config, self.latent_size = settings.config, settings.latent_size
        latent_format = self.patcher.model.latent_format
        usual = WAN22_SPATIAL_FACTOR if isinstance(latent_format, Wan22) else WAN_SPATIAL_FACTOR
        self.spatial_factor = int(getattr(latent_format, "spacial_downscale_ratio", usual))
        self.temporal_factor = int(getattr(latent_format, "temporal_downscale_ratio", WAN_TEMPORAL_FACTOR))
        self.latents_mean = torch.as_tensor(getattr(latent_format, "latents_mean", WAN_MEAN)).flatten()
        self._memory = second_set.of(net)
        if self._memory is not None:
            second_set.patch_both(self.patcher)
        for name in _PARTS:
            setattr(self, name, getattr(net, name))
        self._compile_options = compile_options(self.patcher)
        self._compiled: tuple[Callable[..., Any], Callable[..., Any]] | None = None
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

    @property
    def has_two_sets(self) -> bool:
        """Whether a second set of weights writes the cache (SGF+)."""
        return self._memory is not None

    @property
    def writer(self) -> HostedWan:
        """See `WanForward.writer`; made anew each time, so that it has the options of the pass that asks for it."""
        if self._memory is None:
            return self
        writer = copy.copy(self)
        writer._memory, writer._compiled = None, None
        for name in _PARTS:
            setattr(writer, name, getattr(self._memory, name))
        return writer

    def cast_parameter(self, parameter: Tensor, like: Tensor) -> Tensor:
        """Cast a parameter that belongs to no layer, as ComfyUI does."""
        return mm.cast_to(parameter, dtype=like.dtype, device=like.device)

    def embed_latents(self, x: Tensor) -> Tensor:
        """Embed latents [B, C, F, H, W] as patches, in `dtype`."""
        return self.patch_embedding(x.float()).to(self.dtype)  # ComfyUI keeps these weights in float32

    @property
    def block_functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two halves of a block, compiled if a Torch Compile node asks for it. All blocks share the graphs."""
        before, after = super().block_functions
        if self._compile_options is None:
            return before, after
        if self._compiled is None:
            options = self._compile_options
            self._compiled = torch.compile(before, **options), torch.compile(after, **options)
        return self._compiled

    def use_attention(self) -> None:
        """Read the options that attention gets in the following passes."""
        self._options = dict(self.patcher.model_options["transformer_options"])
        self._options |= {"cond_or_uncond": [0], "block_type": "double", "total_blocks": self.arch.num_layers}
        chosen = args.use_pytorch_cross_attention or "optimized_attention_override" in self._options
        default = optimized_attention is attention_pytorch and not chosen
        self._use_cudnn = default and prefers_cudnn(self.device, self.dtype)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
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
        self._options |= {"sigmas": timestep.amax(dim=1) / TRAIN_STEPS, "grid_sizes": (x.shape[2], rows, columns)}

    def state_key(self) -> bytes:
        """Return the digest of everything that keys and values depend on: stored bits, patches, kinds of arithmetic."""
        arithmetic = f"{self.dtype} {self.device} {self._attention_name()} {_how_it_computes()}"
        arithmetic += compile_token(self.patcher)
        return digest(weights_of(self.patcher).contents, self._patches[1], arithmetic.encode())

    def _attention_name(self) -> str:
        """Return the name of the attention that the passes call."""
        override = self.patcher.model_options["transformer_options"].get("optimized_attention_override")
        if override is not None:
            return token(override)
        own = optimized_attention is attention_pytorch and not args.use_pytorch_cross_attention
        if own and prefers_cudnn(self.device, self.dtype):
            return "cudnn"
        return f"{optimized_attention.__module__}.{optimized_attention.__qualname__}"

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

    def setup(
        self, session: Session, decoder: DecoderCost | None = None, frames: int = 0, joint: bool = False
    ) -> Setup:
        """Return what decides the memory of a run of ``session``.

        Args:
            session: The session that is extended.
            decoder: The decoder, if the run decodes.
            frames: Latent frames that the run will reach, where that is known; at least the next chunk is planned.
            joint: Whether the run makes a joint recache later than before its next chunk.
        """
        end = max(frames, session.frames + session.config.frames_of_block(session.frames))
        recached = max(session.joint_frames, end if joint else 0)
        return Setup(session.config, session.latent_size, session.batch, end, decoder, recached)

    def _host_estimate(self, setup: Setup, frames: int) -> int:
        shape = [setup.batch, self.arch.in_dim, frames, *setup.latent_size]
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
            f"this MODEL ({kind}) makes latents of {net.in_dim} channels, as Wan 2.2's 5B model does. That one is not "
            "made for streaming: a few denoising steps give no usable video. If the weights are LongLive 2.0's, or "
            "another causal model's of this kind, choose its preset"
        )
    return net


def _how_it_computes() -> str:
    """Return the options that ComfyUI was started with and that change what its layers compute.

    Stored chunks outlive a server that was killed, and the next one may be started otherwise.
    """
    flags = ("deterministic", "force_upcast_attention", "dont_upcast_attention")
    return repr((sorted(map(str, args.fast)), [getattr(args, flag, None) for flag in flags]))


def _architecture(net: Any) -> WanArchitecture:
    same = ("dim", "ffn_dim", "num_heads", "text_dim", "text_len", "freq_dim", "in_dim", "out_dim", "eps")
    return WanArchitecture(
        num_layers=len(net.blocks),
        patch_size=tuple(net.patch_size),
        qk_norm=bool(net.qk_norm),
        cross_attn_norm=bool(net.cross_attn_norm),
        **{name: getattr(net, name) for name in same},
    )


def comfy_model(session: Session) -> HostedWan:
    """Return the model of ``session``, which a node made over a MODEL of ComfyUI."""
    model = session.model
    assert isinstance(model, HostedWan)
    return model


def latent_size(wan: HostedWan, width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of the latents. Raises ValueError, naming the nearest sizes, for one that does not fit."""
    return wan.arch.latent_size(width, height, wan.spatial_factor)

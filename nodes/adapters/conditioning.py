"""Text embeddings from ComfyUI's CLIP and CONDITIONING."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
from torch import Tensor

from ...sf_core.files.clean_text import whole_characters


def embeddings(conditioning: Any) -> Tensor:
    """Return the text embeddings [1, rows, width] of a CONDITIONING. Raises ValueError unless it holds one prompt."""
    if not isinstance(conditioning, list) or len(conditioning) != 1:
        count = len(conditioning) if isinstance(conditioning, list) else 0
        raise ValueError(
            f"this CONDITIONING holds {count} prompts; a chunk is made from exactly one. Wire in one CLIP Text Encode, "
            "and change prompts over time with Switch Prompt or Prompt Timeline"
        )
    prompt: Tensor = conditioning[0][0]
    return prompt


def encode(clip: Any, text: str) -> Any:
    """Encode ``text`` to a CONDITIONING; ComfyUI may move weights. Only in the thread that runs the graph."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(whole_characters(text)))


def can_encode_in_thread(clip: Any) -> bool:
    """Whether `encode_in_thread` gives the right result: weights loaded on the CPU, no hooks, no schedule."""
    patcher = clip.patcher
    plain = clip.apply_hooks_to_conds is None and not clip.use_clip_schedule and patcher.forced_hooks is None
    loaded = [entry.model for entry in list(mm.current_loaded_models)]
    ready = any(model is not None and model.is_clone(patcher) for model in loaded)
    return bool(plain and ready and patcher.load_device.type == "cpu")


def encode_in_thread(clip: Any, text: str) -> Any:
    """Encode ``text`` to a CONDITIONING in any thread, without moving weights."""
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    return [[model.encode_token_weights(clip.tokenize(whole_characters(text)))[0], {}]]

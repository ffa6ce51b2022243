"""The node that trains: Self Forcing with DMD, from a teacher and prompts to a LoRA or a whole model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import comfy.sd
import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..sf_core.byte_units import format_bytes
from ..sf_core.files.atomic_write import atomic_write
from ..sf_core.noise import MAX_SEED
from ..sf_core.training.trainer import Trainer, TrainingStopped
from ..sf_core.vae.video_vae import VideoVAE
from .adapters import host
from .adapters.conditioning import embeddings, encode
from .adapters.model import HostedWan, Settings, config_for, with_settings
from .adapters.model_loader import build_model
from .adapters.training import HostRunContext, teacher_file, write_teacher
from .adapters.vae import check_fits, open_vae, weight_bytes
from .adapters.wire_types import ConfigWire
from .inputs import FPS, schema
from .live.view import LiveView
from .train_job import LORA, PROMPTS, RATIO, WHOLE, Job, as_lines
from .train_report import NodeGroup


class SFTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFTrain",
            display_name="Self Forcing Train",
            description="Distils a Wan 2.1 MODEL and a list of prompts into a causal few-step LoRA, or a whole model.",
            search_aliases=["self forcing training", "train lora", "distillation", "dmd", "causal wan training"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The teacher, a many-step Wan 2.1 text-to-video MODEL; its LoRAs count."
                ),
                io.Clip.Input(
                    "clip", tooltip="The text encoder that belongs to the model; it reads all prompts first."
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="What to learn, a prompt a line; no videos are needed. Some hundred make a LoRA of a kind.",
                ),
                io.String.Input(
                    "name",
                    default="self_forcing",
                    tooltip="Name of the result and of the training; the same name goes on where it was interrupted.",
                ),
                io.Combo.Input(
                    "result",
                    options=[LORA, WHOLE],
                    default=LORA,
                    tooltip="A LoRA, or all weights (for models/diffusion_models), which takes three times the memory.",
                ),
                io.Int.Input(
                    "start_steps",
                    default=500,
                    min=0,
                    max=1_000_000,
                    tooltip="Updates of the causal start, learnt from the teacher's own videos; 0 for a causal model.",
                ),
                io.Int.Input(
                    "steps",
                    default=200,
                    min=1,
                    max=1_000_000,
                    tooltip=f"Updates of the generator on its own videos; the critic has {RATIO} for each of them.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=1024, tooltip="Videos made at a time; memory grows with it."
                ),
                io.Int.Input(
                    "accumulate",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Batches gathered for one update: batch_size times this many videos, in less memory.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=5e-5,
                    min=1e-8,
                    max=1.0,
                    step=1e-6,
                    round=1e-9,
                    tooltip="Of the generator; the critic has a fifth. 0.00005 suits a LoRA over Wan.",
                ),
                io.Int.Input("rank", default=64, min=1, max=1024, tooltip="Size of the LoRA; unused for all weights."),
                io.Int.Input(
                    "chunks",
                    default=7,
                    min=1,
                    max=1000,
                    tooltip="Length of the videos it learns from, in chunks: 7 of 3 latent frames are 81 frames.",
                ),
                io.Int.Input(
                    "width", default=832, min=16, max=8192, step=16, tooltip="Width of these videos in pixels."
                ),
                io.Int.Input(
                    "height", default=480, min=16, max=8192, step=16, tooltip="Height of these videos in pixels."
                ),
                io.Float.Input(
                    "guidance",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How far the teacher leads away from 'negative': a cfg scale less 1, so 3 is cfg 4.",
                ),
                io.String.Input(
                    "negative", multiline=True, default="", tooltip="The teacher's negative prompt; empty is good too."
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=True,
                    tooltip="Compute again what the backward pass needs: far less memory, a third more time.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=25,
                    min=1,
                    max=1_000_000,
                    tooltip="Updates of the generator between two looks at what it can do.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,  # a training goes on under its seed
                    tooltip="Number of all that is drawn; the same seed and settings learn the same.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Shows videos of the first prompts on the node; without it, none."
                ),
                ConfigWire.Input(
                    "settings", optional=True, tooltip="Chunk, window and steps to learn; without it, the model's own."
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The trained MODEL, with its rollout settings, for Self Forcing Session."),
                io.Custom("LOSS_MAP").Output(
                    display_name="loss_map", tooltip="The generator's losses, for Plot Loss Graph."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any = None, settings: Any = None, **values: Any) -> Any:
        wan = HostedWan(model)
        config = config_for(model, settings)
        job = Job.of(wan, config, values, shows=vae is not None)
        job.check_free()
        decoder = None if vae is None else open_vae(vae)
        if decoder is not None:
            check_fits(decoder, wan)
        embedded = _embed_all(clip, [*job.prompts, job.recipe.negative])
        _make_room(cls.hidden.unique_id, job, 0 if decoder is None else weight_bytes(decoder))
        view = LiveView(cls, str(cls.hidden.unique_id), FPS, job.recipe.steps)
        with view.until_end():
            losses = _train(cls, view, job, wan, embedded, decoder)
        trained = with_settings(_with_result(model, job), Settings(config, job.recipe.latent_size))
        return io.NodeOutput(trained, {"loss": losses}, ui=view.on_node())


_LESS = "Turn checkpointing on, or lower batch_size, rank, chunks or the size"


def _embed_all(clip: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Embeddings [1, rows, width] by prompt, on the CPU, without the rows of zeros that text encoders fill up with."""
    found = {}
    for prompt in dict.fromkeys(prompts):
        host.check_interrupt()
        whole = embeddings(encode(clip, prompt)).float().cpu()
        used = whole[0].abs().amax(dim=1).nonzero()
        rows = int(used.max()) + 1 if len(used) else 1
        with torch.inference_mode(False):
            found[prompt] = whole[:, :rows].clone()
    return found


def _make_room(node_id: str, job: Job, beside: int) -> None:
    """Lets ComfyUI push models out. Raises MemoryError if that is not enough."""
    device, needs = torch.device(job.recipe.device), job.needs + beside
    host.make_room(needs, device)
    free = host.free_memory(device)
    words = f"training takes about {format_bytes(needs)}; the {device.type} has {format_bytes(free)} free"
    if needs > free:
        raise MemoryError(f"{words}. {_LESS}")
    host.say(node_id, words)


def _train(
    node: Any, view: LiveView, job: Job, wan: HostedWan, embedded: Mapping[str, Tensor], decoder: VideoVAE | None
) -> list[float]:
    """Begins, or goes on. Its result is put where loaders look, also if it is interrupted -> the generator's losses."""
    group = NodeGroup(job.recipe, view, host.Progress(node, job.recipe.steps))
    make_context = partial(HostRunContext, embeddings=embedded, vae=decoder)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_teacher(wan, teacher_file(wan, job.folder))
    with torch.inference_mode(False), torch.enable_grad():  # out of the mode that ComfyUI runs nodes in
        (job.folder / PROMPTS).write_text(as_lines(job.prompts), encoding="utf-8")
        try:
            Trainer(job.recipe, job.folder, job.begun, group=group, make_context=make_context).run()
        except (TrainingStopped, host.Interrupted) as stopped:
            _publish(job, view)
            raise group.interrupts.asked or stopped from None
        except Exception as error:
            if not host.is_out_of_memory(error):
                raise
            raise MemoryError(
                f"the {wan.device.type} ran out of memory; what was learnt up to the last save is kept. {_LESS}"
            ) from error
        _publish(job, view)
    teacher_file(wan, job.folder).unlink()  # as large as the model, and can be written again
    return group.losses


def _publish(job: Job, view: LiveView) -> None:
    """Puts the newest network where loaders look, if there is one."""
    if job.made is None:
        return
    job.file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(job.file) as part:
        shutil.copyfile(job.made, part)
    if (training := view.state()["training"]) is not None:
        view.tell(training={**training, "file": f"{job.file.parent.name}/{job.file.name}"})


def _with_result(model: Any, job: Job) -> Any:
    """The MODEL that was trained."""
    if job.recipe.lora is None:
        trained = build_model(job.file, None)
        trained.model.latent_format = model.model.latent_format
        return trained
    lora = comfy.utils.load_torch_file(str(job.file), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


NODES = [SFTrain]

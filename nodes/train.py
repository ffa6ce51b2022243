"""The node that trains a LoRA or a whole model from a teacher and prompts: Self Forcing with DMD."""

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
from ..sf_core.cancellation import Cancellation, Cancelled
from ..sf_core.files import disk_budget
from ..sf_core.files.atomic_write import atomic_write
from ..sf_core.memory_ledger import DecoderCost
from ..sf_core.message import Message
from ..sf_core.noise import MAX_SEED
from ..sf_core.ranges import PIXELS
from ..sf_core.training.trainer import Trainer
from ..sf_core.vae.video_vae import VideoVAE
from .adapters import host, memory
from .adapters.conditioning import embeddings, encode
from .adapters.fitting import plain
from .adapters.model import HostedWan
from .adapters.model_loader import build_model
from .adapters.model_settings import Settings, config_for, with_settings
from .adapters.running_prompt import executing_node
from .adapters.training import HostRunContext, teacher_file, write_teacher
from .adapters.vae import check_fits, open_vae
from .adapters.wire_types import ConfigWire
from .inputs import FPS, checked, schema
from .live import results
from .live.view import LiveView
from .train_job import LORA, PROMPTS, RATIO, WHOLE, Job, as_lines
from .train_report import NodeGroup


class SFTrain(io.ComfyNode):
    """Distils a teacher."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFTrain",
            display_name="Self Forcing Train",
            description="Distils a Wan 2.1 MODEL and a list of prompts into a causal few-step LoRA, or a whole model.",
            search_aliases=["self forcing training", "train lora", "distillation", "dmd", "causal wan training"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The teacher: a many-step Wan 2.1 text-to-video MODEL, including its LoRAs."
                ),
                io.Clip.Input(
                    "clip", tooltip="The text encoder that belongs to the model; it encodes all prompts first."
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts to learn, one a line; no videos needed. A few hundred make a LoRA of one subject.",
                ),
                io.String.Input(
                    "name",
                    default="self_forcing",
                    tooltip="Name of the result and of the training; the same name resumes an interrupted training.",
                ),
                io.Combo.Input(
                    "result",
                    options=[LORA, WHOLE],
                    default=LORA,
                    tooltip="A LoRA, or all weights (in models/diffusion_models), which takes three times the memory.",
                ),
                io.Int.Input(
                    "start_steps",
                    default=500,
                    min=0,
                    max=1_000_000,
                    tooltip="Updates of the causal start, on the teacher's videos; 0 for a model that is causal.",
                ),
                io.Int.Input(
                    "steps",
                    default=200,
                    min=1,
                    max=1_000_000,
                    tooltip=f"Updates of the generator on its own videos; the critic makes {RATIO} for each.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=1024, tooltip="Videos at a time; memory grows with it."
                ),
                io.Int.Input(
                    "accumulate",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Gradient accumulation: batches for one update, in the memory of one batch.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=5e-5,
                    min=1e-8,
                    max=1.0,
                    step=1e-6,
                    round=1e-9,
                    tooltip="Learning rate of the generator; the critic's is a fifth. 0.00005 suits a LoRA on Wan.",
                ),
                io.Int.Input(
                    "rank", default=64, min=1, max=1024, tooltip="Rank of the LoRA; not used for a whole model."
                ),
                io.Int.Input(
                    "chunks",
                    default=7,
                    min=1,
                    max=1000,
                    tooltip="Length of the training videos: 7 chunks of 3 latent frames are 81 frames.",
                ),
                io.Int.Input(
                    "width",
                    default=832,
                    min=PIXELS.least,
                    max=PIXELS.most,
                    step=16,
                    tooltip="Width of the training videos in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=480,
                    min=PIXELS.least,
                    max=PIXELS.most,
                    step=16,
                    tooltip="Height of the training videos in pixels.",
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
                    "negative", multiline=True, default="", tooltip="The teacher's negative prompt; may be empty."
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=True,
                    tooltip="Gradient checkpointing: far less memory, a third more time.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=25,
                    min=1,
                    max=1_000_000,
                    tooltip="Updates of the generator between two sets of samples.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,  # a training is resumed under its seed
                    tooltip="Seed of all random draws; the same seed and settings give the same result.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Shows videos of the first prompts on the node; without it, none.",
                ),
                ConfigWire.Input(
                    "settings",
                    optional=True,
                    tooltip="Chunk, window and steps to learn; without it, the model's own.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The trained MODEL with its rollout settings, for Self Forcing Session."),
                io.Custom("LOSS_MAP").Output(
                    display_name="loss_map", tooltip="The generator's losses, for Plot Loss Graph."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return results.times_lost(cls)

    @classmethod
    @checked
    def execute(cls, model: Any, clip: Any, vae: Any = None, settings: Any = None, **values: Any) -> Any:
        wan, cancellation = HostedWan(model), host.HostCancellation()
        config = config_for(model, plain(settings))
        job = Job.of(wan, config, values, shows=vae is not None)
        job.check_free()
        job.check_disk()
        decoder = None if vae is None else open_vae(vae, cancellation)
        if decoder is not None:
            check_fits(decoder, wan)
        embedded = _embed_all(clip, [*job.prompts, job.recipe.negative], cancellation)
        _make_room(job, wan, 0 if decoder is None else DecoderCost.of(decoder).weights)
        view = LiveView(cls, FPS, job.recipe.steps)
        with view.until_end():
            losses = _train(view, job, wan, embedded, decoder, cancellation)
        results.remember(cls, job.file)
        trained = with_settings(_with_result(model, job), Settings(config, job.recipe.latent_size))
        return io.NodeOutput(trained, {"loss": losses}, ui=view.on_node())


_LESS = "Turn checkpointing on, or lower batch_size, rank, chunks or the size"


def _embed_all(clip: Any, prompts: Sequence[str], cancellation: Cancellation) -> dict[str, Tensor]:
    """Encode prompts to [1, rows, width] on the CPU, without the zeros that text encoders pad with."""
    embedded = {}
    for prompt in dict.fromkeys(prompts):
        cancellation.raise_if_asked()
        whole = embeddings(encode(clip, prompt)).float().cpu()
        used = whole[0].abs().amax(dim=1).nonzero()
        rows = int(used.max()) + 1 if len(used) else 1
        with torch.inference_mode(False):
            embedded[prompt] = whole[:, :rows].clone()
    return embedded


def _make_room(job: Job, wan: HostedWan, extra_bytes: int) -> None:
    """Let ComfyUI unload models. Raises MemoryError if that is not enough."""
    device, needs = torch.device(job.recipe.device), job.needs + extra_bytes
    memory.make_room(needs, device)
    free, name = memory.free_memory(device), wan.ledger.device.name
    sizes = {"needs": format_bytes(needs), "device": name, "free": format_bytes(free)}
    words = Message("training takes about {needs}; the {device} has {free} free", **sizes)
    if needs > free:
        raise MemoryError(f"{words}. {_LESS}")
    host.say(executing_node(), words)


def _train(
    view: LiveView,
    job: Job,
    wan: HostedWan,
    embedded: Mapping[str, Tensor],
    decoder: VideoVAE | None,
    cancellation: Cancellation,
) -> list[float]:
    """Train, or resume a training, and publish the result, also of an interrupted one -> the generator's losses."""
    group = NodeGroup(job.recipe, view, host.NodeProgress(job.recipe.steps, cancellation), cancellation)
    make_context = partial(HostRunContext, embeddings=embedded, vae=decoder)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_teacher(wan, teacher_file(wan, job.folder), cancellation)
    with torch.inference_mode(False), torch.enable_grad():  # out of the mode that ComfyUI runs nodes in
        with atomic_write(job.folder / PROMPTS) as part:  # cut short, the training would not be known again
            part.write_text(as_lines(job.prompts), encoding="utf-8")
        try:
            Trainer(
                job.recipe, job.folder, job.begun, group=group, make_context=make_context, cancellation=cancellation
            ).run()
        except (Cancelled, host.HostCancellation.error):
            _publish(job, view)
            raise host.HostCancellation.error from None
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            memory.free_all(error)
            name = wan.ledger.device.name
            message = f"the {name} ran out of memory; what was learnt up to the last save is kept. {_LESS}"
            raise memory.out_of_memory(error, message) from None
        _publish(job, view)
    disk_budget.delete(teacher_file(wan, job.folder))  # as large as the model, and can be written again
    return group.losses


def _publish(job: Job, view: LiveView) -> None:
    """Copy the newest network, if there is one, to the folder of ComfyUI's loaders."""
    if job.newest_network is None:
        return
    job.file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(job.file) as part:
        shutil.copyfile(job.newest_network, part)
    if (training := view.state()["training"]) is not None:
        view.tell(training={**training, "file": f"{job.file.parent.name}/{job.file.name}"})


def _with_result(model: Any, job: Job) -> Any:
    """Return the trained MODEL."""
    if job.recipe.lora is None:
        trained = build_model(job.file, None)
        trained.model.latent_format = model.model.latent_format
        return trained
    lora = comfy.utils.load_torch_file(str(job.file), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


NODES = [SFTrain]

"""The published models that this core can run, with the rollout settings of each.

Most of them are a Wan 2.1 transformer with the same names and shapes; `recognition` tells them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..config import RolloutConfig
from ..message import NOTHING, Message

NO_FILE = r"(?!)"  # a pattern that matches nothing: settings without a file of their own
LONGLIVE2 = "LongLive 2"  # the one model of Wan 2.2's latents
WAN22_CHANNELS = 48  # of the latents of Wan 2.2's 5B model and of those based on it; all others have 16


@dataclass(frozen=True)
class PublishedModel:
    """A published model.

    Args:
        name: As its authors call it.
        file: Regular expression that matches the names of its files, the folder's name included.
        config: Settings of its own inference code; None if it is not meant for a rollout.
        remark: What a user should know before using it.
        ask: Names of other models whose files have these names too. A user should say which one it is.
        causal: Whether it is made to be run chunk by chunk.
        channels: Of its latents.
    """

    name: str
    file: str
    config: RolloutConfig | None
    remark: Message = NOTHING
    ask: tuple[str, ...] = ()
    causal: bool = True
    channels: int = 16

    @property
    def refusal(self) -> Message:
        """Say that the model is not run here; empty if it is."""
        if self.config is not None:
            return NOTHING
        if self.causal:
            return Message("not run by this version: {name}: {remark}", name=self.name, remark=self.remark)
        return Message("not for streaming: {name}: {remark}", name=self.name, remark=self.remark)


_FIRST = (1000, 750, 500, 250)  # Causal Forcing++ makes its first frame with four steps
_FRAME_WISE = "Causal Forcing, frame-wise"
_CHUNK_WISE = "Causal Forcing, chunk-wise"
_NO_SETTINGS = Message("its published settings are not known here; these are Self Forcing's")
_RCM_STEPS = (1000 * 1600 / 1601, 937.5, 1000 * 5 / 6, 625.0)  # timesteps; the first is sigma_max / (sigma_max + 1)


def _rcm(first: int, chunk: int, steps: int, noisy: bool = False) -> PublishedModel:
    """Return Causal-rCM with blocks of ``first`` and then ``chunk`` frames, and ``steps`` steps after the first."""
    later = {4: _RCM_STEPS, 2: (_RCM_STEPS[0], _RCM_STEPS[3 if noisy else 2]), 1: _RCM_STEPS[:1]}[steps]
    number = rf"(?:.*step{steps})" if steps < 4 else r"(?!.*step[12])"
    context = r"(?=.*noisy)" if noisy else r"(?!.*noisy)"
    return PublishedModel(
        f"Causal-rCM, c{first}-{chunk}, {steps} step{'s'[: steps > 1]}{', noisy context' if noisy else ''}",
        rf"causal.?rcm(?=.*c{first}-{chunk}){context}{number}",
        RolloutConfig(
            chunk_frames=chunk,
            first_chunk_frames=None if first == chunk else first,
            first_chunk_steps=_RCM_STEPS if steps < 4 else None,
            window_frames=None,
            denoising_steps=later,
            exact_times=True,
            context_from_last_step=noisy,
        ),
    )


# The first with a matching pattern counts.
PUBLISHED_MODELS = (
    PublishedModel(
        "SGF+, frame-wise",
        r"(?=.*(?:sgf.?(?:plus|\+)|gradient.?forcing.?(?:plus|\+)))(?=.*frame.?wise)",
        RolloutConfig(chunk_frames=1, window_frames=21, sink_frames=4, sink_position="clamped"),
    ),
    PublishedModel(
        "SGF+",
        r"sgf.?(?:plus|\+)|gradient.?forcing.?(?:plus|\+)",
        RolloutConfig(window_frames=12, sink_frames=3, sink_position="clamped"),
        Message("the chunk-wise one"),
    ),
    PublishedModel(
        "SGF, frame-wise",
        r"(?=.*(?:\bsgf|gradient.?forcing))(?=.*frame.?wise)",
        RolloutConfig(chunk_frames=1, window_frames=21, sink_frames=4, sink_position="clamped"),
    ),
    PublishedModel(
        "SGF",
        r"\bsgf|gradient.?forcing",
        RolloutConfig(window_frames=12, sink_frames=3, sink_position="top_aligned", trained_frames=21),
        Message("the chunk-wise one"),
    ),
    PublishedModel(
        "Rolling Forcing",
        r"rolling.?forcing",
        RolloutConfig(
            window_frames=21,
            sink_frames=3,
            sink_position="clamped",
            schedule="rolling",
            denoising_steps=(1000, 800, 600, 400, 200),
        ),
    ),
    PublishedModel(
        "Causal Forcing, long video",
        r"longvideo",
        RolloutConfig(window_frames=21, sink_frames=3, sink_position="clamped", schedule="rolling"),
        Message("as Rolling Forcing, with four steps in place of five"),
    ),
    PublishedModel(
        "Causal Forcing++, frame-wise, 1 step",
        r"frame.?wise.?1.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000,), first_chunk_steps=_FIRST),
    ),
    PublishedModel(
        "Causal Forcing++, frame-wise, 2 steps",
        r"frame.?wise.?2.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000, 500), first_chunk_steps=_FIRST),
    ),
    PublishedModel(
        _FRAME_WISE,
        r"frame.?wise/causal.?forcing|causal.?forcing.*frame.?wise",
        RolloutConfig(chunk_frames=1),
    ),
    PublishedModel(_CHUNK_WISE, r"chunk.?wise/causal.?forcing|causal.?forcing.*chunk.?wise", RolloutConfig()),
    PublishedModel(
        "Causal Forcing",
        r"causal.?forcing",
        RolloutConfig(),
        Message(
            "the chunk-wise and the frame-wise model have files of one name; "
            "these are the settings of the chunk-wise one"
        ),
        (_CHUNK_WISE, _FRAME_WISE),
    ),
    *(_rcm(first, chunk, 4) for first, chunk in ((3, 3), (1, 4), (1, 1))),
    *(_rcm(first, chunk, 2) for first, chunk in ((3, 3), (1, 4), (1, 1))),
    *(_rcm(first, chunk, 2, noisy=True) for first, chunk in ((3, 3), (1, 4), (1, 1))),
    *(_rcm(first, chunk, 1) for first, chunk in ((3, 3), (1, 4), (1, 1))),
    PublishedModel(
        "CausVid",
        r"causvid",
        RolloutConfig(denoising_steps=(1000, 757, 522), warp_steps=False, shift=8.0),
    ),
    PublishedModel(
        LONGLIVE2,
        r"long.?live.?2|longlive2",
        RolloutConfig(
            chunk_frames=8,
            window_frames=32,
            sink_frames=8,
            solver="unipc",
            solver_steps=4,
            shot_offset=8,
            pin_shots=True,
            context_in_chunk=True,
        ),
        Message(
            "a Wan 2.2 5B: 24 frames a second, sizes in multiples of 32, and the VAE of Wan 2.2; models of 2 steps "
            "have solver_steps=2. Plain Wan 2.2 5B has the same shapes, and gives no usable video"
        ),
        channels=WAN22_CHANNELS,
    ),
    PublishedModel(
        "LongLive, infinite attention",
        r"longlive.*infin",
        RolloutConfig(window_frames=12, sink_frames=3, sink_position="clamped"),
        Message("base and LoRA belong together"),
    ),
    PublishedModel(
        "LongLive",
        r"longlive",
        RolloutConfig(window_frames=12, sink_frames=3),
        Message("base and LoRA belong together"),
    ),
    PublishedModel(
        "MemFlow",
        r"mem.?flow",
        RolloutConfig(window_frames=12, sink_frames=3, memory_frames=3),
        Message("base and LoRA belong together"),
    ),
    PublishedModel(
        "Reward Forcing",
        r"reward.?forcing",
        RolloutConfig(window_frames=9, sink_frames=3, sink_position="clamped", sink_average=0.999),
    ),
    PublishedModel(
        "Infinite-Forcing",
        r"infinite.?forcing|\bvsink",
        RolloutConfig(window_frames=6, sink_frames=1, sink_position="clamped"),
    ),
    PublishedModel(
        "Krea Realtime 14B",
        r"krea.?(?:realtime|real.time|14b)|krea(?!.?2)",
        RolloutConfig(window_frames=6, denoising_steps=(1000, 750, 500, 250, 0), context="recompute"),
    ),
    PublishedModel(
        "flashdreams",
        r"flash.?dreams",
        RolloutConfig(window_frames=12, sink_frames=5, sink_position="clamped", shift=8.0),
        Message("NVIDIA's preset sink5-window7-rerope for Self Forcing's weights"),
    ),
    PublishedModel(
        "StreamDiffusionV2",
        r"stream.?diffusion.?v2|causal.?dmd.?v2v|\bsdv2",
        None,
        Message("it makes a video of a video, which this version does not do"),
    ),
    PublishedModel("RAVEN", r"\braven|cmgrpo", RolloutConfig(), _NO_SETTINGS),
    PublishedModel("One-Forcing", r"one.?forcing", RolloutConfig(), _NO_SETTINGS),
    PublishedModel(
        "ShotStream", r"shot.?stream", None, Message("it makes a shot from the one before, which is not done here")
    ),
    PublishedModel(
        "an initialisation (ODE pairs)",
        r"ode.?init|causal.?ode",
        None,
        Message("it is meant to be trained, not to be run"),
        causal=False,
    ),
    PublishedModel(
        "Self Forcing, 10 seconds",
        r"self.?forcing.?10.?s",
        RolloutConfig(),
        Message("trained on longer videos; its window is not published, and 21 frames are Self Forcing's"),
    ),
    PublishedModel(
        "Self Forcing",
        r"self.?forcing|\bsfwan",
        RolloutConfig(),
        Message("trained on 21 frames; shift=8 is what its web demo runs with"),
    ),
    PublishedModel("Self Forcing, web demo (shift 8)", NO_FILE, RolloutConfig(shift=8.0)),
    PublishedModel(
        "Wan 2.1 itself",
        r"wan_?2[._]?1.?t2v",
        None,
        Message("it is not distilled: a few denoising steps from it give no usable video"),
        causal=False,
    ),
    PublishedModel(
        "Wan 2.2 itself",
        r"wan_?2[._]?2",
        None,
        Message(
            "it is not distilled for streaming, and its 14B is two models for two noise levels: "
            "it gives no usable video"
        ),
        causal=False,
    ),
)


def frame_rate(channels: int) -> float:
    """Return the frames a second that models with latents of so many channels are made for."""
    return 24.0 if channels == WAN22_CHANNELS else 16.0


def presets() -> list[str]:
    """List the names of the published models whose settings `preset` knows."""
    return [model.name for model in PUBLISHED_MODELS if model.config is not None and not model.ask]


def preset(name: str) -> RolloutConfig:
    """Return the rollout settings of a published model.

    Args:
        name: One of `presets`, or a name that a file of the model could have; capitals and blanks do not matter.

    Raises:
        ValueError: No model with rollout settings has that name; the message lists those that have.
    """
    config = model_by_name(name).config
    assert config is not None
    return config


def remark_on(model: PublishedModel | None) -> Message:
    """Return what a user should know of a model before running it; empty if there is nothing to say."""
    if model is None or not model.remark:
        return NOTHING
    return model.refusal or Message("{name}: {remark}", name=model.name, remark=model.remark)


def model_by_name(name: str) -> PublishedModel:
    """Find a model by its name, or by a name that a file of it could have.

    Raises:
        ValueError: No model with rollout settings has that name; the message lists those that have.
    """
    named = [model for model in PUBLISHED_MODELS if _letters(model.name) == _letters(name)]
    model = next(iter(named), None) or model_by_words(name)
    if model is None or model.config is None:
        raise ValueError(f"no rollout settings are known for {name!r}; known are: {'; '.join(presets())}")
    return model


def model_by_words(words: str) -> PublishedModel | None:
    """Find the first model whose pattern matches the names of a folder and a file."""
    return next((model for model in PUBLISHED_MODELS if re.search(model.file, words.lower())), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def format_settings(config: RolloutConfig) -> str:
    """Format the settings that differ between models, and all that are not the default, in Python's syntax."""
    always = ("chunk_frames", "window_frames", "sink_frames", "denoising_steps", "shift")
    settings = {k: v for k, v in vars(config).items() if k in always or v != getattr(RolloutConfig(), k)}
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())

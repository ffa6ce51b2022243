"""The picture that a recomputed context begins with is the last one of its latent frame, encoded alone."""

from __future__ import annotations

import pytest
import torch

import sf_core
from sf_core import tiny
from sf_core.session.beginning import frames_to_begin_with
from sf_core.session.frame_counts import video_frames
from sf_core.session.reencoding import with_vae
from tests.helpers import relative

CONFIG = sf_core.RolloutConfig(context="recompute", window_frames=6, denoising_steps=(1000, 500))


def start(config: sf_core.RolloutConfig = CONFIG) -> sf_core.Session:
    model = tiny.load_transformer()
    return sf_core.Session.start(model, tiny.load_text().encode(tiny.PROMPT), config=config)


def test_a_context_begins_with_the_last_picture_of_its_latent_frame() -> None:
    vae = tiny.load_vae()
    session = with_vae(start(), vae)
    for _ in range(4):
        session, _ = session.next_chunk()
    assert session.head is not None
    assert session.head.parent is not None
    kept = session.head.parent.reencoded  # of the context of frames 6 to 8
    assert kept is not None
    frames = vae.decode(session.latents[:, :, :7])
    picture = frames[:, video_frames(7, vae.temporal_factor) - 1 :]
    assert relative(kept.on_cpu(), vae.encode(picture)) < 1e-5
    assert relative(kept.on_cpu(), session.latents[:, :, 6:7]) > 1e-2, "it is not the frame itself"


def test_a_session_of_other_settings_keeps_no_vae() -> None:
    assert with_vae(start(sf_core.RolloutConfig()), tiny.load_vae()).reencode is None


@pytest.mark.parametrize(
    ("config", "latents"),
    [
        (CONFIG, 3),
        (sf_core.RolloutConfig(sink_average=0.999, sink_frames=3, window_frames=9), 3),
        (sf_core.RolloutConfig(sink_position="top_aligned", trained_frames=21, window_frames=12), 3),
        (sf_core.RolloutConfig(schedule="rolling", sink_frames=3), 1),
        (sf_core.RolloutConfig(), 1),
    ],
)
def test_a_picture_fills_what_a_model_can_begin_with(config: sf_core.RolloutConfig, latents: int) -> None:
    vae = tiny.load_vae()
    session = start(config)
    rows, columns = (length * vae.spatial_factor for length in session.latent_size)
    session, frames = frames_to_begin_with(session, torch.rand(1, 1, rows, columns, 3), vae.temporal_factor)
    begun = session.with_context(vae.encode(frames))
    assert begun.frames == latents
    assert begun.next_chunk()[0].frames == latents + 3

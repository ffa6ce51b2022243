"""Text of a small training recipe: its head and each stage, to put together and to write to a file."""

from __future__ import annotations

from pathlib import Path

WORLD = """
name = "small"
frames = 6
[rollout]
chunk_frames = 3
window_frames = 6
denoising_steps = [1000, 500]
[world]
size = 32
clips = 24
[model]
dim = 32
ffn_dim = 64
layers = 2
heads = 2
freq_dim = 32
[samples]
every = 1000
long = 2
prompts = ["a red circle moving left slowly on a black background"]
"""
MUON = 'optimizer = { name = "muon", lr = 3e-3, betas = [0.9, 0.99], clip = 1.0, ema = EMA }'
VAE = f'[[stages]]\nkind = "vae"\ndim = 4\nframes = 1\nbatch = 8\nsteps = 50\n{MUON.replace("EMA", "0.0")}\n'
TEACHER = f'[[stages]]\nkind = "teacher"\nbatch = 8\nsteps = 150\n{MUON.replace("EMA", "0.9")}\n'
CAUSAL = f'[[stages]]\nkind = "causal"\nbatch = 8\nsteps = 80\n{MUON.replace("EMA", "0.9")}\n'
SELF_FORCING = """
[[stages]]
kind = "self-forcing"
batch = 4
steps = 60
ratio = 3
guidance = 1.0
accumulate = 2
optimizer = { lr = 5e-4, ema = 0.5, ema_start = 2 }
critic = { lr = 1e-3, betas = [0.5, 0.99] }
"""


def write(folder: Path, text: str) -> Path:
    """Write a recipe to ``folder``."""
    path = folder / "recipe.toml"
    path.write_text(text)
    return path

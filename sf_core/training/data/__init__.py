"""Training data: prompts, videos, latents on disk."""

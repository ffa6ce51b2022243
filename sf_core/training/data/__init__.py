"""What is trained on: prompts, videos, latents on disk."""

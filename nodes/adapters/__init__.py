"""ComfyUI's objects as those of `sf_core`: model, VAE, prompts, progress, folders."""

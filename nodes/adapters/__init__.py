"""Adapters between ComfyUI's objects and those of `sf_core`: model, VAE, prompts, progress, folders."""

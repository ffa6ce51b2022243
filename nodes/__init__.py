"""The nodes of the pack: one file a family, all of ComfyUI behind `host`."""

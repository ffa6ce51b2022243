"""What ``make run`` and ``make comfyui`` start."""

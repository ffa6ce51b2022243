"""Live runs: sampling with progress, steering, pictures for viewers, stored chunks."""

"""Runs while they work: their state, frames, steering, and what is kept of them."""

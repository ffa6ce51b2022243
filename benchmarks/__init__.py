"""Benchmarks: the claims about speed, memory and quality, measured. Each is a command: `python -m benchmarks.NAME`."""

"""Scores of videos of the tiny world: what a clip shows (`observe`), and whether its caption says so (`scorer`)."""

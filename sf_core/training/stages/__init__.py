"""The stages of a recipe: VAE, teacher, causal start, Self Forcing."""

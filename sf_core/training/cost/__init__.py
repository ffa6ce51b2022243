"""Predicted memory and operations of a training."""

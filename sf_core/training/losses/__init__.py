"""Losses on whole videos."""

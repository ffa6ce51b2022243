"""Verification: whether a machine plays a model as it was recorded, and keeps a session's promises with it."""

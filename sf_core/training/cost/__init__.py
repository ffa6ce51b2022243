"""Memory and operations of a training, predicted."""

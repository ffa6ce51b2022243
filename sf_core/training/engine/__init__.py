"""The machinery of all stages: optimizers, processes, adapters, logs, samples."""

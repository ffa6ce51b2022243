"""What every stage runs on: optimizers, processes, adapters, logs, samples."""

"""The causal Wan transformer: modules, forward passes, attention, the cache of keys and values."""

"""Reading and writing files: checkpoints, LoRAs, safetensors, videos."""

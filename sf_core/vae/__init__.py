"""Video decoders and encoders, whole and streamed."""

"""Video autoencoders: decoding and encoding of whole videos and of streams."""

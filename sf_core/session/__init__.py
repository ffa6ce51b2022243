"""Sessions: a video as a value, how it goes on, is replayed, streamed and saved."""

"""Sources of video to video: clips and live frames, encoded chunk by chunk for a session."""

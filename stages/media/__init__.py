"""Decoding one video file into sampled frames and a waveform."""

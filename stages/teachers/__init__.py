"""Frozen image-text and audio-text models behind one interface."""

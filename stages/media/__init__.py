"""Decoding one video file into sampled frames and a waveform."""

from avvp_pipe.stages.media.clip import DecodedClip, Sampling, decode_clip
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.pool import Task, decode_clips

__all__ = ["ClipError", "DecodedClip", "Sampling", "Status", "Task", "decode_clip", "decode_clips"]

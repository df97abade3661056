"""The sound of a clip: mono, at one rate, of exactly as many samples as its seconds ask for. Decoded with PyAV.

decord's own audio reader is not used: it shifts, scales and leaks (measured on a real clip). Channels are averaged,
as librosa does for VALOR; FFmpeg's own mono of floating-point sound would add two equal channels to 1.41 times their
level. Samples may lie beyond [-1, 1], as in the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.probe import open_media, streams

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

__all__ = ["read_audio"]

GAP_SECONDS = 0.05
"""Sound that begins later than the sound before it ends, by more than this, is placed anew; less is clock jitter."""


def read_audio(path: Path, *, seconds: int, rate: int, start_seconds: float = 0.0) -> tuple[NDArray[np.float32], int]:
    """Decode the first audio stream to samples from `start_seconds` on the file's clock onwards.

    Returns (seconds * rate,) float32, always finite, and how many of the samples are padding (zeros): sound that
    begins later than the clip, stops earlier or has a hole in it keeps its place in time. Raises ClipError.
    """
    import av

    audio = np.zeros(seconds * rate, np.float32)
    heard = np.zeros(seconds * rate, np.bool_)
    decoded = 0
    try:
        for begins, sound in _passages(path, rate, until_seconds=start_seconds + seconds):
            offset = round((begins - start_seconds) * rate)
            kept = sound[max(-offset, 0) : max(len(audio) - offset, 0)]
            place = slice(max(offset, 0), max(offset, 0) + len(kept))
            audio[place], heard[place] = kept, True
            decoded += len(sound)
    except (av.FFmpegError, ValueError) as error:
        raise ClipError(Status.CORRUPT, f"the sound of {path} cannot be decoded: {error}") from error
    if not decoded:
        raise ClipError(Status.CORRUPT, f"{path} has an audio stream, but no sound could be decoded from it")
    if not np.isfinite(audio).all():
        raise ClipError(Status.NON_FINITE, f"the decoded sound of {path} holds values that are not numbers")
    return audio, int(len(audio) - heard.sum())


def _passages(path: Path, rate: int, *, until_seconds: float) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """The sound in passages without a hole or a change of form: when each begins, and its mono samples."""
    with open_media(path) as container:
        _, audio = streams(container, path)
        frames: list[AudioFrame] = []
        begins = expected = 0.0
        for frame in container.decode(audio):
            at = expected if frame.time is None else frame.time
            if at >= until_seconds:
                break
            if frames and (abs(at - expected) > GAP_SECONDS or _form(frame) != _form(frames[0])):
                yield begins, _mono(frames, rate)
                frames = []
            if not frames:
                begins = expected = at
            frames.append(frame)
            expected += frame.samples / frame.sample_rate
        if frames:
            yield begins, _mono(frames, rate)


def _form(frame: "AudioFrame") -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _mono(frames: "list[AudioFrame]", rate: int) -> NDArray[np.float32]:
    """Resample frames of one form to `rate` and average their channels."""
    import av

    resampler = av.AudioResampler(format="fltp", rate=rate)
    pieces = [piece.to_ndarray() for frame in [*frames, None] for piece in resampler.resample(frame)]
    mono: NDArray[np.float32] = np.concatenate(pieces, axis=1).mean(axis=0)
    return mono

"""The sound of a clip: mono, at one rate. Decoded with PyAV.

    exact   of exactly as many samples as the clip's seconds ask for, on the clip's clock: sound that begins later than
            the pictures is heard later
    valor   the file's whole sound as `librosa.load(video, sr=rate)` gave it to VALOR: from its first sample, whenever
            that is heard, through 16 bits (which clip it to [-1, 1]), averaged over channels, resampled by soxr's HQ

decord's own audio reader is not used: it shifts, scales and leaks (measured on a real clip). Channels are averaged,
as librosa does for VALOR; FFmpeg's own mono of floating-point sound would add two equal channels to 1.41 times their
level. Samples of `exact` may lie beyond [-1, 1], as in the file.

On the real clip of LLP (44.1 kHz, stereo) `valor` is within one step of 16 bits of librosa 0.11 with the ffmpeg program
4.2.2, sample by sample, and as long (480,375). `exact`, which resamples with FFmpeg's swresample, differs from it by
0.25 % (root mean square), nearly all of it where the file's sound goes beyond [-1, 1]. Later programs (9.0.2) end
that clip 363 samples earlier, by its edit list, and 4.2.2 keeps an encoder's priming in mkv; PyAV does neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status, in_words
from avvp_pipe.stages.media.probe import open_media, streams
from avvp_pipe.stages.media.segments import LONGER_SECONDS

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

__all__ = ["read_audio", "read_whole_audio"]

GAP_SECONDS = 0.05
"""Sound that begins later than the sound before it ends, by more than this, is placed anew; less is clock jitter."""


def read_audio(path: Path, *, seconds: int, rate: int, start_seconds: float = 0.0) -> tuple[NDArray[np.float32], int]:
    """Decode the first audio stream to samples from `start_seconds` on the file's clock onwards.

    Returns (seconds * rate,) float32, always finite, and how many of the samples are padding (zeros): sound that
    begins later than the clip, stops earlier or has a hole in it keeps its place in time. Raises ClipError.
    """
    audio = np.zeros(seconds * rate, np.float32)
    heard = np.zeros(seconds * rate, np.bool_)
    decoded = 0
    with _faults_named(path):
        for begins, frames in _passages(path, until_seconds=start_seconds + seconds):
            sound = _mono(frames, rate)
            offset = round((begins - start_seconds) * rate)
            kept = sound[max(-offset, 0) : max(len(audio) - offset, 0)]
            place = slice(max(offset, 0), max(offset, 0) + len(kept))
            audio[place], heard[place] = kept, True
            decoded += len(sound)
    _check(path, audio, decoded)
    return audio, int(len(audio) - heard.sum())


def read_whole_audio(path: Path, *, seconds: int, rate: int) -> NDArray[np.float32]:
    """Decode the first audio stream to its N samples, whichever moment it begins at; holes in it are closed.

    Returns (N,) float32 in [-1, 1], N at least `seconds`. Of sound longer than asked by LONGER_SECONDS or more the
    first seconds * rate samples are taken. Raises ClipError.
    """
    limit = seconds + LONGER_SECONDS
    with _faults_named(path):
        pieces = [_as_librosa(frames, rate) for _, frames in _passages(path, heard_seconds=limit)]
    audio: NDArray[np.float32] = np.concatenate([*pieces, np.empty(0, np.float32)])
    if len(audio) >= limit * rate:
        audio = audio[: seconds * rate]
    _check(path, audio, len(audio))
    if len(audio) < seconds:
        raise ClipError(Status.TOO_SHORT, f"the sound of {path} has {len(audio)} samples, not one for each second")
    return audio


def _check(path: Path, audio: NDArray[np.float32], decoded: int) -> None:
    if not decoded:
        raise ClipError(Status.CORRUPT, f"{path} has an audio stream, but no sound could be decoded from it")
    if not np.isfinite(audio).all():
        raise ClipError(Status.NON_FINITE, f"the decoded sound of {path} holds values that are not numbers")


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what FFmpeg and PyAV raise into ClipError."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        raise ClipError(Status.CORRUPT, f"the sound of {path} cannot be decoded: {in_words(error)}") from error


def _passages(
    path: Path, *, until_seconds: float = np.inf, heard_seconds: float = np.inf
) -> Iterator[tuple[float, "list[AudioFrame]"]]:
    """The sound in passages without a hole or a change of form: when each begins, and its frames.

    It ends at `until_seconds` on the file's clock, or where `heard_seconds` of sound have been decoded.
    """
    with open_media(path) as container:
        _, audio = streams(container, path)
        frames: list[AudioFrame] = []
        begins = expected = heard = 0.0
        for frame in container.decode(audio):
            at = expected if frame.time is None else frame.time
            if at >= until_seconds or heard >= heard_seconds:
                break
            if frames and (abs(at - expected) > GAP_SECONDS or _form(frame) != _form(frames[0])):
                yield begins, frames
                frames = []
            if not frames:
                begins = expected = at
            frames.append(frame)
            lasts = frame.samples / frame.sample_rate
            expected, heard = expected + lasts, heard + lasts
        if frames:
            yield begins, frames


def _form(frame: "AudioFrame") -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resampled(frames: "list[AudioFrame]", form: str, rate: int) -> NDArray[np.float32]:
    """Frames of one form as (channels, samples) of the sample format `form` at `rate`, in units of that format."""
    import av

    as_is = (frames[0].format.name, frames[0].sample_rate) == (form, rate)
    # Handed out in frames of a second: each one costs, whatever it holds.
    resampler = av.AudioResampler(format=form, rate=rate, frame_size=None if as_is else rate)
    pieces = [piece.to_ndarray() for frame in [*frames, None] for piece in resampler.resample(frame)]
    return np.concatenate(pieces, axis=1).astype(np.float32, copy=False)


def _mono(frames: "list[AudioFrame]", rate: int) -> NDArray[np.float32]:
    """Resample frames of one form to `rate` and average their channels."""
    mono: NDArray[np.float32] = _resampled(frames, "fltp", rate).mean(axis=0)
    return mono


def _as_librosa(frames: "list[AudioFrame]", rate: int) -> NDArray[np.float32]:
    """What `librosa.load` makes of frames of one form: audioread's 16 bits, the mean of the channels, soxr.

    N samples become ceil(N * rate / their rate), cut or filled up by zeros where the resampler counts otherwise.
    Samples that are not numbers stay so, for 16 bits would hide them.
    """
    import soxr  # type: ignore[import-untyped]

    own = frames[0].sample_rate
    if not all(np.isfinite(frame.to_ndarray()).all() for frame in frames):
        return np.full(rate, np.nan, np.float32)
    mono: NDArray[np.float32] = (_resampled(frames, "s16p", own) / np.float32(2**15)).mean(axis=0)
    if own == rate:
        return mono
    wanted = int(np.ceil(len(mono) * (rate / own)))
    found: NDArray[np.float32] = soxr.resample(mono, own, rate, quality="HQ")[:wanted]
    return np.pad(found, (0, wanted - len(found)))

"""What a video file holds, found without decoding it: its streams, the time of every frame, where its clock begins.

One pass over the packets answers everything, and exactly: a container's own claims about frame rate, number of
frames and duration are hints that real clips break.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status, in_words
from avvp_pipe.stages.media.packets import Packets, read_packets

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["VideoIndex", "check_file", "index_video", "open_media", "scan", "streams"]

SIDE_LIMIT = 8192
DURATION_LIMIT_SECONDS = 3600
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""Nothing else is opened: FFmpeg would take text for subtitles, pictures for films, and follow a playlist's links."""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The frames of a file as a player shows them, and its clock."""

    packets: Packets
    ticks: NDArray[np.int64]
    """(F,) presentation times in units of `time_base`, rising; frames that an edit list hides are left out."""
    start_seconds: float
    """Where the clip begins on the file's clock: the first frame or the first sound, whichever is earlier."""
    end_seconds: float
    """Where the last frame ends, on the file's clock."""
    missing_seconds: float
    """How much less the packets cover than the container claims; large in a file that breaks off."""

    @property
    def time_base(self) -> Fraction:
        """Seconds a tick."""
        return self.packets.time_base

    @property
    def seekable(self) -> bool:
        """Is every key packet a point where H.264 decoding can begin afresh, and no frame hidden?"""
        packets = self.packets
        plain = packets.prefix > 0 and packets.container.startswith(("mov", "matroska"))
        return plain and all((one.afresh or not one.key) and not one.hidden for one in packets.film)

    @property
    def shown_seconds(self) -> NDArray[np.float64]:
        """(F,) presentation times from the beginning of the clip."""
        return self.ticks * float(self.time_base) - self.start_seconds

    @property
    def duration_seconds(self) -> float:
        """From the beginning of the clip to the end of the last frame."""
        return self.end_seconds - self.start_seconds


def check_file(path: Path) -> None:
    """Raise ClipError unless there is a regular file with something in it that may be read. A pipe is not opened."""
    try:
        found = path.stat()
    except OSError as error:
        raise ClipError(Status.MISSING_FILE, f"there is no file {path}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in its name
        raise ClipError(Status.MISSING_FILE, f"there is no file {str(path)!r}: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ClipError(Status.NOT_A_VIDEO, f"{path} is not a regular file")
    if found.st_size == 0:
        raise ClipError(Status.EMPTY_FILE, f"{path} holds no bytes; fetch it again")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ClipError(Status.MISSING_FILE, f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def open_media(path: Path) -> "Iterator[InputContainer]":
    """Open a local file with PyAV, as one of the known containers. Raises ClipError where it is none."""
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        # Absolute, because FFmpeg takes "x:y.mp4" for a protocol and "-y.mp4" is an ordinary YouTube id.
        # Titles are in whatever letters they are in; nobody reads them.
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (av.FFmpegError, UnicodeError) as error:
        raise ClipError(Status.NOT_A_VIDEO, f"{path} is no video that FFmpeg can open: {in_words(error)}") from error
    with container:
        yield container


def streams(container: "InputContainer", path: Path) -> "tuple[VideoStream, AudioStream]":
    """The first video stream that is no cover picture, and the first audio stream. Raises ClipError."""
    from av.stream import Disposition

    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not films or not container.streams.audio:
        if container.format.name.startswith("mov") and _breaks_off(path):
            raise ClipError(Status.CORRUPT, f"{path} breaks off within its index; fetch it again")
        what = "audio" if films else "video"
        raise ClipError(Status.NO_AUDIO_STREAM if films else Status.NO_VIDEO_STREAM, f"{path} has no {what} stream")
    return films[0], container.streams.audio[0]


def _breaks_off(path: Path) -> bool:
    """Does the last box of an MP4 file claim more bytes than there are (ISO 14496-12, 4.2)?"""
    at, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            size = int.from_bytes(file.read(4), "big")
            if size == 1:  # the size follows the name, in eight bytes
                file.seek(at + 8)
                size = int.from_bytes(file.read(8), "big")
            if size < 8:  # 0: up to the end; less is nonsense
                return False
            at += size
    return at > end


def scan(path: Path) -> Packets:
    """Read all packets of a file. Raises ClipError where streams are missing, too large or cannot be read."""
    import av

    with open_media(path) as container:
        video, audio = streams(container, path)
        _check_limits(container, video, path)
        if audio.codec_context is None:
            raise ClipError(Status.CORRUPT, f"{path} holds sound that FFmpeg has no decoder for")
        try:
            return read_packets(container, video, audio)
        except av.FFmpegError as error:
            raise ClipError(Status.CORRUPT, f"{path} cannot be read: {in_words(error)}") from error


def index_video(path: Path) -> VideoIndex:
    """Read all packets of a file and put its frames in order. Raises ClipError as `scan`, and for no or odd times."""
    packets = scan(path)
    ticks, end_tick = _shown(packets, path)
    tick = float(packets.time_base)
    start, end = min(ticks[0] * tick, packets.first_sound), end_tick * tick
    _check_duration(end - start, path)
    claimed = (packets.start_microseconds + packets.lasts_microseconds) / 1e6
    missing = max(claimed - max(end, packets.last_sound), 0.0)
    return VideoIndex(packets, ticks, start_seconds=start, end_seconds=end, missing_seconds=missing)


def _check_limits(container: "InputContainer", video: "VideoStream", path: Path) -> None:
    if video.codec_context is None:
        raise ClipError(Status.CORRUPT, f"{path} holds video that FFmpeg has no decoder for")
    if not video.width or not video.height:
        raise ClipError(Status.CORRUPT, f"{path} does not hold one whole frame")
    if max(video.width, video.height) > SIDE_LIMIT:
        raise ClipError(Status.TOO_LONG, f"{path} is {video.width}x{video.height}; sides up to {SIDE_LIMIT} are read")
    _check_duration((container.duration or 0) / 1e6, path)


def _check_duration(lasts: float, path: Path) -> None:
    if lasts > DURATION_LIMIT_SECONDS:
        raise ClipError(Status.TOO_LONG, f"{path} lasts {lasts:.0f} s; up to {DURATION_LIMIT_SECONDS} s are read")


def _shown(packets: Packets, path: Path) -> tuple[NDArray[np.int64], int]:
    """Presentation times of the frames that are shown, rising, and the time when the last one ends, in ticks."""
    shown = [(packet.pts, packet.duration) for packet in packets.film if not packet.hidden]
    if not shown:
        raise ClipError(Status.TOO_SHORT, f"{path} has a video stream without frames")
    if any(pts is None for pts, _ in shown):
        raise ClipError(Status.CORRUPT, f"{path} has frames without presentation times; remux it")
    ticks = np.array(sorted(pts for pts, _ in shown if pts is not None), np.int64)
    last = dict(shown)[int(ticks[-1])]
    if not last and len(ticks) > 1:  # of unknown duration: shown as long as the one before it
        last = int(ticks[-1] - ticks[-2])
    return ticks, int(ticks[-1]) + last

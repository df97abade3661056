"""What a video file holds, found without decoding it: its streams, the time of every frame, where its clock begins.

One pass over the packets answers everything, and exactly: a container's own claims about frame rate, number of
frames and duration are hints that real clips break.
"""

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status, in_words

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["UPRIGHT", "Turn", "VideoIndex", "check_file", "index_video", "open_media", "streams", "turned"]

SIDE_LIMIT = 8192
DURATION_LIMIT_SECONDS = 3600
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""Nothing else is opened: FFmpeg would take text for subtitles, pictures for films, and follow a playlist's links."""


class Turn(NamedTuple):
    """How a player turns the coded pictures, in this order."""

    transpose: bool
    mirror: bool
    """Left and right."""
    upend: bool
    """Top and bottom."""


UPRIGHT = Turn(transpose=False, mirror=False, upend=False)


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The frames of a file as a player shows them, and its clock."""

    ticks: NDArray[np.int64]
    """(F,) presentation times in units of `time_base`, rising; frames that an edit list hides are left out."""
    time_base: Fraction
    """Seconds a tick."""
    width: int
    height: int
    start_seconds: float
    """Where the clip begins on the file's clock: the first frame or the first sound, whichever is earlier."""
    end_seconds: float
    """Where the last frame ends, on the file's clock."""
    missing_seconds: float
    """How much less the packets cover than the container claims; large in a file that breaks off."""
    seekable: bool
    """Every key packet is a point where H.264 decoding can begin afresh, and no frame is hidden."""
    turn: Turn = UPRIGHT
    """From coded to shown pictures; `width` and `height` are those of the coded ones."""

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


def index_video(path: Path) -> VideoIndex:
    """Read all packets of a file. Raises ClipError where streams are missing, too large, empty or without times."""
    import av

    with open_media(path) as container:
        video, audio = streams(container, path)
        _check_limits(container, video, path)
        if audio.codec_context is None:
            raise ClipError(Status.CORRUPT, f"{path} holds sound that FFmpeg has no decoder for")
        try:
            packets, sound, turn = _read_packets(container, video, audio)
        except av.FFmpegError as error:
            raise ClipError(Status.CORRUPT, f"{path} cannot be read: {in_words(error)}") from error
        time_base = video.time_base
        assert time_base is not None  # set as soon as a container is open
        ticks, end_tick = _shown(packets, path)
        end = end_tick * float(time_base)
        start = min(ticks[0] * float(time_base), sound[0])
        _check_duration(end - start, path)
        claimed = ((container.start_time or 0) + (container.duration or 0)) / av.time_base
        return VideoIndex(
            ticks=ticks,
            time_base=time_base,
            width=video.width,
            height=video.height,
            start_seconds=start,
            end_seconds=end,
            missing_seconds=max(claimed - max(end, sound[1]), 0.0),
            seekable=_is_plain(container, video) and all(packet.plain for packet in packets),
            turn=turn,
        )


@dataclass(frozen=True, slots=True)
class _Packet:
    """One packet of the video stream, that is, one frame."""

    pts: int | None
    duration: int
    hidden: bool
    """By an edit list: decoded, never shown."""
    plain: bool
    """Not hidden, and if it is a key packet, decoding can begin with it afresh."""


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


def _read_packets(
    container: "InputContainer", video: "VideoStream", audio: "AudioStream"
) -> tuple[list[_Packet], tuple[float, float], Turn]:
    """The packets of the video stream; the first and the last second of sound on the file's clock; the turn."""
    prefix = _length_prefix(video)
    video.codec_context.thread_count = 1  # one core a worker; the pool does the rest
    packets: list[_Packet] = []
    turn: Turn | None = None
    # The first sound is decoded, for only the decoder knows how much of it is an encoder's priming, to be cut off.
    # The first picture is decoded, for only it says how it is turned.
    first_sound, last_sound = float("inf"), float("-inf")
    for packet in container.demux(video, audio):
        if packet.size == 0:  # PyAV's mark that the decoder may be drained
            continue
        duration, hidden = packet.duration or 0, packet.is_discard
        if packet.stream_index == video.index:
            afresh = not packet.is_keyframe or (prefix > 0 and _is_idr(bytes(packet), prefix))
            packets.append(_Packet(packet.pts, duration, hidden, plain=afresh and not hidden))
            turn = _turn(video, packet) if turn is None else turn
        elif packet.pts is not None and not hidden:
            if np.isinf(first_sound):
                first_sound = next(
                    (frame.time for frame in audio.decode(packet) if frame.time is not None), first_sound
                )
            last_sound = max(last_sound, float((packet.pts + duration) * packet.time_base))
    return packets, (first_sound, last_sound), turn or UPRIGHT


def turned(frame: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """A coded picture (H, W, 3) as a player shows it: (H, W, 3), or (W, H, 3) where it is turned by a quarter."""
    if turn.transpose:
        frame = frame.transpose(1, 0, 2)
    return np.ascontiguousarray(frame[:: -1 if turn.upend else 1, :: -1 if turn.mirror else 1])


def _turn(video: "VideoStream", packet: "Packet[Any]") -> Turn | None:
    """What the first picture's display matrix says; None as long as the decoder gives no picture.

    The matrix (a b u; c d v; x y w) takes a point (p, q) to (a p + c q, b p + d q) (ISO 14496-12, 6.2.2). For right
    angles the ffmpeg program (4.2.2) shows the same; it does not mirror. Other angles are left as coded here.
    """
    import av
    from av.sidedata.sidedata import Type

    try:
        frame: Any = next(iter(video.decode(packet)), None)
    except av.FFmpegError:  # whether the pictures can be decoded is found out by whoever decodes them
        return UPRIGHT
    if frame is None:
        return None
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if a == d == 0 and b and c:
        return Turn(transpose=True, mirror=c < 0, upend=b < 0)
    if b == c == 0 and a and d:
        return Turn(transpose=False, mirror=a < 0, upend=d < 0)
    return UPRIGHT


def _shown(packets: list[_Packet], path: Path) -> tuple[NDArray[np.int64], int]:
    """Presentation times of the frames that are shown, rising, and the time when the last one ends, in ticks."""
    shown = [(packet.pts, packet.duration) for packet in packets if not packet.hidden]
    if not shown:
        raise ClipError(Status.TOO_SHORT, f"{path} has a video stream without frames")
    if any(pts is None for pts, _ in shown):
        raise ClipError(Status.CORRUPT, f"{path} has frames without presentation times; remux it")
    ticks = np.array(sorted(pts for pts, _ in shown if pts is not None), np.int64)
    last = dict(shown)[int(ticks[-1])]
    if not last and len(ticks) > 1:  # of unknown duration: shown as long as the one before it
        last = int(ticks[-1] - ticks[-2])
    return ticks, int(ticks[-1]) + last


def _is_plain(container: "InputContainer", video: "VideoStream") -> bool:
    """Is it H.264 in a container whose packets decord numbers as they are shown?"""
    return container.format.name.startswith(("mov", "matroska")) and _length_prefix(video) > 0


def _length_prefix(video: "VideoStream") -> int:
    """Bytes before each unit of an H.264 packet (ISO 14496-15, lengthSizeMinusOne); 0 for anything else."""
    head = video.codec_context.extradata or b""
    if video.codec_context.name != "h264" or len(head) < 5 or head[0] != 1:
        return 0
    return (head[4] & 3) + 1


def _is_idr(packet: bytes, prefix: int) -> bool:
    """Does an H.264 packet hold an IDR picture (unit type 5), behind which nothing reaches back?"""
    at = 0
    while at + prefix < len(packet):
        if packet[at + prefix] & 0x1F == 5:
            return True
        at += prefix + int.from_bytes(packet[at : at + prefix], "big")
    return False

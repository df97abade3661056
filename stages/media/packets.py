"""The packets of a file, read once: when each frame is shown, where decoding can begin afresh, when sound is heard.

Nothing is decoded but the first sound. Everything that is asked about times (`probe.VideoIndex`, `dump.Timing`) is
worked out of this record, and the frames of a small film are decoded out of it, without opening the file again.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from avvp_pipe.stages.media.h264 import frame_number_bits, is_idr, length_prefix

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

__all__ = ["FilmPacket", "Held", "Packets", "read_packets"]

HELD_BYTES = 2**25
"""So much of a film is kept in memory until it is decoded: ten seconds at 27 Mbit/s."""


class FilmPacket(NamedTuple):
    """One packet of the video stream, that is, one frame. Times are in units of `Packets.time_base`."""

    pts: int | None
    dts: int | None
    duration: int
    """0 where the container does not say."""
    hidden: bool
    """By an edit list: decoded, never shown."""
    key: bool
    afresh: bool
    """A key packet with which H.264 decoding can begin afresh (IDR)."""


@dataclass(frozen=True, slots=True)
class Held:
    """A film's packets as they are, and a decoder for them that has not been begun with."""

    packets: "tuple[Packet[Any], ...]"
    decoder: "VideoCodecContext"


@dataclass(frozen=True, slots=True)
class Packets:
    """What a container says of its film, and when its sound is heard."""

    film: tuple[FilmPacket, ...]
    """As they are stored, which is the order of decoding."""
    width: int
    height: int
    """Of the coded pictures."""
    time_base: Fraction
    """Seconds a tick."""
    base_rate: Fraction | None
    """The finest rate that fits the frames' times, as FFmpeg guesses it."""
    guessed_rate: Fraction | None
    container: str
    """FFmpeg's names for the container."""
    prefix: int
    """Bytes before each unit of an H.264 packet, which tell its length; 0 for other codecs and other forms of H.264."""
    number_bits: int
    """How many bits the number of an H.264 frame has; 0 where that is not known."""
    start_microseconds: int
    """Where the container says that it begins."""
    lasts_microseconds: int
    """How long it says it lasts."""
    begins: tuple[tuple[int, Fraction], ...]
    """The earliest time of each film and sound track that shows or sounds, and the seconds a tick of it."""
    first_sound: float
    """Seconds on the file's clock, behind an encoder's priming; infinite where nothing is heard."""
    last_sound: float
    """Where the last sound ends."""
    held: "Held | None" = field(repr=False, compare=False)
    """What decoding the film takes; None for one of more than HELD_BYTES."""


def read_packets(container: "InputContainer", video: "VideoStream", audio: "AudioStream") -> Packets:
    """Read all packets of an open file. Raises av.FFmpegError."""
    head = video.codec_context.extradata or b""
    prefix = length_prefix(head) if video.codec_context.name == "h264" else 0
    film: list[FilmPacket] = []
    held: list[Packet[Any]] = []
    held_bytes = 0
    earliest: dict[int, int] = {}
    first, sound_ends = float("inf"), list[int]()
    tracks = [one for one in container.streams if one.type in ("video", "audio")]
    for packet in container.demux(tracks):
        if packet.size == 0:  # PyAV's mark that the decoder may be drained
            continue
        at, shown = packet.stream_index, None if packet.is_discard else packet.pts
        if shown is not None:
            earliest[at] = min(shown, earliest.get(at, shown))
        if at == video.index:
            film.append(_film_packet(packet, prefix))
            held_bytes += packet.size
            if held_bytes <= HELD_BYTES:
                held.append(packet)
        elif at == audio.index and shown is not None:
            if first == float("inf"):  # only the decoder knows how much of it is an encoder's priming, to be cut off
                first = next((one.time for one in audio.decode(packet) if one.time is not None), first)
            sound_ends.append(shown + (packet.duration or 0))
    assert video.time_base is not None  # set as soon as a container is open
    assert audio.time_base is not None
    return Packets(
        film=tuple(film),
        width=video.width,
        height=video.height,
        time_base=video.time_base,
        base_rate=video.base_rate,
        guessed_rate=video.guessed_rate,
        container=container.format.name,
        prefix=prefix,
        number_bits=frame_number_bits(head) if prefix else 0,
        start_microseconds=container.start_time or 0,
        lasts_microseconds=container.duration or 0,
        begins=tuple((earliest[one.index], one.time_base) for one in tracks if one.index in earliest and one.time_base),
        first_sound=first,
        last_sound=float(max(sound_ends) * audio.time_base) if sound_ends else float("-inf"),
        held=Held(tuple(held), video.codec_context) if len(held) == len(film) else None,
    )


def _film_packet(packet: "Packet[Any]", prefix: int) -> FilmPacket:
    key = packet.is_keyframe
    afresh = key and prefix > 0 and is_idr(bytes(packet), prefix)
    return FilmPacket(packet.pts, packet.dts, packet.duration or 0, packet.is_discard, key, afresh)

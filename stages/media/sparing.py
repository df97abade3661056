"""Decoding of H.264 that leaves out what no wanted picture is made of; the wanted ones come out to the same bits.

    group of pictures   I p b b p b b p b b p b b p      I key packet (IDR): nothing behind it reaches back before it
    wanted              .   *             *              p, I other pictures are made of them; b none is
    decoded             I p b p     p     b . . . .      and of what comes next, nothing up to the next I

* A picture that no other is made of says so (nal_ref_idc 0; H.264, 7.4.1), and is decoded only if it is wanted. Its
  packet is not shown to the decoder at all: told to leave out such pictures by itself (`skip_frame`), FFmpeg also
  passes over packets that hold nothing but noise, and patches up what is made of them.
* Behind the last wanted picture of a group nothing is decoded up to the next key packet.
* Groups without a wanted picture are left out altogether.

On the real clip of LLP, ten of 300 frames, that is a quarter of the decoding time. Damage is an error here instead of
being patched up, also where it made a picture look like one that can be left out: then those behind it are numbered as
if one were missing (frame_num, 7.4.3). Pictures in fields are refused, of which one may be made of the other. Whoever
asks decodes such files in the ordinary way. (What FFmpeg patches up without a word may come out otherwise here.)
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.h264 import frame_number, is_alone, units
from avvp_pipe.stages.media.packets import Packets

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

__all__ = ["needed", "spared", "wanted_by_group"]


def spared(packets: Packets, ticks: NDArray[np.int64]) -> "Iterator[VideoFrame]":
    """Decode the frames shown at `ticks` (n,), and few others, of a film whose key packets are all IDR.

    Not all of the wanted ones come where the file is not what it seems. Raises av.FFmpegError for damage, and
    ValueError where anything is not as in ordinary films, or the packets are not held or have been decoded before.
    """
    if packets.held is None or packets.held.decoder.is_open or not packets.number_bits:
        raise ValueError("no packets to decode, or none that can be told apart")
    decoder = packets.held.decoder
    decoder.thread_count = 1  # one core a worker; the pool does the rest
    decoder.options = {"err_detect": "explode"}
    for packet, is_last in needed(packets, packets.held.packets, ticks):
        yield from map(_whole, decoder.decode(packet))
        if is_last:  # have the decoder hand out what it holds back, and begin anew
            yield from map(_whole, decoder.decode(None))
            decoder.flush_buffers()


def needed(
    packets: Packets, film: "Iterable[Packet[Any]]", ticks: NDArray[np.int64]
) -> "Iterator[tuple[Packet[Any], bool]]":
    """Those packets of a film that the frames at `ticks` (n,) are made of; whether it is the last one of its group.

    Raises ValueError where packets are not whole, or a picture is missing before one that is needed.
    """
    wanted, left, group = set(ticks.tolist()), wanted_by_group(packets, ticks), 0
    number, numbers = 0, 2**packets.number_bits
    for packet in film:
        group += packet.is_keyframe
        if not left[group]:
            continue
        parts = units(memoryview(packet), packets.prefix)
        is_wanted, alone = packet.pts in wanted, is_alone(parts)
        if alone and not is_wanted:
            continue
        expected = 0 if packet.is_keyframe else (number + 1) % numbers
        if frame_number(parts, packets.number_bits) != expected:
            raise ValueError("a picture is missing")
        number = number if alone else expected
        left[group] -= is_wanted
        yield packet, not left[group]


def wanted_by_group(packets: Packets, ticks: NDArray[np.int64]) -> list[int]:
    """How many of the frames at `ticks` (n,) belong to each group of pictures; first, how many to none of them.

    A group is shown from its key packet's time to the next one's.
    """
    keys = sorted(one.pts for one in packets.film if one.key and one.pts is not None)
    groups = np.searchsorted(np.array(keys, np.int64), ticks, side="right")
    counts: list[int] = np.bincount(groups, minlength=len(keys) + 1).tolist()
    return counts


def _whole(frame: "VideoFrame") -> "VideoFrame":
    if frame.interlaced_frame:
        raise ValueError("pictures in fields")
    return frame

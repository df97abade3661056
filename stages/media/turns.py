"""How a player turns coded pictures: phones write films lying on their side, with a note to set them upright."""

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["UPRIGHT", "Turn", "turn_of", "turned"]


class Turn(NamedTuple):
    """How a player turns the coded pictures, in this order."""

    transpose: bool
    mirror: bool
    """Left and right."""
    upend: bool
    """Top and bottom."""


UPRIGHT = Turn(transpose=False, mirror=False, upend=False)


def turn_of(frame: "VideoFrame") -> Turn:
    """What a decoded picture's display matrix says.

    The matrix (a b u; c d v; x y w) takes a point (p, q) to (a p + c q, b p + d q) (ISO 14496-12, 6.2.2). For right
    angles the ffmpeg program (4.2.2) shows the same; it does not mirror. Other angles are left as coded here.
    """
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if a == d == 0 and b and c:
        return Turn(transpose=True, mirror=c < 0, upend=b < 0)
    if b == c == 0 and a and d:
        return Turn(transpose=False, mirror=a < 0, upend=d < 0)
    return UPRIGHT


def turned(frame: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """A coded picture (H, W, 3) as a player shows it: (H, W, 3), or (W, H, 3) where it is turned by a quarter."""
    if turn.transpose:
        frame = frame.transpose(1, 0, 2)
    return np.ascontiguousarray(frame[:: -1 if turn.upend else 1, :: -1 if turn.mirror else 1])

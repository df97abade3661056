"""What a zstd frame (RFC 8878) says of itself, looked at before it is decoded: no bomb goes off."""

from avvp_pipe.store.errors import StoreError

__all__ = ["check_frame"]


def check_frame(data: bytes, room: int) -> None:
    """Raise StoreError unless the data are one whole frame that decodes to at most `room` bytes."""
    declared = _frame_content_size(data[:18])
    if declared is None or declared > room:
        raise StoreError(f"a compressed piece says that it decodes to {declared} bytes; at most {room} belong there")
    if _frame_end(data) != len(data):
        raise StoreError("a compressed piece is cut off, or something follows it")


def _frame_content_size(head: bytes) -> int | None:
    """The decoded size in the header of a zstd frame (RFC 8878, section 3.1.1.1), None where it tells none.

    >>> _frame_content_size(bytes.fromhex("28b52ffd2005"))
    5
    """
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    place, width = _content_size_field(head[4])
    field = head[place : place + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


def _content_size_field(descriptor: int) -> tuple[int, int]:
    """Where the field of the content size begins in a frame, and how many bytes it has."""
    single_segment = descriptor >> 5 & 1
    place = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    return place, (single_segment, 2, 4, 8)[descriptor >> 6]


def _frame_end(data: bytes) -> int:
    """Where the first zstd frame ends (section 3.1.1.2), beyond the data where it is cut off.

    What comes after a frame would be decoded too, and nothing bounds that.

    >>> _frame_end(bytes.fromhex("28b52ffd2005 290000 68656c6c6f") + b"more")
    14
    """
    place = sum(_content_size_field(data[4]))
    last = False
    while not last and place < len(data):
        header = int.from_bytes(data[place : place + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        place += 3 + (1 if kind == 1 else size)  # kind 1: one byte, repeated
    return place + (4 if data[4] & 4 else 0)

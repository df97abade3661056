"""What the packets of an H.264 film say without being decoded: how pictures follow and need each other.

A packet of mp4, mov or mkv is one picture in units, each behind its length (ISO 14496-15, 5.3.4). The first byte of a
unit says what it is (H.264, 7.3.1), the first bits of a slice which picture it belongs to (7.3.3).
"""

__all__ = ["HEAD_BYTES", "frame_number", "frame_number_bits", "is_alone", "is_idr", "length_prefix", "units"]

HEAD_BYTES = 20
"""So much of a unit is looked at: a slice's head up to the number is at most 15 bytes long."""
SLICE, IDR_SLICE, SETTINGS = 1, 5, 7
SLICE_ALONE = 0x01
ALONE = {SLICE_ALONE, 0x06, 0x09, 0x0C}
"""First bytes of units that concern one picture only: of a picture that no other is made of (nal_ref_idc 0) a slice,
additional information, a delimiter, filler."""
PROFILES_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def length_prefix(head: bytes) -> int:
    """Bytes before each unit (lengthSizeMinusOne), by the film's head (avcC); 0 for films of another form."""
    return (head[4] & 3) + 1 if len(head) >= 5 and head[0] == 1 else 0


def is_idr(packet: bytes, prefix: int) -> bool:
    """Does a packet hold an IDR picture, behind which nothing reaches back?"""
    at = 0
    while at + prefix < len(packet):
        if packet[at + prefix] & 0x1F == IDR_SLICE:
            return True
        at += prefix + int.from_bytes(packet[at : at + prefix], "big")
    return False


def units(packet: memoryview, prefix: int) -> list[memoryview]:
    """The first HEAD_BYTES of each unit. Raises ValueError where their lengths are not the packet's."""
    found, at = [], 0
    while at < len(packet):
        begin = at + prefix
        at = begin + int.from_bytes(packet[at:begin], "big")
        if not begin < at <= len(packet):
            raise ValueError("a packet that is not whole")
        found.append(packet[begin : min(at, begin + HEAD_BYTES)])
    return found


def is_alone(parts: list[memoryview]) -> bool:
    """Are the units those of a picture that no other is made of?"""
    heads = {part[0] for part in parts}
    return SLICE_ALONE in heads and heads <= ALONE


def frame_number_bits(head: bytes) -> int:
    """How many bits the number of a frame has, by the film's head (avcC; 7.3.2.1); 0 for films of rare kinds.

    Those are films with several sets of parameters, scaling matrices or separate colour planes, and damaged ones.
    """
    if len(head) < 12 or head[5] & 0x1F != 1:
        return 0
    bits = _Bits(head[8 : 8 + int.from_bytes(head[6:8], "big")], skip=32)
    try:
        bits.pass_over(1)  # number of the parameters
        if head[9] in PROFILES_WITH_CHROMA:
            chroma = bits.number()
            bits.pass_over(2)  # depths
            if chroma == 3 or bits.take(2) & 1:
                return 0
        return bits.number() + 4
    except ValueError:
        return 0


def frame_number(parts: list[memoryview], number_bits: int) -> int:
    """frame_num of a picture (H.264, 7.4.3). Raises ValueError where there is none."""
    for part in parts:
        if part[0] & 0x1F in (SLICE, IDR_SLICE):
            bits = _Bits(bytes(part), skip=8)
            bits.pass_over(3)  # first block, type, parameters
            return bits.take(number_bits)
    raise ValueError("a packet without a picture")


class _Bits:
    """Reads the bits of a unit, one number after the other."""

    def __init__(self, unit: bytes, *, skip: int) -> None:
        whole = unit.replace(b"\0\0\3", b"\0\0")  # 7.4.1: the 3 keeps zeros from looking like a unit's beginning
        self._bits, self._at = bin(int.from_bytes(b"\1" + whole, "big"))[3:], skip

    def take(self, count: int) -> int:
        """`count` bits. Raises ValueError at the end, as `number` does."""
        self._at += count
        return int(self._bits[self._at - count : self._at], 2)

    def pass_over(self, numbers: int) -> None:
        """So many of what `number` reads."""
        for _ in range(numbers):
            self._at = 2 * self._bits.index("1", self._at) - self._at + 1

    def number(self) -> int:
        """ue(v), 9.1: zeros, and as many bits behind the one that ends them."""
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        return self.take(zeros + 1) - 1

"""What became of a clip: a closed set of codes, stored as small integers in the `status` array of an artifact."""

from enum import IntEnum

__all__ = ["CODES", "Status"]


class Status(IntEnum):
    """The numbers are stored; they are never changed, only added to."""

    PENDING = 0
    """Not looked at yet; never in a published artifact."""
    OK = 1
    MISSING_FILE = 2
    """Nothing there, or nothing that may be read."""
    EMPTY_FILE = 3
    NOT_A_VIDEO = 4
    """No container that can be read: text named .mp4, random bytes, a picture, a folder, a pipe."""
    NO_VIDEO_STREAM = 5
    """Sound only; a cover picture does not count as video."""
    NO_AUDIO_STREAM = 6
    """Pictures only."""
    CORRUPT = 7
    """The container reads, but its pictures or sound cannot be decoded, or the file breaks off."""
    TOO_LONG = 8
    """Beyond the limits on duration or size of pictures."""
    TIMEOUT = 9
    """Not decoded in the time allowed; the decoding process was killed."""
    DECODER_DIED = 10
    """The decoding process crashed, or was killed by somebody else (the kernel, where memory runs out)."""
    TOO_SHORT = 11
    """No frame at all, or clearly shorter than asked."""
    NON_FINITE = 12
    """The decoded sound holds NaN or infinite samples."""
    OUT_OF_MEMORY = 13
    """Decoding it takes more memory than allowed, or than there is."""

    @property
    def code(self) -> str:
        """As people read it.

        >>> Status.NO_AUDIO_STREAM.code
        'no-audio-stream'
        """
        return self.name.lower().replace("_", "-")


CODES = frozenset(status.code for status in Status)

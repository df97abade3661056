"""Why a clip could not be decoded."""

from avvp_pipe.store.status import Status

__all__ = ["ClipError", "Status", "in_words"]


class ClipError(Exception):
    """One clip cannot be decoded; the others are not concerned."""

    def __init__(self, status: Status, message: str) -> None:
        """`message`: what was found, and where it helps, what to do."""
        super().__init__(status, message)  # both, so that the error survives its way out of a worker process
        self.status = status
        self.message = message

    @property
    def code(self) -> str:
        """The status in words."""
        return self.status.code

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def in_words(error: Exception) -> str:
    """What FFmpeg says of a file, without its number for it and without the path, which our messages name already."""
    return getattr(error, "strerror", None) or str(error)

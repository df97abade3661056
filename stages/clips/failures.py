"""When to give up: `--max-failures 100` or `--max-failures 5%`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avvp_pipe.store import Failure

__all__ = ["FailureLimit", "TooManyFailuresError", "checked_limit", "failure_limit"]


class TooManyFailuresError(Exception):
    """More clips failed than were to be put up with; what is done is kept."""


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """At most so many clips may fail."""

    clips: int | None
    """None: any number."""

    def check(self, failed: int, latest: "Sequence[Failure]" = ()) -> None:
        """Raise TooManyFailuresError where more than the limit failed. latest: the last of them, for the message."""
        if self.clips is None or failed <= self.clips:
            return
        last = f"; the last: {latest[-1].video_id}, {latest[-1].code}: {latest[-1].message}" if latest else ""
        raise TooManyFailuresError(
            f"{failed} clips failed, and --max-failures allows {self.clips}{last}. What is done is kept: run the same "
            "command with a higher limit to go on, and when it is finished with --retry-failed to try them again"
        )


def failure_limit(text: str, clips: int) -> FailureLimit:
    """The limit for a run over so many clips: "" (none), a number, or a percentage. Raises ValueError.

    >>> failure_limit("5%", 11849)
    FailureLimit(clips=592)
    """
    if not text:
        return FailureLimit(None)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%|(\d+)", text)
    if not found or (found[1] and float(found[1]) > 100):
        raise ValueError(f"--max-failures {text!r} is neither a number of clips nor a percentage such as 5%")
    return FailureLimit(int(clips * float(found[1]) / 100) if found[1] else int(found[2]))


def checked_limit(text: str) -> str:
    """The text, if it is a limit: so that a wrong one is told before anything is done. Raises ValueError."""
    failure_limit(text, clips=0)
    return text

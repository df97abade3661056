"""Where units of media come from: videos that are decoded on the way, or a `media` artifact."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.clip import Sampling
from avvp_pipe.stages.media.gather import Clips, Decoding, media_units
from avvp_pipe.store import Failure
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["MediaSource", "StoredMedia", "Videos"]


class MediaSource(Protocol):
    """Media of N clips, unit by unit."""

    def units(self, units: Sequence[slice]) -> Generator[Unit]:
        """Media of these units, in order; clips that are not wanted are PENDING."""
        ...


@dataclass(frozen=True, slots=True)
class Videos:
    """Files to decode. Plain values: it can be sent to another process."""

    clips: Clips
    sampling: Sampling
    decoding: Decoding

    def units(self, units: Sequence[slice]) -> Generator[Unit]:
        """Decode the wanted clips of these units."""
        return media_units(self.clips, units, self.sampling, self.decoding)


@dataclass(frozen=True, slots=True)
class StoredMedia:
    """Media that were decoded before."""

    media: "Artifact"
    names: tuple[str, ...]
    """(N,) of the clips to read, which begin at row `first` of the artifact."""
    first: int
    wanted: NDArray[np.bool_]
    """(N,)."""

    def units(self, units: Sequence[slice]) -> Generator[Unit]:
        """Read these units; failures of decoding come along. Of a unit without a wanted clip there is only `status`."""
        failures = {one["video_id"]: Failure(**one) for one in self.media.provenance["failures"]}
        for unit in units:
            if not self.wanted[unit].any():
                yield Unit(unit, {"status": np.full(unit.stop - unit.start, Status.PENDING, np.uint8)})
                continue
            there = slice(self.first + unit.start, self.first + unit.stop)
            arrays = {name: self.media.rows(name, there) for name in ("frames", "audio", "audio_samples", "status")}
            arrays["status"] = np.where(self.wanted[unit], arrays["status"], np.uint8(Status.PENDING))
            rows = [row for row in range(unit.start, unit.stop) if self.wanted[row]]
            lost = tuple(failures[self.names[row]] for row in rows if self.names[row] in failures)
            yield Unit(unit, arrays, lost)

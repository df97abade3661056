"""What happens in one clip."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """One clip of T seconds."""

    video_id: str
    audio: NDArray[np.bool_]
    """(T, C) heard."""
    visual: NDArray[np.bool_]
    """(T, C) seen."""

    def __post_init__(self) -> None:
        if self.audio.shape != self.visual.shape or self.audio.ndim != 2:
            raise ValueError(
                f"what is heard and seen in {self.video_id} covers the same seconds and classes, but "
                f"{self.audio.shape = } and {self.visual.shape = }; cut both to (T, C)"
            )

    @property
    def seconds(self) -> int:
        """T."""
        return len(self.audio)

    @property
    def named(self) -> NDArray[np.bool_]:
        """(C,) classes that occur at all."""
        return np.asarray(self.audio.any(axis=0) | self.visual.any(axis=0))

"""The pictures of a clip without its sound, as decoding processes call it: what VALOR dumped with ffmpeg."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.clip import Sampling, decode_pictures
from avvp_pipe.stages.media.probe import check_file, index_video

SECONDS = 10


def prepare() -> None:
    """Load what decoding needs, first thing in a process."""
    import av  # noqa: F401


def pictures(path: Path) -> NDArray[np.uint8]:
    """Ten frames by VALOR's rule, made square."""
    check_file(path)
    return np.asarray(decode_pictures(path, index_video(path), seconds=SECONDS, sampling=Sampling())[1], np.uint8)

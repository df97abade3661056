"""Units embedded in this process, while others decode what comes next."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.embedding import Columns, Embedder, Embedding, Tick, load_embedder
from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.source import MediaSource

__all__ = ["local_executor"]


@dataclass(frozen=True, slots=True)
class _Local:
    embedder: Embedder
    columns: Columns

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float32]]:
        return self.embedder.texts(prompts)

    def units(
        self, source: MediaSource, units: Sequence[slice], lengths: NDArray[np.int32], tick: Tick
    ) -> Generator[Unit]:
        with closing(source.units(units)) as media:
            for unit in media:
                yield self.embedder.unit(unit, lengths[unit.rows], self.columns.segments, tick)


@contextmanager
def local_executor(recipe: Embedding, segments: int) -> Iterator[_Local]:
    """Both teachers, loaded in this process."""
    embedder = load_embedder(recipe)
    yield _Local(embedder, embedder.columns(segments))

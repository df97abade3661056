"""Units decoded and embedded on a Ray cluster: the same units, the same bits, as in one process.

    videos ──> tasks, a processor each: one unit ──> actors, a GPU each: both teachers ──> results, in order
               PROCESSORS + 2 * TEACHERS units at most are anywhere between the first arrow and the last

Media that were decoded before are read here and sent to the teachers. Ray's own retries are off: a unit whose worker
or node is lost begins again from its videos, whatever was lost; one that loses three workers in a row (or twelve
nodes) ends the run, for it would lose the next too.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.embedding import Columns, Embedding, Tick
from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.source import MediaSource

if TYPE_CHECKING:
    from avvp_pipe.stages.executors.ray_teachers import Crew

__all__ = ["ray_executor"]


@contextmanager
def ray_executor(recipe: Embedding, segments: int) -> Iterator["_OnRay"]:
    """Teachers on a cluster: RAY_ADDRESS, the one that `ray start` began here, or one for the time of this run.

    Raises ValueError where Ray is not installed, where the cluster has no place for a teacher, and where a node's
    packages or weights are not the driver's; ConnectionError where no cluster answers; ChildProcessError where
    teachers, or workers with one unit, are lost again and again.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("--executor ray needs Ray, which is not installed: pip install 'avvp-pipe[ray]'") from None
    from avvp_pipe.stages.executors.ray_cluster import connected
    from avvp_pipe.stages.executors.ray_teachers import Crew

    with connected(), closing(Crew(recipe, segments)) as crew:
        crew.first()
        yield _OnRay(crew)


@dataclass(frozen=True, slots=True)
class _OnRay:
    crew: "Crew"

    @property
    def columns(self) -> Columns:
        return self.crew.columns

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float32]]:
        return self.crew.texts(prompts)

    def units(
        self, source: MediaSource, units: Sequence[slice], lengths: NDArray[np.int32], tick: Tick
    ) -> Generator[Unit]:
        from avvp_pipe.stages.executors.ray_line import Line

        line = Line(self.crew, source, units, lengths, todo=list(range(len(units))))
        try:
            for due, rows in enumerate(units):
                while due not in line.done:
                    line.feed(due)
                    line.wait()
                tick(2 * int(lengths[rows].sum()))
                yield line.done.pop(due)
        finally:
            line.cancel()

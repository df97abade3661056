"""Where units are embedded: in this process, or on a cluster. Same units, same teachers, same bits."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avvp_pipe.stages.blocks.embedding import Columns, Embedding, Tick
    from avvp_pipe.stages.clips.units import Unit
    from avvp_pipe.stages.media.source import MediaSource

__all__ = ["Executor", "open_executor"]


class Executor(Protocol):
    """Teachers at work."""

    @property
    def columns(self) -> "Columns":
        """What `units` makes, and the scales of both teachers."""
        ...

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> "dict[str, NDArray[np.float32]]":
        """Event texts of every prompt set, by array name."""
        ...

    def units(
        self, source: "MediaSource", units: Sequence[slice], lengths: "NDArray[np.int32]", tick: "Tick"
    ) -> "Generator[Unit]":
        """Embed these units, in order. lengths: (N,) seconds of all clips; tick: told how many embeddings are done."""
        ...


def open_executor(name: str, recipe: "Embedding", segments: int) -> AbstractContextManager[Executor]:
    """`local` or `ray`. segments: T of the dataset. Raises ValueError where Ray is not installed."""
    if name == "ray":
        from avvp_pipe.stages.executors.on_ray import ray_executor

        return ray_executor(recipe, segments)
    from avvp_pipe.stages.executors.local import local_executor

    return local_executor(recipe, segments)

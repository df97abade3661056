"""Units on their way through a cluster: which are decoded, embedded, lost and done again."""

import heapq
import logging
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.executors.ray_cluster import decoding_places
from avvp_pipe.stages.executors.ray_nodes import cut, decode_unit
from avvp_pipe.stages.executors.ray_teachers import ACCIDENT, LOSSES, Crew, LostError, Teacher, outcome, wait_for
from avvp_pipe.stages.media.source import MediaSource, Videos

__all__ = ["Line"]

QUEUE = 2
"""Units that a teacher has: one it embeds, and one that is there when it is done."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Line:
    """Units on their way, by their place in `units`."""

    crew: Crew
    source: MediaSource
    units: Sequence[slice]
    lengths: NDArray[np.int32]
    todo: list[int]
    """A heap: what was lost comes before what is new."""
    decoding: dict[Any, tuple[int, Any]] = field(default_factory=dict)
    """The id of the node, once it is known -> the unit, and its media."""
    decoded: deque[tuple[int, Any, str]] = field(default_factory=deque)
    """Unit, media, and the node where they are."""
    embedding: dict[Any, tuple[int, Teacher]] = field(default_factory=dict)
    """Result -> the unit and who embeds it, for each teacher in order."""
    done: dict[int, Unit] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    def feed(self, due: int) -> None:
        """Begin what may be begun: decoding, not too far beyond the unit that is due, and embedding."""
        teachers = QUEUE * max(len(self.crew), 1)
        if isinstance(self.source, Videos):
            while self.todo and self.todo[0] < due + teachers + decoding_places():
                self._decode(self.source, heapq.heappop(self.todo))
        else:
            while self.todo and self.todo[0] < due + teachers:
                self._read(heapq.heappop(self.todo))
        self._hand_out()

    def _decode(self, videos: Videos, unit: int) -> None:
        rows = self.units[unit]
        task: Any = ray.remote(decode_unit).options(num_cpus=1, num_returns=2, max_retries=0)
        node, media = task.remote(cut(videos, rows), rows, self.crew.driver)
        self.decoding[node] = (unit, media)

    def _read(self, unit: int) -> None:
        with closing(self.source.units([self.units[unit]])) as media:
            self.decoded.append((unit, ray.put(next(media)), ""))

    def _hand_out(self) -> None:
        """Give what is decoded to the teachers with the least to do; among them, to one on the same node."""
        waiting = Counter(teacher for _, teacher in self.embedding.values())
        while self.decoded and (free := [one for one in self.crew.ready if waiting[one] < QUEUE]):
            unit, media, node = self.decoded.popleft()
            teacher = min(free, key=lambda one: (waiting[one], one.place != node))
            waiting[teacher] += 1
            result = teacher.actor.unit.remote(media, self.lengths[self.units[unit]])
            self.embedding[result] = (unit, teacher)

    def wait(self) -> None:
        """Until something is done or lost."""
        ready = wait_for([*self.decoding, *self.embedding, *self.crew.loading])
        if not ready:
            self.crew.top_up()
        for reference in ready:
            if reference in self.crew.loading:
                self.crew.settle(reference)
            elif reference in self.decoding:
                self._take_decoded(reference)
            elif reference in self.embedding:  # else it was lost with another
                self._take_embedded(reference)

    def _take_decoded(self, reference: Any) -> None:
        unit, media = self.decoding.pop(reference)
        try:
            self.decoded.append((unit, media, outcome(reference)))
        except LostError as error:
            self._again(unit, error)

    def _take_embedded(self, reference: Any) -> None:
        unit, teacher = self.embedding[reference]
        try:
            self.done[unit] = outcome(reference)
            del self.embedding[reference]
        except LostError as error:
            if not error.actor:
                del self.embedding[reference]
                self._again(unit, error)
            else:
                self._lost_teacher(teacher, error)

    def _lost_teacher(self, teacher: Teacher, error: LostError) -> None:
        blame = 1 if self.crew.stands(teacher) else ACCIDENT
        self.crew.lost(teacher)
        for result in [one for one, (_, whose) in self.embedding.items() if whose is teacher]:
            unit, _ = self.embedding.pop(result)
            self._again(unit, error, blame=blame)
            blame = 0  # the first was at work; those behind it had not begun

    def _again(self, unit: int, error: LostError, *, blame: float | None = None) -> None:
        """Begin a unit anew. Raises ChildProcessError where it lost too many workers."""
        rows = self.units[unit]
        clips = f"clips {rows.start} to {rows.stop - 1} (counted from 0)"
        losses = self.losses.get(unit, 0) + ((ACCIDENT if error.accident else 1) if blame is None else blame)
        if losses >= LOSSES:
            raise ChildProcessError(
                f"{LOSSES} workers of the Ray cluster in a row were lost with {clips}; the last: {error} What is done "
                "is kept. Do the nodes have enough memory? --executor local shows what happens"
            ) from error
        logger.warning("a worker of the Ray cluster was lost (%s); %s are done again", error, clips)
        self.losses[unit] = losses
        heapq.heappush(self.todo, unit)

    def cancel(self) -> None:
        """Leave nothing running."""
        for reference in self.decoding:
            ray.cancel(reference, force=True)

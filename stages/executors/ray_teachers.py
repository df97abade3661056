"""The teachers of a Ray cluster: one actor for each GPU, or, on CPUs, for each node; replaced where they are lost."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import NodeDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avvp_pipe.stages.blocks.embedding import Columns, Embedding
from avvp_pipe.stages.executors.ray_cluster import teacher_places
from avvp_pipe.stages.executors.ray_nodes import Setting, TeacherOnNode, setting, weights_digests
from avvp_pipe.stages.teachers import default_batch

__all__ = ["ACCIDENT", "LOSSES", "Crew", "LostError", "Teacher", "outcome", "wait_for"]

LOSSES = 3
"""So many workers lost in a row, starting a teacher or with one unit, are no accident."""
ACCIDENT = 0.25
"""How much of a loss it is to lose a worker with its node: nodes are taken away, too."""
LOOK_SECONDS = 10.0
"""How often to look for new nodes while nothing happens."""
THREADS = "OMP_NUM_THREADS"
"""Ray would set it to 1."""

logger = logging.getLogger(__name__)


class LostError(Exception):
    """The worker that had a call is gone, or what it was to read."""

    def __init__(self, error: RayError) -> None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        super().__init__(": ".join([type(error).__name__, *lines[:1]]))
        self.actor = isinstance(error, RayActorError)
        """Whether it was an actor, which is gone for other calls too."""
        self.accident = isinstance(error, NodeDiedError)
        """Whether the machine is gone, which is not the call's fault."""


def outcome(reference: Any) -> Any:
    """What a call returned. Raises what it raised, as it was, and LostError."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RayError):
            raise LostError(error.cause) from error
        raise error.cause from error
    except RayError as error:
        raise LostError(error) from error


def wait_for(references: Sequence[Any]) -> list[Any]:
    """Those that are there or lost, as soon as there is one; none after a while, or where nothing is under way."""
    if references:
        # Without fetching: what was decoded elsewhere need not come here.
        return ray.wait([*references], timeout=LOOK_SECONDS, fetch_local=False)[0]
    logger.warning("no node of the Ray cluster has a place for a teacher now; waiting for one")
    time.sleep(LOOK_SECONDS)
    return []


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """An actor, and the id of the node it was meant for."""

    actor: Any
    place: str


class Crew:
    """All teachers of a run. Those that are still loading become ready as their references do."""

    def __init__(self, recipe: Embedding, segments: int) -> None:
        """Start a teacher at each place. Raises ValueError where the cluster has none.

        recipe: device `auto` takes the cluster's GPUs if there are any, batch_size 0 what suits the device.
        """
        auto = recipe.device == "auto"
        cuda = bool(teacher_places(cuda=True)) if auto else recipe.device.startswith("cuda")
        if not teacher_places(cuda=cuda):
            what = "GPU" if cuda else "processor"
            raise ValueError(f"no node of the Ray cluster offers a {what}; add nodes, or choose another --device")
        device = "cuda:0" if cuda else "cpu"  # the one that Ray shows the actor
        self._recipe = replace(recipe, device=device, batch_size=recipe.batch_size or default_batch(device))
        self._digests = weights_digests(recipe)
        self._segments, self._cuda = segments, cuda
        self.driver: Setting = setting()
        self.ready: list[Teacher] = []
        self.loading: dict[Any, Teacher] = {}
        """What to wait for -> the teacher that is then ready, or lost."""
        self._failed_starts = 0
        self._columns: Columns | None = None
        self.top_up()

    @property
    def columns(self) -> Columns:
        """Of every teacher."""
        assert self._columns is not None, "no teacher was loaded"
        return self._columns

    def __len__(self) -> int:
        return len(self.ready) + len(self.loading)

    def top_up(self) -> None:
        """Start a teacher wherever one is missing: at first, after a loss, and on nodes that came later."""
        missing = Counter(teacher_places(cuda=self._cuda))
        missing.subtract(teacher.place for teacher in [*self.ready, *self.loading.values()])
        for place in missing.elements():
            teacher = Teacher(self._start(place), place)
            loaded = teacher.actor.load.remote(self._recipe, self._segments, self._digests, self.driver)
            self.loading[loaded] = teacher

    def _start(self, place: str) -> Any:
        threads = os.environ.get(THREADS) or str(torch.get_num_threads())
        return (
            ray.remote(TeacherOnNode)
            .options(
                num_cpus=0,  # its threads are its own affair, as they are in a local run
                num_gpus=1 if self._cuda else 0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place, soft=False),
                runtime_env={"env_vars": {THREADS: threads}},
            )
            .remote()
        )

    def settle(self, reference: Any) -> None:
        """Take note of a reference in `loading` that is there. Raises what loading raised."""
        teacher = self.loading.pop(reference)
        try:
            self._columns = outcome(reference)
        except LostError as error:
            self._dismiss(teacher)
            self._failed_starts += self.stands(teacher)
            if self._failed_starts >= LOSSES:
                raise ChildProcessError(
                    f"{LOSSES} processes in a row were lost while they loaded the teachers ({error}); do the nodes "
                    "have enough memory?"
                ) from error
            self.top_up()
        else:
            self._failed_starts = 0
            self.ready.append(teacher)

    def stands(self, teacher: Teacher) -> bool:
        """Whether the teacher's node is there: where it is gone too, the loss was an accident."""
        return teacher.place in teacher_places(cuda=self._cuda)

    def lost(self, teacher: Teacher) -> None:
        """Do without this teacher, and start another if its node is there."""
        self.ready.remove(teacher)
        self._dismiss(teacher)
        self.top_up()

    def first(self) -> None:
        """Wait until a teacher is ready. Raises what loading raised."""
        while not self.ready:
            for reference in wait_for([*self.loading]):
                self.settle(reference)
            if not self.loading:
                self.top_up()

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float32]]:
        """Event texts of every prompt set, by whoever is ready."""
        why: LostError | None = None
        for _ in range(LOSSES):
            self.first()
            teacher = self.ready[0]
            try:
                found: dict[str, NDArray[np.float32]] = outcome(teacher.actor.texts.remote(prompts))
                return found
            except LostError as error:
                self.lost(teacher)
                why = error
        raise ChildProcessError(f"{LOSSES} processes in a row were lost while they embedded the event texts ({why})")

    def _dismiss(self, teacher: Teacher) -> None:
        ray.kill(teacher.actor)

    def close(self) -> None:
        """End all of them."""
        for teacher in [*self.ready, *self.loading.values()]:
            self._dismiss(teacher)
        self.ready, self.loading = [], {}

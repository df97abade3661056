"""What a dry run says before a long run: clips, missing files, bytes, and the time that a measured sample suggests.

Up to four clips, spread over those that are there, are decoded by one process and embedded with the chosen teachers,
on this machine, and thrown away. Of the seconds of one clip, d to decode and e to embed, a run takes

    on a GPU       max(d / workers, e)                   decoding goes on meanwhile
    on a CPU       max(d / workers, e + d / processors)  decoding and embedding share the processors
    decode alone   d / workers

and once for all the time to load the teachers and to embed the texts. Writing is not counted.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.clips.parts import part_of
from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.clips.videos import video_digests
from avvp_pipe.stages.stage import Inputs, Progress
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.embedding import Embedder, Embedding

__all__ = ["ABSENT", "SAMPLE_CLIPS", "Plan", "clip_digests", "decoding_estimate", "embedding_estimate", "sample_rows"]

ABSENT = "missing"
"""What stands for the digest of a file that is not there (`digests.py`)."""
SAMPLE_CLIPS = 4
SAMPLE_TEXTS = 4
PATIENCE_SECONDS = 20.0
"""Where embedding all sampled clips would take longer than this, the first stands for them."""

Prompts = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """N clips that a stage is going to look at."""

    make: "Callable[[Sequence[slice]], Generator[Unit]]"
    """Media of some of them, made by one process."""
    digests: Sequence[str]
    """(N,) of their files."""
    lengths: NDArray[np.int32]
    """(N,) seconds."""
    segments: int
    """T of the whole dataset."""
    workers: int
    """Decoding processes of the real run; 0: nothing is decoded, or this process does it."""
    progress: Progress


@dataclass(slots=True)
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the time that the block takes."""
        begun = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - begun

    def take(self, *names: str) -> list[float]:
        """Seconds under these names, which then begin at nothing again."""
        return [self.seconds.pop(name, 0.0) for name in names]


def clip_digests(inputs: Inputs, params: Any) -> list[str]:
    """Digest of each clip's file, as `decode` and `extract` with these parameters would find it now."""
    dataset = inputs["dataset"]
    rows = part_of(params.shard).rows(len(dataset.strings("video_ids")))
    if "media" in inputs:
        return list(inputs["media"].strings("video_digests")[rows])
    return video_digests(dataset, params.videos, rows)


def sample_rows(digests: Sequence[str]) -> list[int]:
    """Up to four clips whose files are there, from the first to the last.

    >>> sample_rows(["a", "b", "missing", "c", "d", "e", "f"])
    [0, 3, 4, 6]
    """
    present = [row for row, digest in enumerate(digests) if digest != ABSENT]
    places = np.linspace(0, len(present) - 1, min(SAMPLE_CLIPS, len(present))).round()
    return [present[int(place)] for place in places]


def decoding_estimate(plan: Plan, columns: Mapping[str, tuple[tuple[int, ...], str, float]]) -> dict[str, Any]:
    """Estimate of media. columns: array -> shape of a clip's row, dtype, fill.

    What is compressed (all but floating-point arrays) is taken to shrink as the sample does.
    """
    rows = sample_rows(plan.digests)
    units, decode = _sampled_media(plan, rows)
    sizes = []
    for name, (shape, dtype, _) in columns.items():
        row = math.prod(shape) * np.dtype(dtype).itemsize
        sizes.append(row if dtype.startswith("float") else row * _shrinking([unit.arrays[name] for unit in units]))
    each = {"decode": decode * _longer(plan, rows)}
    return _document(plan, units, int(sum(sizes) * len(plan.digests)), "cpu", {}, each)


def embedding_estimate(plan: Plan, recipe: "Embedding", prompts: Prompts, *, itemsize: int) -> dict[str, Any]:
    """Estimate of features, whose numbers take `itemsize` bytes. Raises ValueError where teachers cannot be loaded."""
    from avvp_pipe.stages.blocks.embedding import load_embedder

    clock = _Clock()
    with clock.of("load"):
        embedder = load_embedder(recipe)
    columns = embedder.columns(plan.segments)
    row = sum(math.prod(shape) for shape in columns.shapes.values())
    widths = embedder.seer.width + embedder.hearer.width
    texts = sum(len(kinds["visual"]) for kinds in prompts.values()) * widths
    rows = sample_rows(plan.digests)
    units, decode = _sampled_media(plan, rows)
    once = {"load": clock.seconds["load"], "texts": _text_seconds(embedder, prompts)}
    embedding = _embedding_seconds(embedder, units, plan.lengths[rows], plan.segments)
    each = {name: seconds * _longer(plan, rows) for name, seconds in {"decode": decode, **embedding}.items()}
    return _document(plan, units, (row * len(plan.digests) + texts) * itemsize, recipe.device, once, each)


def _document(
    plan: Plan, units: Sequence[Unit], size: int, device: str, once: Mapping[str, float], each: Mapping[str, float]
) -> dict[str, Any]:
    """clips, missing_files, bytes, device, workers; sample: how many were measured and what failed among them;

    seconds: `once` and `each` (of one clip), in their parts, and `clip`, what each adds to the whole run. None where
    no sampled clip could be decoded.
    """
    failures = [
        {"video_id": one.video_id, "code": one.code, "message": one.message} for u in units for one in u.failures
    ]
    whole = len(units) > len(failures)
    rest = sum(each.values()) - each["decode"]
    workers, processors = max(plan.workers, 1), len(os.sched_getaffinity(0))
    shared = rest + each["decode"] / processors if rest and not device.startswith("cuda") else rest
    clip = max(each["decode"] / workers, shared) if plan.workers else sum(each.values())
    seconds = {"once": dict(once), "each": dict(each), "clip": clip}
    return {
        "clips": len(plan.digests),
        "missing_files": sum(digest == ABSENT for digest in plan.digests),
        "bytes": size,
        "device": device,
        "workers": plan.workers,
        "sample": {"clips": len(units), "failures": failures},
        "seconds": seconds if whole else None,
    }


def _sampled_media(plan: Plan, rows: Sequence[int]) -> tuple[list[Unit], float]:
    """Units of one clip each, and the seconds that one took. The first is made twice: a process has to start for it."""
    if not rows:
        return [], 0.0
    plan.progress.note(f"measuring on {len(rows)} of {len(plan.digests)} clips")
    with closing(plan.make([slice(row, row + 1) for row in (rows[0], *rows)])) as made:
        next(made)
        begun = time.perf_counter()
        units = list(made)
        return units, (time.perf_counter() - begun) / len(rows)


def _embedding_seconds(
    embedder: "Embedder", units: Sequence[Unit], lengths: NDArray[np.int32], segments: int
) -> dict[str, float]:
    """Seconds of one clip in the image model, the audio model, and between them."""
    clock, parts = _Clock(), ("vision", "sound", "all")
    good = [place for place, unit in enumerate(units) if unit.arrays["status"][0] == Status.OK]
    if not good:
        return dict.fromkeys(("vision", "sound", "other"), 0.0)
    timed = dataclasses.replace(
        embedder,
        seer=cast(Any, _Timed(embedder.seer, clock, {"images": "vision"})),
        hearer=cast(Any, _Timed(embedder.hearer, clock, {"sounds": "sound", "maps": "sound"})),
    )
    count = 1
    with clock.of("all"):
        timed.unit(units[good[0]], lengths[good[:1]], segments)
    if len(good) > 1 and clock.seconds["all"] * len(good) < PATIENCE_SECONDS:
        clock.take(*parts)  # the first time is slower than the others
        joined, count = _joined([units[place] for place in good]), len(good)
        with clock.of("all"):
            timed.unit(joined, lengths[good], segments)
    vision, sound, whole = (seconds / count for seconds in clock.take(*parts))
    return {"vision": vision, "sound": sound, "other": max(whole - vision - sound, 0.0)}


def _joined(units: Sequence[Unit]) -> Unit:
    arrays = {name: np.concatenate([unit.arrays[name] for unit in units]) for name in units[0].arrays}
    return Unit(slice(0, len(units)), arrays)


def _text_seconds(embedder: "Embedder", prompts: Prompts) -> float:
    """Seconds that all texts would take, from a few of the first prompt set."""
    total = sum(len(texts) for kinds in prompts.values() for texts in kinds.values())
    if not total:
        return 0.0
    few = {kind: list(texts)[:SAMPLE_TEXTS] for kind, texts in next(iter(prompts.values())).items()}
    clock = _Clock()
    with clock.of("texts"):
        embedder.texts({"sample": few})
    return clock.seconds["texts"] * total / sum(len(texts) for texts in few.values())


def _longer(plan: Plan, rows: Sequence[int]) -> float:
    """How much longer a clip of the whole is than one of the sample."""
    return float(plan.lengths.mean() / max(plan.lengths[rows].mean(), 1)) if rows else 1.0


def _shrinking(arrays: Sequence[NDArray[Any]]) -> float:
    """Share that is left of these arrays when they are compressed as the store does; 1 where there are none."""
    from numcodecs.zstd import Zstd

    raw = sum(array.nbytes for array in arrays)
    return sum(len(Zstd(level=0).encode(np.ascontiguousarray(array))) for array in arrays) / raw if raw else 1.0


class _Timed:
    """Another object, of which some methods are timed."""

    def __init__(self, other: Any, clock: _Clock, methods: Mapping[str, str]) -> None:
        self._other, self._clock, self._methods = other, clock, methods

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._other, name)
        return self._timed(found, self._methods[name]) if name in self._methods else found

    def _timed(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self._clock.of(what):
                return call(*arguments)

        return timed

"""The project's way from videos to features, bench_extract.py's own side, in a process of its own.

A manifest, `dataset`, and `extract` straight from the videos, through the runner as a command does it, with these
parameters of `extract` (JSON). What the stages do once (loading teachers, their digests, event texts) is not timed: the
clock starts when the first video is asked for and stops when the artifact is there. Starting decoding processes counts.
Ten frames and sounds go through the teachers before, as on the other side.

    python tests/bench/by_stage.py CLIP COUNT PARAMETERS OUT
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.embedding import load_embedder
from avvp_pipe.stages.clips.units import KeptUnits
from avvp_pipe.stages.media.gather import media_units
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Builder, Store

WARM = 10


class Spent:
    """Seconds by what they were spent on, and when the first video was asked for."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("waiting for decoding", "CLIP", "CLAP", "write"), 0.0)
        self.began = 0.0

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start

    def calls(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def counted(*arguments: Any, **options: Any) -> Any:
            with self.on(what):
                return function(*arguments, **options)

        return counted

    def units(self, made: Callable[..., Generator[Any]]) -> Callable[..., Generator[Any]]:
        """A generator of units whose every next one is waited for; the first asked for starts the clock."""

        def counted(*arguments: Any, **options: Any) -> Generator[Any]:
            self.began = time.perf_counter()
            units = made(*arguments, **options)
            while True:
                with self.on("waiting for decoding"):
                    unit = next(units, None)
                if unit is None:
                    return
                yield unit

        return counted


class Watched:
    """A teacher one of whose methods is counted."""

    def __init__(self, teacher: Any, method: str, counted: Callable[..., Any]) -> None:
        self._teacher = teacher
        setattr(self, method, counted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._teacher, name)


@contextmanager
def watched(spent: Spent) -> Iterator[None]:
    """Within the block, the parts of `extract` are counted."""

    def load(recipe: Any) -> Any:
        found = load_embedder(recipe)
        found.seer.images(np.zeros((WARM, found.seer.image_size, found.seer.image_size, 3), np.uint8))
        found.hearer.sounds(np.zeros((WARM, found.hearer.sample_rate), np.float32))
        seer = Watched(found.seer, "images", spent.calls("CLIP", found.seer.images))
        hearer = Watched(found.hearer, "sounds", spent.calls("CLAP", found.hearer.sounds))
        return dataclasses.replace(found, seer=seer, hearer=hearer)

    with ExitStack() as stack:
        stack.enter_context(mock.patch("avvp_pipe.stages.executors.local.load_embedder", load))
        stack.enter_context(mock.patch("avvp_pipe.stages.media.source.media_units", spent.units(media_units)))
        for where, name in ((KeptUnits, "keep"), (Builder, "write")):
            stack.enter_context(mock.patch.object(where, name, spent.calls("write", getattr(where, name))))
        yield


def manifest(path: Path, clip: Path, count: int) -> Path:
    """One clip under so many names."""
    lines = [{"id": f"clip{row:07d}", "path": str(clip), "split": "train", "labels": ["Dog"]} for row in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def main(clip: Path, count: int, params: Mapping[str, Any], out: Path) -> None:
    """Extract the same clip so many times; write features of all, and the seconds they took."""
    store, spent = Store(out / "store"), Spent()
    made = {"source": str(manifest(out / "clips.jsonl", clip, count))}
    run_step(store, Step("dataset", "bench", made), progress=Silent())
    with watched(spent):
        step = Step("extract", "bench", params, {"dataset": "dataset/bench"})
        found = run_step(store, step, progress=Silent()).artifact
    ended = time.perf_counter()
    for row in range(count):
        np.savez(out / f"{row}.npz", visual=found.array("visual")[row], audio=found.array("audio")[row])
    (out / "seconds.json").write_text(json.dumps({"all": ended - spent.began, **spent.seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4]))

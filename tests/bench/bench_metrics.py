"""How much faster the vectorised evaluator is than the plain loops, side by side in one run.

1,200 clips of ten seconds and 25 classes, as in LLP's test split.  Two worlds: `sparse` marks as many
seconds as LLP does, where loops have little to do; `dense` marks half of them.  Exits 1 below a factor
of ten in either.

    python tests/bench/bench_metrics.py
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.metrics import avvp_scores

CLIPS, SEGMENTS, CLASSES = 1200, 10, 25
WANTED = 10.0
REPEATS = 5


def load_reference() -> Any:
    """The loop-written evaluator beside the tests, which are no package to import from."""
    path = Path(__file__).parents[1] / "reference_metrics.py"
    spec = importlib.util.spec_from_file_location("reference_metrics", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module at {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def world(density: float) -> list[NDArray[np.bool_]]:
    """Predicted and true audio and visual labels, each second of each class on with this probability."""
    random = np.random.default_rng(0)
    return [random.random((CLIPS, SEGMENTS, CLASSES)) < density for _ in range(4)]


def best_seconds(function: Callable[..., object], arrays: list[NDArray[np.bool_]], repeats: int) -> float:
    """The shortest of several runs, the one least disturbed."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arrays)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> int:
    """Time both, print a line for each world, and say by the exit code whether the factor is reached."""
    reference = load_reference()
    ratios = []
    for name, density in (("sparse", 0.05), ("dense", 0.5)):
        arrays = world(density)
        loops = best_seconds(reference.official_scores, arrays, 2)
        vectorised = best_seconds(avvp_scores, arrays, REPEATS)
        ratios.append(loops / vectorised)
        print(
            f"metrics, {name}: loops {loops:.2f} s, vectorised {vectorised:.3f} s, "
            f"{ratios[-1]:.0f} times as fast (at least {WANTED:.0f} wanted)"
        )
    return 0 if min(ratios) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())

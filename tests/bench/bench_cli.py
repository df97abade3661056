"""How long the commands take that people type all day, side by side with what an issue wants of them.

    python tests/bench/bench_cli.py [FOLDER]

Renders the tiny demo into FOLDER (a new one where left out), fills its store up to 200 artifacts with labels and
scores of other parameters, and times each command in a process of its own: the best and the median of five, and the
least time of a processor, which neighbours disturb less.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Store

ARTIFACTS = 200
TIMES = 5
PROGRAM = (sys.executable, "-c", "from avvp_pipe.cli.start import main; main()")
TARGET = {"dataset": "dataset/target", "features": "features/target"}


def main() -> None:
    """Prepare the store, then time."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "demo"
    call("demo", "--out", str(out), "--size", "tiny", "--quiet")
    store = Store(out / "artifacts")
    fill(store)
    config, all_ = out / "demo.yaml", out / "all.yaml"
    for path in (config, all_):
        path.unlink(missing_ok=True)
    call("config", "init", "--demo", str(out), "--size", "tiny", "--out", str(config))
    call("config", "init", "--of-store", "--store", str(store.root), "--out", str(all_))
    count, steps = sum(1 for _ in store.artifacts()), "the demo's 44 steps"
    print(f"{count} artifacts\n\n{'command':48}{'best':>8}{'median':>8}{'cpu':>8}{'wanted':>8}")
    for told, wanted, words in (
        ("--help", 0.5, ["--help"]),
        (f"status, {count} artifacts", 1.0, ["status", "--store", str(store.root)]),
        (f"run that has nothing to do, {steps}", 3.0, ["run", str(config), "--quiet"]),
        (f"run that has nothing to do, {count} steps", None, ["run", str(all_), "--quiet"]),
        (f"run --dry-run, {count} steps", None, ["run", str(all_), "--dry-run", "--quiet"]),
        (
            "compare two labels, 10,000 draws",
            None,
            ["compare", "labels/uwav", "labels/valor", "--store", str(store.root)],
        ),
    ):
        seconds, cpu = zip(*(timed(words) for _ in range(TIMES)), strict=True)
        figures = f"{min(seconds):8.2f}{statistics.median(seconds):8.2f}{min(cpu):8.2f}"
        print(f"{told:48}{figures}{wanted or '':>8}", flush=True)


def fill(store: Store) -> None:
    """Labels of other temperatures, and their scores, until there are enough artifacts."""
    have = {str(one.reference).partition("@")[0] for one in store.artifacts()}
    for place in range((ARTIFACTS - len(have) + 1) // 2):
        name = f"more-{place}"
        params = {"method": "valor", "temperature": 1 + place / 100}
        inputs = {**TARGET, "thresholds": "thresholds/valor"}
        run_step(store, Step("pseudolabel", name, params, inputs), progress=Silent())
        scored = {"predictions": f"labels/{name}", "dataset": "dataset/target"}
        run_step(store, Step("evaluate", name, {}, scored), progress=Silent())


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds of one command, start of the process included, and seconds of a processor that it took."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    call(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def call(*words: str) -> None:
    """Run a command; 1 is what `status` says of steps that are not cached."""
    done = subprocess.run([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")


if __name__ == "__main__":
    main()

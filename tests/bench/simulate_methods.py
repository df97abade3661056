"""Every label generator on simulated teachers, as one table: mean and spread over seeds. Run by hand.

    python tests/bench/simulate_methods.py --llp FOLDER --unav FILE [--store FOLDER] [--seeds 0,1,2] [--ablations]

Real annotations of LLP and UnAV-100, simulated features: no video was looked at, and no row says how good CLIP or CLAP
are. Each seed is another simulation: another world, other clips, other initial weights. All goes through the same steps
as single commands; what the store holds is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, Store

TEN = [(level, metric) for level in ("segment", "event") for metric in ("A", "V", "AV", "Type", "Event")]
BOTH = ("uwav", "ear")
VALIDATION_VIDEOS = 300
"""Of UnAV-100's validation split, for choosing the best epoch."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    method: str
    generators: tuple[str, ...] = ()
    calibrate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> Iterator[tuple[str, str]]:
        """Role and generator."""
        return zip(("generator", "second_generator"), self.generators, strict=False)


ROWS = (
    Row("video-labels", "video-labels"),
    Row("zero-shot", "zero-shot"),
    Row("valor", "valor"),
    Row("smooth", "smooth"),
    Row("uwav", "uwav", ("uwav",)),
    Row("ear", "ear", ("ear",)),
    Row("stack", "stack", BOTH),
)
SHARES = tuple(
    Row(f"{method}, {share:g} of validation", method, generators, {"share": share})
    for share in (0.5, 0.25, 0.1)
    for method, generators in (("stack", BOTH), ("valor", ()))
)
ABLATIONS = (
    Row("stack, static only", "stack"),
    Row("stack, with uwav only", "stack", ("uwav",)),
    Row("stack, with ear only", "stack", ("ear",)),
    Row("stack, one cut by micro F1", "stack", BOTH, {"stack_cuts": "sweep"}),
    Row("stack, same weights for all classes", "stack", BOTH, {"stack_spread": 0.0}),
    Row("smooth, thresholds as zero-shot", "smooth", (), {"mode": "class-agnostic"}),
    Row("valor, published thresholds", "valor", (), {"source": "published"}),
)


def subset(source: Path, folder: Path, videos: int) -> Path:
    """UnAV-100 with so many training videos and a few hundred for validation, drawn by their ids."""
    path = folder / f"unav100-{videos}.json"
    if not path.exists():
        document = json.loads(source.read_text())
        left = {"train": videos, "validation": VALIDATION_VIDEOS, "test": 0}
        every = document["database"]
        kept = set()
        for name in sorted(every, key=lambda name: hashlib.sha256(name.encode()).digest()):
            if left[every[name]["subset"]] > 0:
                left[every[name]["subset"]] -= 1
                kept.add(name)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**document, "database": {name: every[name] for name in every if name in kept}}))
    return path


def built(store: Store, stage: str, name: str, params: Mapping[str, Any], **inputs: str) -> Artifact:
    outcome = run_step(store, Step(stage, name, params, inputs), progress=Silent())
    print(f"{outcome.state:7}{outcome.artifact.reference} {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    return outcome.artifact


def prepare(store: Store, seed: int, network: Mapping[str, Any], generators: set[str]) -> None:
    """Simulate both sets and pre-train these generators."""
    for name in ("llp", "unav"):
        built(store, "simulate", f"{name}-{seed}", {"seed": seed, "world": seed}, dataset=f"dataset/{name}")
    for method in sorted(generators, key=BOTH.index):
        params = {**network, "method": method, "seed": seed}
        inputs = {"dataset": "dataset/unav", "features": f"features/unav-{seed}", "apart_from": "dataset/llp"}
        built(store, "pretrain", f"{method}-{seed}", params, **inputs)


def scored(store: Store, row: Row, seed: int) -> Artifact:
    """Calibrate, label, evaluate."""
    name = f"{row.name.replace(' ', '-').replace(',', '').replace('.', '_')}-{seed}"
    inputs = {"dataset": "dataset/llp", "features": f"features/llp-{seed}"}
    inputs |= {role: f"generator/{generator}-{seed}" for role, generator in row.inputs}
    if row.method != "video-labels":
        params = {"method": row.method, "seed": seed, **row.calibrate}
        built(store, "calibrate", name, params, **inputs)
        inputs["thresholds"] = f"thresholds/{name}"
    built(store, "pseudolabel", name, {"method": row.method}, **inputs)
    return built(store, "evaluate", name, {}, predictions=f"labels/{name}", dataset="dataset/llp")


def numbers(scores: Artifact, split: str) -> NDArray[np.float64]:
    """The ten metrics, their mean, and the calibration errors of audio and vision (NaN where there is none)."""
    one = next(one for one in scores.attrs["scores"] if one["split"] == split)
    ten = [one["of"][level][metric] for level, metric in TEN]
    errors = [one["calibration_error"].get(sense) for sense in ("audio", "visual")]
    return np.array([*ten, np.mean(ten), *(np.nan if error is None else error for error in errors)])


def table(found: Mapping[str, NDArray[np.float64]], split: str, facts: str) -> Iterator[str]:
    """Markdown: a row a method, mean and standard deviation over seeds."""
    head = [*(f"{level[:3]} {metric}" for level, metric in TEN), "mean of ten", "ECE A", "ECE V"]
    yield f"\n**Simulation**, not a measurement on videos: {split} split of LLP's real annotations, {facts}.\n"
    yield f"| labels | {' | '.join(head)} |"
    yield f"|---|{'---|' * len(head)}"
    for name, seeds in found.items():
        mean, spread = seeds.mean(axis=0), seeds.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(seeds.shape[1])
        cells = [f"{a:.1f} ± {b:.1f}" for a, b in zip(mean[:-2], spread[:-2], strict=True)]
        cells += ["-" if np.isnan(a) else f"{a:.3f} ± {b:.3f}" for a, b in zip(mean[-2:], spread[-2:], strict=True)]
        yield f"| {name} | {' | '.join(cells)} |"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llp", type=Path, required=True, help="folder of LLP's six annotation files")
    parser.add_argument("--unav", type=Path, required=True, help="UnAV-100's annotation file")
    parser.add_argument("--store", type=Path, default=Path("simulated-store"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="", help="rows to make, between semicolons; all where left out")
    parser.add_argument("--shares", action="store_true", help="also with half, a quarter, a tenth of validation")
    parser.add_argument("--ablations", action="store_true", help="also parts of stack, and other thresholds")
    parser.add_argument("--stack-inputs", action="append", default=[], help="also stack with these kinds of inputs")
    parser.add_argument("--videos", type=int, default=3000, help="of UnAV-100, for pre-training")
    for name, value in (("width", 256), ("heads", 4), ("ffn", 512), ("layers", 3), ("epochs", 12), ("warmup", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    store = Store(given.store)
    source = subset(given.unav, given.store / "sources", given.videos)
    built(store, "dataset", "llp", {"reader": "llp", "source": str(given.llp)})
    built(store, "dataset", "unav", {"reader": "unav", "source": str(source)})
    sizes = ("width", "heads", "ffn", "layers", "epochs", "warmup", "learning_rate")
    network = {name: getattr(given, name) for name in sizes}
    every = [*ROWS, *(SHARES if given.shares else ()), *(ABLATIONS if given.ablations else ())]
    every += [Row(f"stack, {kinds} only", "stack", BOTH, {"stack_inputs": kinds}) for kinds in given.stack_inputs]
    asked = [name.strip() for name in given.methods.split(";") if name.strip()]
    if strange := set(asked) - {row.name for row in every}:
        raise SystemExit(f"no row {strange.pop()!r}; there are {'; '.join(row.name for row in every)}")
    rows = [row for row in every if not asked or row.name in asked]
    seeds = [int(seed) for seed in given.seeds.split(",")]
    found: dict[str, list[Artifact]] = {row.name: [] for row in rows}
    for seed in seeds:
        prepare(store, seed, network, {name for row in rows for name in row.generators})
        for row in rows:
            found[row.name].append(scored(store, row, seed))
    facts = f"seeds {given.seeds}, generators of width {given.width} and {given.layers} layers pre-trained on "
    facts += f"{given.videos} simulated UnAV-100 videos for {given.epochs} epochs"
    for split in ("test", "val"):
        of_split = {name: np.array([numbers(one, split) for one in scores]) for name, scores in found.items()}
        print("\n".join(table(of_split, split, facts)))


if __name__ == "__main__":
    main()

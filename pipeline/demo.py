"""The demo: every stage, from rendered mp4 files to a table of scores, through the same steps as single commands.

    world/ (mp4 files, two manifests) -> artifacts/ (the store) -> one table

Two sets are rendered, related as LLP and UnAV-100 are: a target set with weak labels, and a pre-training set of
longer clips labelled second by second, with classes of its own. Sizes fit two processor cores and minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.pipeline.settings import settings_of
from avvp_pipe.stages.stage import Progress, make_params
from avvp_pipe.store import Store

Size = Literal["tiny", "small", "full"]
TEACHERS = {"visual_teacher": "tiny-clip", "audio_teacher": "tiny-clap"}
MEDIA = {"frame_size": 64, "sample_rate": 16000, "audio_dtype": "int16"}
LABELS: Mapping[str, Mapping[str, str]] = {
    "video-labels": {},
    "zero-shot": {},
    "valor": {},
    "smooth": {},
    "uwav": {"generator": "generator/pretrain"},
    "ear": {"generator": "generator/pretrain-ear"},
    "stack": {"generator": "generator/pretrain", "second_generator": "generator/pretrain-ear"},
}
"""Every method, and the temporal generators it runs."""
PARSERS: Mapping[str, Mapping[str, Any]] = {
    "weak": {"targets": "weak", "reweight": "none", "mixup": "none"},
    "hard": {"targets": "hard", "reweight": "none", "mixup": "none"},
    "soft": {"targets": "soft", "reweight": "none", "mixup": "none"},
    "reweighted": {"targets": "soft", "reweight": "code", "mixup": "none"},
    "mixup": {"targets": "soft", "reweight": "none", "mixup": "soft"},
    "full": {"targets": "soft", "reweight": "code", "mixup": "soft"},
    "ear": {"parser": "ear", "widths": "features", "targets": "soft"},
    "coleaf": {"parser": "coleaf", "widths": "features", "targets": "soft", "schedule": "cosine"},
}
"""HAN on weak labels only, then on UWAV's labels, as in its ablation: hard, soft, with re-weighting, with mixup, with
both. Then the other parsers on the same labels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long to train at a size."""

    generator: Mapping[str, Any]
    parser: Mapping[str, Any]


SMALL_NETWORK = {"width": 128, "heads": 4, "ffn": 256, "layers": 2}
RECIPES: Mapping[str, Recipe] = {
    "tiny": Recipe(
        generator={**SMALL_NETWORK, "width": 32, "epochs": 2, "warmup": 1, "learning_rate": 1e-3},
        parser={**SMALL_NETWORK, "width": 32, "epochs": 2, "warmup": 1, "learning_rate": 1e-3},
    ),
    "small": Recipe(
        generator={**SMALL_NETWORK, "epochs": 24, "warmup": 3, "learning_rate": 1e-3, "train_batch": 16},
        parser={**SMALL_NETWORK, "epochs": 15, "warmup": 2, "learning_rate": 1e-3, "train_batch": 16},
    ),
    "full": Recipe(
        generator={**SMALL_NETWORK, "epochs": 25, "warmup": 3, "learning_rate": 1e-3, "train_batch": 16},
        parser={**SMALL_NETWORK, "epochs": 30, "warmup": 3, "learning_rate": 1e-3, "train_batch": 32},
    ),
}


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of the demo's table."""

    what: str
    """labels or parser."""
    method: str
    split: str
    segment: Mapping[str, float]
    event: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo left behind."""

    outcomes: tuple[Outcome, ...]
    scores: tuple[Scored, ...]


def render_videos(out: Path, *, size: Size, seed: int, workers: int, progress: Progress) -> Any:
    """Render the demo's videos and manifests into `out`, or find them there."""
    from avvp_pipe.stages.datasets.rendered import render_world

    return render_world(out, size=size, seed=seed, workers=workers, progress=progress)


def plan(world: Path, *, size: Size, seed: int, settings: Sequence[str] = ()) -> tuple[Step, ...]:
    """All steps of the demo, in order. `settings`: STAGE.PARAMETER=VALUE, as given on the command line.

    Raises ParameterError for a setting that names no stage.
    """
    changed = settings_of(settings)
    steps = [*_prepare(world), *_label(size, seed), *_train(size, seed)]
    return tuple(
        Step(step.stage, step.name, {**step.params, **changed.get(step.stage, {})}, step.inputs) for step in steps
    )


def _prepare(world: Path) -> list[Step]:
    steps = []
    for name in ("target", "pretrain"):
        mine = {"dataset": f"dataset/{name}"}
        steps += [
            Step("dataset", name, {"reader": "manifest", "source": str(world / f"{name}.jsonl")}),
            Step("decode", name, MEDIA, mine),
            Step("extract", name, TEACHERS, {**mine, "media": f"media/{name}"}),
        ]
    return steps


def _label(size: Size, seed: int) -> list[Step]:
    target = {"dataset": "dataset/target", "features": "features/target"}
    source = {"dataset": "dataset/pretrain", "features": "features/pretrain"}
    training = {**RECIPES[size].generator, "seed": seed}
    steps = [
        Step("pretrain", "pretrain", training, source),
        Step("pretrain", "pretrain-ear", {**training, "method": "ear"}, source),
    ]
    for method, generators in LABELS.items():
        own = dict(generators)
        if method != "video-labels":
            steps.append(Step("calibrate", method, {"method": method}, {**target, **own}))
            own |= {"thresholds": f"thresholds/{method}"}
        steps.append(Step("pseudolabel", method, {"method": method}, {**target, **own}))
        steps.append(_score(f"labels-{method}", f"labels/{method}"))
    return steps


def _train(size: Size, seed: int) -> list[Step]:
    target = {"dataset": "dataset/target", "features": "features/target"}
    steps = []
    for name, objective in PARSERS.items():
        labels = {} if objective["targets"] == "weak" else {"labels": "labels/uwav"}
        params = {**RECIPES[size].parser, **objective, "seed": seed}
        steps += [
            Step("train-parser", name, params, {**target, **labels}),
            _score(f"parser-{name}", f"parser/{name}"),
        ]
    return steps


def _score(name: str, predictions: str) -> Step:
    return Step("evaluate", name, {}, {"predictions": predictions, "dataset": "dataset/target"})


def run_demo(out: Path, *, size: Size, seed: int, settings: Sequence[str], progress: Progress) -> Demo:
    """Render, run every step that is not cached, and gather the scores.

    Raises what the steps raise; what is finished by then is kept and found again by the next run.
    """
    steps = plan(out / "world", size=size, seed=seed, settings=settings)
    for step in steps:  # what is wrong is told before anything is rendered
        make_params(STAGES[step.stage], step.params)
    render_videos(out / "world", size=size, seed=seed, workers=0, progress=progress)
    store = Store(out / "artifacts")
    outcomes = []
    for step in steps:
        outcome = run_step(store, step, progress=progress)
        progress.note(f"{outcome.state} {outcome.artifact.reference} ({outcome.seconds:.1f} s)")
        outcomes.append(outcome)
    return Demo(tuple(outcomes), tuple(row for outcome in outcomes for row in _rows(outcome)))


def _rows(outcome: Outcome) -> list[Scored]:
    if outcome.artifact.kind != "scores":
        return []
    attrs = outcome.artifact.attrs
    return [
        Scored(attrs["what"], attrs["method"], one["split"], one["of"]["segment"], one["of"]["event"])
        for one in attrs["scores"]
    ]

"""Files to start a run from: for videos of one's own, for the demo, for what a store has."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avvp_pipe.pipeline.run_config import RunConfig, config_of, settled_document
from avvp_pipe.pipeline.run_steps import config_of_steps, plan_run
from avvp_pipe.pipeline.tables import dumped
from avvp_pipe.pipeline.weak_csv import read_weak
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import DEFAULT_STORE, Store

if TYPE_CHECKING:
    from avvp_pipe.stages.datasets.records import Clip

__all__ = ["Start", "demo_start", "own_start", "store_start", "write_start"]

TINY = """\
    visual_teacher: tiny-clip
    audio_teacher: tiny-clap
  train-parser:                   # small and short, as the demo has it; the parser's published recipe without these
    width: 128
    heads: 4
    ffn: 256
    layers: 2
    epochs: 15
    warmup: 2
    learning_rate: 0.001
"""
TEACHERS = {"real": "", "tiny": TINY}
FETCH = "avvp-pipe models fetch"
OWN = """\
# A run of avvp-pipe on videos of your own: avvp-pipe run {file}
# What may stand here: docs/running.md, or avvp-pipe config schema. Paths start from where the command is run.
store: {store}

defaults:
  extract:                        # one embedding a second of sound and sight; every option of `avvp-pipe extract`
    device: auto
{teachers}
steps:
- id: clips                       # which videos, with which labels
  stage: dataset
  name: {name}
  params:
    source: {manifest}

- id: features                    # CLIP and CLAP, second by second
  stage: extract
  inputs: {{dataset: clips}}

{labels}
- id: parser                      # a network trained on these labels
  stage: train-parser
  inputs: {{dataset: clips, features: features{read}}}
{parser}{scores}"""
CALIBRATED = """\
- id: thresholds                  # one a class, fitted on the labelled seconds of the val split
  stage: calibrate
  inputs: {dataset: clips, features: features}
  params: {method: valor}

- id: labels                      # soft and hard, of every second, heard and seen
  stage: pseudolabel
  inputs: {dataset: clips, features: features, thresholds: thresholds}
  params: {method: valor}
"""
UNCALIBRATED = """\
- id: labels                      # each weak label in every second: thresholds of better methods need labelled seconds
  stage: pseudolabel
  inputs: {dataset: clips, features: features}
  params: {method: video-labels}
"""
SCORES = """
- id: label-scores                # on the splits whose seconds are labelled
  stage: evaluate
  inputs: {predictions: labels, dataset: clips}

- id: parser-scores
  stage: evaluate
  inputs: {predictions: parser, dataset: clips}
"""
WEAK_PARSER = "  params: {targets: weak, reweight: none, mixup: none}\n"
NO_SECONDS = (
    "no clip of the split val has its seconds labelled, so that no thresholds can be fitted: labels are the weak ones "
    "in every second, and the parser learns from weak labels. Fill in columns audio_events and visual_events "
    "(Dog@2-10;Speech@0-4) and `val` in the column split for some thirty clips, and write the file anew"
)


@dataclass(frozen=True, slots=True)
class Start:
    """A run's file, not written yet."""

    text: str
    store: str
    clips: "tuple[Clip, ...]" = ()
    manifest: Path | None = None
    """Where the clips are listed."""
    notes: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Commands that come first."""
    labels: str = ""
    """Reference of what it labels, to be released."""
    scored: tuple[str, ...] = field(default=())

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written besides."""
        return (self.manifest,) if self.manifest else ()

    def commands(self, out: Path) -> list[str]:
        """What to type next, in order."""
        run = shlex.join(["avvp-pipe", "run", str(out)])
        more = [*self.before, f"{run} --dry-run", run]
        where = [] if self.store == DEFAULT_STORE else ["--store", self.store]
        if self.labels:
            zipped = f"{self.labels.partition('/')[2]}.zarr.zip"
            more.append(shlex.join(["avvp-pipe", "labels", "release", self.labels, "--out", zipped, *where]))
        if self.scored:
            more.append(shlex.join(["avvp-pipe", "report", *self.scored, "--out", "report.html", *where]))
        return more


def write_start(out: Path, start: Start) -> None:
    """Write the file and its manifest. Raises ParameterError where one of them is there already."""
    for path in (out, *start.files):
        if path.exists():
            raise ParameterError(f"{path} is there already; remove it, or choose another --out")
    if out.suffix not in (".yaml", ".yml"):
        raise ParameterError(f"{out} will hold YAML; give it a name that ends in .yaml")
    out.parent.mkdir(parents=True, exist_ok=True)
    if start.manifest:
        from avvp_pipe.stages.datasets.manifest import write_manifest

        write_manifest(start.manifest, start.clips)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_text(start.text, encoding="utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def own_start(
    videos: Path, weak: Path, out: Path, *, seconds: int, teachers: Literal["real", "tiny"], store: str
) -> Start:
    """A run on a folder of videos and their weak labels.

    Where seconds of the val split are labelled, VALOR's labels, a parser on them and the scores of both; else the weak
    labels in every second, and a parser that learns from weak labels.
    """
    name = out.stem
    manifest = out.with_name(f"{name}.clips.jsonl")
    found = read_weak(weak, videos, manifest=manifest, seconds=seconds)
    fits = any(clip.split == "val" and clip.dense for clip in found.clips)
    scored = any(clip.dense for clip in found.clips)
    safe = "".join(letter if letter.isalnum() or letter in "._+-" else "-" for letter in name).strip("._+-") or "mine"
    values = {
        "file": out,
        "store": _quoted(store),
        "name": _quoted(safe),
        "manifest": _quoted(str(manifest)),
        "teachers": TEACHERS[teachers],
        "labels": CALIBRATED if fits else UNCALIBRATED,
        "read": ", labels: labels" if fits else "",
        "parser": "" if fits else WEAK_PARSER,
        "scores": SCORES if scored else "",
    }
    text = OWN.format(**values)
    planned = plan_run(config_of(text))
    made = {one.id: str(one.step.reference) for one in planned}
    return Start(
        text=text,
        store=store,
        clips=found.clips,
        manifest=manifest,
        notes=(_counted(found.clips), *found.notes, *(() if fits else (NO_SECONDS,))),
        before=(FETCH,) if teachers == "real" else (),
        labels=made["labels"],
        scored=tuple(made[name] for name in ("labels", "parser", "label-scores", "parser-scores") if name in made),
    )


def _counted(clips: "Sequence[Clip]") -> str:
    classes = frozenset[str]().union(*(clip.named for clip in clips))
    counts = {split: sum(clip.split == split for clip in clips) for split in ("train", "val", "test")}
    dense = sum(bool(clip.dense) for clip in clips)
    told = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    return f"{len(clips)} clips ({told}), {len(classes)} classes; seconds are labelled in {dense}"


def _quoted(text: str) -> str:
    """A word as YAML."""
    return dumped({"x": text}).removeprefix("x: ").strip()


def demo_start(out: Path, *, size: Literal["tiny", "small", "full"], seed: int) -> Start:
    """The demo as a run on the videos that `render` leaves in `out`/world."""
    from avvp_pipe.pipeline.demo import plan

    store = str(out / "artifacts")
    config = config_of_steps(plan(out / "world", size=size, seed=seed), store=store, title=f"The demo, size {size}")
    world = shlex.join(["avvp-pipe", "render", "--out", str(out / "world"), "--size", size, "--seed", str(seed)])
    return Start(_told(config), store, before=(world,), labels="labels/uwav")


def store_start(store: str) -> Start:
    """All that was asked for in a store, as one run."""
    from avvp_pipe.pipeline.status import requested_steps

    steps = _in_order(requested_steps(Store(store)))
    if not steps:
        raise ParameterError(f"nothing was asked for in the store {store} yet; run a command in it first")
    return Start(_told(config_of_steps(steps, store=store)), store)


def _in_order(steps: Sequence[Any]) -> list[Any]:
    """Every step after those that make what it reads; else as they come."""
    left, done = {str(one.reference): one for one in steps}, list[Any]()
    while left:
        ready = [one for one in left.values() if not any(text in left for text in one.inputs.values())]
        done += ready or left.values()  # what reads itself in a circle is told when the run is planned
        left = {} if not ready else {name: one for name, one in left.items() if one not in ready}
    return done


def _told(config: RunConfig) -> str:
    head = "# A run of avvp-pipe; avvp-pipe config schema says what may stand here.\n"
    return head + dumped(settled_document(config))

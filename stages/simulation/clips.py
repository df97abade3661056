"""One clip's features: the evidence of its classes, its scene, and noise, in the teacher's space.

    feature = unit( empty + evidence @ prototypes + scene + noise )

Scene and noise have a part that resembles classes, and one that does not. Every clip has random numbers of its own,
made of the seed and its id, and every class in it those of its name: a clip's features depend neither on the clips
beside it nor on the order of classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.simulation.chance import drifting, stream
from avvp_pipe.stages.simulation.evidence import distracting, perceived
from avvp_pipe.stages.simulation.settings import SENSES, Modality, Sense
from avvp_pipe.stages.simulation.truth import ClipTruth
from avvp_pipe.stages.simulation.world import CONCEPTS, SCENES, Teacher, mixed, teacher_of, text_features, unit


def simulated_clip(truth: ClipTruth, teacher: Teacher, *, seed: int) -> NDArray[np.float32]:
    """(T, D) float32 of unit length: what one teacher makes of one clip."""
    strength, rows = _evidence(truth, teacher, seed)
    settings, seconds = teacher.settings, truth.seconds
    rng = stream(seed, truth.video_id, teacher.sense, "scene")

    def sized(size: float, rows: int, width: int) -> NDArray[np.float64]:
        return np.asarray(size / np.sqrt(width) * drifting(rng, (rows, width), memory=settings.memory))

    alike = sized(settings.scene_named, 1, CONCEPTS) + sized(settings.noise_named, seconds, CONCEPTS)
    other = sized(settings.scene, 1, SCENES) @ teacher.axes.scenes + sized(settings.noise, seconds, settings.width)
    found = teacher.empty + mixed(strength, teacher.prototypes[rows]) + alike @ teacher.axes.concepts + other
    return unit(found).astype(np.float32)


def simulated_features(
    audio: NDArray[np.bool_],
    visual: NDArray[np.bool_],
    classes: Sequence[str],
    video_ids: Sequence[str],
    lengths: NDArray[np.integer[Any]],
    seed: int,
    *,
    world: int = 0,
    settings: Mapping[Sense, Modality] = SENSES,
) -> dict[str, NDArray[np.float32]]:
    """Features of N clips whose truth is known: audio (N, T, 512), visual (N, T, 768), NaN beyond lengths (N,).

    audio, visual (N, T, C) bool: what is heard and seen. Also text_audio (C, 512) and text_visual (C, 768), of the
    bare class names.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for sense in SENSES:
        teacher = teacher_of(classes, sense, world=world, settings=settings[sense])
        values = np.full((*audio.shape[:2], teacher.settings.width), np.nan, np.float32)
        for row, (name, length) in enumerate(zip(video_ids, lengths.tolist(), strict=True)):
            truth = ClipTruth(name, audio[row, :length], visual[row, :length])
            values[row, :length] = simulated_clip(truth, teacher, seed=seed)
        found[sense] = values
        found[f"text_{sense}"] = text_features(teacher, classes)
    return found


def _evidence(truth: ClipTruth, teacher: Teacher, seed: int) -> tuple[NDArray[np.float64], list[int]]:
    """Evidence (T, A) of the A classes of which the teacher perceives anything, and which they are."""
    present = truth.audio if teacher.sense == "audio" else truth.visual
    by_name = sorted(range(len(teacher.classes)), key=teacher.classes.__getitem__)
    named = truth.named
    rows = [row for row in by_name if named[row]]
    found = [
        perceived(
            stream(seed, truth.video_id, teacher.sense, teacher.classes[row]),
            present[:, row],
            teacher.settings,
            gain=float(teacher.gains[row]),
            leak=float(teacher.leaks[row]),
        )
        for row in rows
    ]
    rng = stream(seed, truth.video_id, teacher.sense, "distractors")
    count = min(int(rng.poisson(teacher.settings.distractors)), len(by_name))
    for place in rng.choice(len(by_name), count, replace=False).tolist():
        row = by_name[place]
        rows.append(row)
        found.append(distracting(rng, truth.seconds, teacher.settings, gain=float(teacher.gains[row])))
    return (np.stack(found, axis=1) if found else np.zeros((truth.seconds, 0))), rows

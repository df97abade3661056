"""The embedded teachers: small, deterministic, offline, and able to tell what they were made to tell."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.device import torch_device
from avvp_pipe.stages.datasets.prompts import prompt_sets
from avvp_pipe.stages.datasets.rendered.cast import EVERYONE
from avvp_pipe.stages.datasets.rendered.looks import backdrop, frame_of, sprite_of
from avvp_pipe.stages.datasets.rendered.sounds import RATE, hum, sound_of
from avvp_pipe.stages.teachers import AudioTeacher, VisualTeacher, audio_teacher, teacher_digest, visual_teacher
from avvp_pipe.stages.teachers import shipped as shipped_module
from avvp_pipe.stages.teachers.shipped import FOLDER, shipped_files

NAMES = tuple(one.name for one in EVERYONE)
TIMES = 6
"""Fresh scenes of each class."""
TRUTH = np.repeat(np.arange(len(NAMES)), TIMES)
LIMIT_BYTES = 6_000_000


@pytest.fixture(scope="module")
def seer() -> VisualTeacher:
    return visual_teacher("tiny-clip")


@pytest.fixture(scope="module")
def hearer() -> AudioTeacher:
    return audio_teacher("tiny-clap")


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    random = np.random.default_rng(123)
    return np.stack(
        [
            frame_of(backdrop(random), [sprite_of(EVERYONE[index], random)], [False], seconds=0.0, random=random)
            for index in TRUTH
        ]
    )


@pytest.fixture(scope="module")
def waves() -> NDArray[np.float32]:
    random = np.random.default_rng(123)
    return np.stack(
        [0.1 * hum(RATE, random) + 0.25 * sound_of(EVERYONE[index], RATE, random) for index in TRUTH]
    ).astype(np.float32)


def accuracy(items: NDArray[np.float32], texts: NDArray[np.float32]) -> float:
    return float(np.mean((items @ texts.T).argmax(axis=1) == TRUTH))


@pytest.mark.parametrize("prompts", ["valor", "uwav"])
def test_the_visual_teacher_tells_what_is_in_a_fresh_frame(
    seer: VisualTeacher, frames: NDArray[np.uint8], prompts: str
) -> None:
    assert accuracy(seer.images(frames), seer.texts(prompt_sets(NAMES)[prompts].visual)) > 0.75


@pytest.mark.parametrize("prompts", ["valor", "uwav"])
def test_the_audio_teacher_tells_what_is_in_a_fresh_second(
    hearer: AudioTeacher, waves: NDArray[np.float32], prompts: str
) -> None:
    assert accuracy(hearer.sounds(waves), hearer.texts(prompt_sets(NAMES)[prompts].audio)) > 0.75


def test_embeddings_are_normalised_rows_of_the_stated_width(
    seer: VisualTeacher, hearer: AudioTeacher, frames: NDArray[np.uint8], waves: NDArray[np.float32]
) -> None:
    for found, width in (
        (seer.images(frames[:5]), seer.width),
        (seer.texts(["A photo of a bell"] * 5), seer.width),
        (hearer.sounds(waves[:5]), hearer.width),
        (hearer.texts(["This is the sound of rain"] * 5), hearer.width),
    ):
        assert found.shape == (5, width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_teachers_state_what_they_take(seer: VisualTeacher, hearer: AudioTeacher) -> None:
    assert seer.image_size == 64
    assert hearer.sample_rate == RATE
    assert 0 < seer.log_scale < np.log(100) + 1
    assert 0 < hearer.log_scale < np.log(100) + 1


def test_an_embedding_depends_neither_on_the_batch_nor_on_its_order(
    seer: VisualTeacher, hearer: AudioTeacher, frames: NDArray[np.uint8], waves: NDArray[np.float32]
) -> None:
    order = np.random.default_rng(0).permutation(40)
    cases: list[tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], NDArray[np.float32]]] = [
        (seer.images, frames),  # type: ignore[list-item]
        (hearer.sounds, waves),
    ]
    for embed, items in cases:
        together = embed(items[:40])
        np.testing.assert_allclose(embed(items[:40][order]), together[order], atol=2e-5)
        np.testing.assert_allclose(embed(items[7:8]), together[7:8], atol=2e-5)
        np.testing.assert_array_equal(embed(items[:40]), together)


def test_a_text_alone_is_the_same_text_among_others(seer: VisualTeacher, hearer: AudioTeacher) -> None:
    prompts = ["A photo of a bell", "rain", "This is a sound of something that is longer than all the others"]
    for texts in (seer.texts, hearer.texts):
        np.testing.assert_allclose(texts(prompts)[1], texts(["rain"])[0], atol=2e-5)


@pytest.mark.parametrize("prompt", ["", "naïve 日本 🦊", "frying (food), a Vaccum cleaner", "long " * 500])
def test_any_text_can_be_embedded(seer: VisualTeacher, hearer: AudioTeacher, prompt: str) -> None:
    assert np.isfinite(seer.texts([prompt])).all()
    assert np.isfinite(hearer.texts([prompt])).all()


def test_silence_and_darkness_can_be_embedded(seer: VisualTeacher, hearer: AudioTeacher) -> None:
    assert np.isfinite(seer.images(np.zeros((1, 64, 64, 3), np.uint8))).all()
    assert np.isfinite(hearer.sounds(np.zeros((1, RATE), np.float32))).all()


def test_what_is_shipped_stays_within_six_megabytes_and_unpickles_nothing() -> None:
    files = list(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_the_record_tells_how_the_weights_came_about() -> None:
    record = (FOLDER / "RECORD.md").read_text()
    assert "python -m avvp_pipe.stages.teachers.train_embedded --seed" in record


def test_a_digest_changes_with_any_file_of_the_teacher_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: teacher_digest(name) for name in ("tiny-clip", "tiny-clap")}
    assert before["tiny-clip"] != before["tiny-clap"]
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped_module, "FOLDER", tmp_path)
    assert {name: teacher_digest(name) for name in before} == before
    for path in shipped_files("tiny-clip"):
        kept = path.read_bytes()
        path.write_bytes(kept + b" ")
        assert teacher_digest("tiny-clip") != before["tiny-clip"]
        path.write_bytes(kept)
    assert teacher_digest("tiny-clip") == before["tiny-clip"]


def test_an_unknown_teacher_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(ValueError, match=r"no visual teacher 'clip'; there are tiny-clip"):
        visual_teacher("clip")
    with pytest.raises(ValueError, match=r"no audio teacher 'tiny-clip'; there are tiny-clap"):
        audio_teacher("tiny-clip")
    with pytest.raises(ValueError, match=r"no visual teacher 'x'; there are tiny-clip"):
        teacher_digest("x")


@pytest.mark.parametrize("name", ["mps", "meta", "no such", "cuda:99"])
def test_a_device_that_is_not_there_or_was_never_tried_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--device '?{name}"):
        torch_device(name)
    assert str(torch_device("cpu:0")) == "cpu"  # one name, by which others ask for it

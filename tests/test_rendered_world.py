"""The rendered world: what the files hold, what the labels say, and that neither depends on how they were made."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.datasets import Dataset, read_manifest
from avvp_pipe.stages.datasets.rendered import WorldFiles, render_world
from avvp_pipe.stages.datasets.rendered.cast import EVERYONE, PRETRAIN, TARGET, Character
from avvp_pipe.stages.datasets.rendered.film import FPS, pictures, soundtrack
from avvp_pipe.stages.datasets.rendered.looks import SIDE, backdrop, frame_of, lookalike_of, sprite_of
from avvp_pipe.stages.datasets.rendered.script import Happening, Script, Sense
from avvp_pipe.stages.datasets.rendered.sounds import RATE, sound_of
from avvp_pipe.stages.datasets.rendered.world import CLIPS, Take, takes
from avvp_pipe.stages.rows import JOINT, NONE, SEPARATE
from avvp_pipe.stages.stage import Silent

SENSES: tuple[Sense, ...] = ("heard", "seen")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return render_world(tmp_path_factory.mktemp("world"), size="tiny", seed=0, workers=1, progress=Silent())


@pytest.fixture(scope="module")
def target(world: WorldFiles) -> Dataset:
    return read_manifest(world.target)


@pytest.fixture(scope="module")
def full_scripts() -> list[tuple[Take, Script]]:
    return [(take, take.script()) for take in takes("full", 0)]


def video_digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "videos").iterdir())}


def spectrum(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of a second's power in 64 bands of 125 Hz."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    bands = power[: 64 * 125].reshape(64, 125).sum(axis=1)
    return np.asarray(bands / bands.sum())


def test_there_are_at_least_ten_target_classes_and_pretraining_shares_most_of_them_and_has_its_own() -> None:
    goal, other = {one.name for one in TARGET}, {one.name for one in PRETRAIN}
    assert len(goal) >= 10
    assert len(goal & other) > len(goal) / 2
    assert goal - other
    assert other - goal


def test_every_mp4_decodes_to_the_stated_frames_rate_and_duration(world: WorldFiles) -> None:
    for manifest in (world.target, world.pretrain):
        for line in manifest.read_text().splitlines():
            clip = json.loads(line)
            with av.open(str(manifest.parent / clip["path"])) as container:
                video, audio = container.streams.video[0], container.streams.audio[0]
                assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
                assert (video.width, video.height, video.average_rate) == (SIDE, SIDE, Fraction(FPS))
                assert (audio.rate, audio.channels) == (RATE, 1)
                assert sum(1 for _ in container.decode(video)) == clip["seconds"] * FPS
                container.seek(0)
                samples = sum(frame.samples for frame in container.decode(audio))
            # AAC works in blocks of 1024 samples, and starts with one of its own.
            assert abs(samples - clip["seconds"] * RATE) <= 3 * 1024


def test_the_decoded_picture_and_sound_are_those_that_were_drawn(world: WorldFiles) -> None:
    take = takes("tiny", 0)[0]
    drawn, played = pictures(take.script(), take._random(1)), soundtrack(take.script(), take._random(2))
    with av.open(str(world.target.parent / "videos" / f"{take.video_id}.mp4")) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        container.seek(0)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(shown.astype(int) - drawn).mean() < 12
    seconds = range(take.script().seconds)
    loud = [np.sqrt(np.mean(played[s * RATE : (s + 1) * RATE] ** 2)) for s in seconds]
    again = [np.sqrt(np.mean(heard[s * RATE : (s + 1) * RATE] ** 2)) for s in seconds]
    assert again == pytest.approx(loud, rel=0.3, abs=0.01)


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(world: WorldFiles, tmp_path: Path) -> None:
    render_world(tmp_path, size="tiny", seed=0, workers=2, progress=Silent())
    assert video_digests(tmp_path) == video_digests(world.target.parent)
    assert (tmp_path / "target.jsonl").read_bytes() == world.target.read_bytes()
    assert (tmp_path / "pretrain.jsonl").read_bytes() == world.pretrain.read_bytes()


def test_another_seed_gives_other_clips() -> None:
    one, other = takes("tiny", 0)[0], takes("tiny", 1)[0]
    assert not np.array_equal(pictures(one.script(), one._random(1))[0], pictures(other.script(), other._random(1))[0])


def test_a_clip_does_not_depend_on_how_many_others_there_are() -> None:
    small, full = takes("small", 0), takes("full", 0)
    assert set(small) <= set(full)
    assert {(take.group, take.split) for take in full} == set(CLIPS["full"])


def test_rendering_resumes_and_leaves_the_bytes_as_they_were(tmp_path: Path) -> None:
    render_world(tmp_path, size="tiny", seed=3, workers=1, progress=Silent())
    before = video_digests(tmp_path)
    lost = sorted((tmp_path / "videos").iterdir())[::7]
    for path in lost:
        path.unlink()
    (tmp_path / "world.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    render_world(tmp_path, size="tiny", seed=3, workers=1, progress=Silent())
    assert video_digests(tmp_path) == before
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_finished_world_is_recognised_and_not_rendered_again(
    world: WorldFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Take, "film", lambda self, folder: pytest.fail("a clip was rendered again"))
    assert render_world(world.target.parent, size="tiny", seed=0, workers=1, progress=Silent()) == world


def test_a_folder_that_holds_another_world_is_refused(world: WorldFiles) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        render_world(world.target.parent, size="tiny", seed=1, workers=1, progress=Silent())


def test_labels_in_the_manifest_are_those_of_the_script(target: Dataset) -> None:
    column = {name: index for index, name in enumerate(target.classes)}
    scripts = {take.video_id: take.script() for take in takes("tiny", 0)}
    for row, video_id in enumerate(target.video_ids):
        happened = [one for one in scripts[video_id].happenings if not one.lookalike]
        assert {target.classes[index] for index in np.flatnonzero(target.weak[row])} == {one.name for one in happened}
        for sense, dense in zip(SENSES, (target.audio, target.visual), strict=True):
            wanted = np.zeros(dense.shape[1:], bool)
            for one in happened:
                wanted[one.onset : one.offset, column[one.name]] |= one.sense == sense
            assert np.array_equal(dense[row], wanted if target.dense[row] == SEPARATE else wanted & False)


def test_training_clips_of_the_target_are_labelled_weakly_and_the_others_densely(
    target: Dataset, world: WorldFiles
) -> None:
    for split, dense in zip(target.splits, target.dense, strict=True):
        assert dense == (NONE if split == "train" else SEPARATE)
    assert set(read_manifest(world.pretrain).dense.tolist()) == {JOINT}


def test_pretraining_labels_are_the_seconds_that_are_labelled_heard_and_seen_at_once(
    full_scripts: list[tuple[Take, Script]],
) -> None:
    for take, script in full_scripts:
        if take.group == "pretrain":
            labelled = {
                (event.label, second)
                for event in take.clip().events or ()
                for second in range(int(event.onset), int(event.offset))
            }
            heard, seen = (
                {
                    (one.name, second)
                    for one in script.happenings
                    if one.sense == sense and not one.lookalike
                    for second in range(one.onset, one.offset)
                }
                for sense in SENSES
            )
            assert labelled == heard & seen


def test_drop_outs_lie_inside_events_and_stay_labelled(full_scripts: list[tuple[Take, Script]]) -> None:
    events = [one for _, script in full_scripts for one in script.happenings if not one.lookalike]
    dropped = [one for one in events if one.dropped]
    assert len(dropped) > 0.3 * len(events)
    assert all(one.onset < second < one.offset - 1 for one in dropped for second in one.dropped)
    for one in dropped:
        runs = np.split(np.array(one.dropped), np.flatnonzero(np.diff(one.dropped) > 1) + 1)
        assert max(map(len, runs)) <= 2


def test_in_a_drop_out_the_evidence_is_gone() -> None:
    heard = Happening("Bell", "heard", 0, 4, dropped=(2,))
    seen = Happening("Bell", "seen", 0, 4, dropped=(2,))
    clear = Script(4, (replace(heard, dropped=()), replace(seen, dropped=())))
    gappy = Script(4, (heard, seen))
    for seed in range(6):
        full, holed = (pictures(one, np.random.default_rng(seed)) for one in (clear, gappy))
        yellow = [_yellow(full), _yellow(holed)]
        assert yellow[0].min() > 0
        assert yellow[1][2 * FPS : 3 * FPS].max() == 0
        sounds = [soundtrack(one, np.random.default_rng(seed)) for one in (clear, gappy)]
        # The loudest tone of a bell stands out of what is around it, but not while it is drowned or muted.
        assert _tonal(sounds[0][2 * RATE : 3 * RATE]) > 4 * _tonal(sounds[1][2 * RATE : 3 * RATE])


def _yellow(frames: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Pixels of each frame that are much redder than blue."""
    coloured = frames.astype(int)
    return np.asarray((coloured[..., 0] - coloured[..., 2] > 70).sum(axis=(1, 2)))


def _tonal(wave: NDArray[np.float32]) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[500:].max() / np.median(power[500:]))


def test_the_target_set_has_everything_that_makes_parsing_hard(full_scripts: list[tuple[Take, Script]]) -> None:
    scripts = [script for take, script in full_scripts if take.group == "target"]
    several = only_heard = only_seen = lookalikes = inside = 0
    for script in scripts:
        heard, seen = ({event.label for event in script.events(sense)} for sense in SENSES)
        several += len(heard | seen) > 1
        only_heard += bool(heard - seen)
        only_seen += bool(seen - heard)
        lookalikes += any(one.lookalike for one in script.happenings)
        inside += any(
            event.onset > 0 and event.offset < script.seconds for sense in SENSES for event in script.events(sense)
        )
    assert min(several, only_heard, only_seen, lookalikes, inside) > 0.2 * len(scripts)


def test_every_class_is_heard_and_seen_in_every_dense_split(full_scripts: list[tuple[Take, Script]]) -> None:
    for split in ("val", "test"):
        for sense in SENSES:
            names = {
                event.label
                for take, script in full_scripts
                if (take.group, take.split) == ("target", split)
                for event in script.events(sense)
            }
            assert names == {one.name for one in TARGET}


@pytest.mark.parametrize("character", EVERYONE, ids=lambda one: one.name)
def test_every_class_can_be_seen_and_heard(character: Character) -> None:
    random = np.random.default_rng(0)
    behind = replace(backdrop(random), noise=0.0)
    empty = frame_of(behind, [], [], seconds=0.0, random=random).astype(int)
    drawn = frame_of(behind, [sprite_of(character, random)], [False], seconds=0.0, random=random).astype(int)
    assert (np.abs(drawn - empty).max(axis=2) > 20).sum() > 40
    assert np.isfinite(sound_of(character, RATE, random)).all()
    assert np.sqrt(np.mean(sound_of(character, RATE, random) ** 2)) == pytest.approx(1, abs=0.01)


def test_no_two_classes_look_or_sound_alike_and_lookalikes_are_nobody() -> None:
    looks = {(one.shape, one.colour) for one in EVERYONE}
    assert len(looks) == len(EVERYONE)
    random = np.random.default_rng(0)
    for one in EVERYONE:
        assert lookalike_of(one, random).radius > 0
    voices = {one.name: np.mean([spectrum(sound_of(one, RATE, random)) for _ in range(4)], axis=0) for one in EVERYONE}
    for one in EVERYONE:
        for other in EVERYONE:
            if one.name < other.name and one.voice == other.voice:
                overlap = np.minimum(voices[one.name], voices[other.name]).sum()
                assert overlap < 0.9, f"{one.name} and {other.name}"

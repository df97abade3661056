"""Every kind of file that a folder of videos may hold: it is decoded, or it is listed with its code."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.media import ClipError, DecodedClip, Sampling, Task, decode_clips
from avvp_pipe.store import Store
from avvp_pipe.store.status import CODES
from tests.kinds import DECODED, KINDS, PYAV_ABORTS, SECONDS, Kind, make, treacherous_decoders

RATE, SIDE = 16000, 32
SAMPLING = Sampling(frame_rule="centre", frame_size=SIDE, sample_rate=RATE)
MEMORY_MIB = 480
"""Enough for 8K with PyAV (0.43 GiB), not with decord (1.5 GiB)."""
BOMB = "pictures that unpack to more memory than allowed"
TABLE = Path(__file__).parent.parent / "docs" / "files.md"
DANGEROUS = ("out-of-memory", "timeout", "decoder-died")
READS_EVERYTHING = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others than its owner may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def treachery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", treacherous_decoders(tmp_path / "treachery"))


def check(kind: Kind, frames: NDArray[Any], audio: NDArray[np.float32]) -> None:
    """Is the grey of each second seen, upright, and the tone heard when it should be?"""
    corner, field = frames[:, 1:7, 1:7], frames[:, 25:31, 25:31]
    assert np.abs(field.mean(axis=(1, 2, 3)) - kind.levels).max() < 30  # some are noisy
    assert corner.mean(axis=(1, 2, 3)).min() > 215
    loud = np.abs(audio.reshape(SECONDS, RATE)).mean(axis=1)
    assert [bool(value > 0.1) for value in loud] == list(kind.heard)


def outcome(found: DecodedClip | ClipError) -> str:
    return found.code if isinstance(found, ClipError) else DECODED


def named(path: Path, message: str) -> bool:
    return path.name in message or repr(path.name)[1:-1] in message


def table() -> list[list[str]]:
    """The cells of the rows in the docs: kind, what becomes of it, why."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "file" and not set(row[0]) <= set("-")]


HERE = [kind for kind in KINDS.values() if kind.outcome not in DANGEROUS and not kind.file.startswith("pyav-")]


@pytest.mark.parametrize("kind", HERE, ids=lambda kind: kind.name)
def test_a_file_of_every_kind_is_decoded_or_says_why_not(kind: Kind, folder: Path) -> None:
    path = make(kind, folder)
    if kind.name == "may not be read" and READS_EVERYTHING:
        os.seteuid(65534)
    try:
        ((_, found),) = decode_clips([Task(0, path, SECONDS)], SAMPLING, workers=0, timeout_seconds=60)
    finally:
        if READS_EVERYTHING:
            os.seteuid(0)
    assert outcome(found) == kind.outcome, found
    if isinstance(found, ClipError):
        assert named(path, found.message)
    else:
        check(kind, found.frames, found.audio)


@pytest.mark.parametrize(
    ("name", "tallied", "timeout_seconds"),
    [
        ("mp4: H.264 and AAC", "sparing", 60),
        ("mov", "sparing", 60),
        ("mkv", "sparing", 60),
        ("mirrored", "sparing", 60),
        ("MPEG transport stream", "pyav", 60),
        ("webm: VP9 and Opus", "pyav", 60),
        ("cut without encoding anew (edit list)", "pyav", 60),
        ("PyAV hangs over the pictures, decord does not", "decord-second-try", 3),
        ("PyAV aborts its process over the pictures, decord does not", "decord-second-try", 60),
        ("the decoder hangs", "timeout", 1),
        ("the decoder aborts its process", "decoder-died", 60),
        ("the decoder takes more and more memory", "out-of-memory", 60),
        (BOMB, "out-of-memory", 60),
        ("text", "not-a-video", 60),
    ],
)
@pytest.mark.usefixtures("treachery")
def test_it_is_counted_who_decoded_a_clip_or_why_nobody_could(
    name: str, tallied: str, timeout_seconds: float, folder: Path
) -> None:
    kind, tally = KINDS[name], Counter[str]()
    tasks = [Task(0, make(kind, folder), SECONDS)]
    limits: dict[str, Any] = {"timeout_seconds": timeout_seconds, "memory_bytes": 300 * 2**20}
    ((_, found),) = decode_clips(tasks, SAMPLING, workers=1, tally=tally, **limits)
    assert tally == {tallied: 1}
    assert outcome(found) == kind.outcome
    if isinstance(found, ClipError):
        assert named(tasks[0].path, found.message)
    else:
        check(kind, found.frames, found.audio)


@pytest.mark.usefixtures("treachery")
def test_turned_pictures_are_pyavs_in_the_second_try_too_for_decord_does_not_turn_them(folder: Path) -> None:
    path, tally = folder / PYAV_ABORTS, Counter[str]()
    KINDS["mirrored"].make(path)
    ((_, found),) = decode_clips([Task(0, path, SECONDS)], SAMPLING, workers=1, timeout_seconds=60, tally=tally)
    assert tally == {"pyav-second-try": 1}
    assert isinstance(found, DecodedClip)
    check(KINDS["mirrored"], found.frames, found.audio)


def test_a_name_with_a_zero_byte_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    ((_, found),) = decode_clips([Task(0, tmp_path / "a\0b.mp4", 3)], SAMPLING, workers=0, timeout_seconds=60)
    assert outcome(found) == "missing-file"


def test_the_table_in_the_docs_has_a_row_for_every_kind_and_no_other() -> None:
    rows = table()
    assert {row[0]: row[1] for row in rows} == {kind.name: kind.outcome for kind in KINDS.values()}
    assert len(rows) == len(KINDS)
    assert {kind.outcome for kind in KINDS.values()} == {DECODED, *CODES} - {"ok", "pending"}


@pytest.mark.usefixtures("treachery")
def test_all_kinds_in_one_folder_are_each_decoded_or_listed_with_their_code(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    (tmp_path / "videos").mkdir()
    paths = {name: make(kind, tmp_path / "videos") for name, kind in KINDS.items()}
    records = [
        {"id": name, "path": str(path), "split": "train", "labels": ["Bell"], "seconds": SECONDS}
        for name, path in paths.items()
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    store = ("--store", tmp_path / "store", "--json", "--quiet")
    assert avvp("dataset", "--source", tmp_path / "clips.jsonl", "--name", "kinds", *store).code == 0
    sampling = ("--frame-rule", "centre", "--frame-size", SIDE, "--sample-rate", RATE)
    limits = ("--workers", 2, "--timeout-seconds", 10, "--memory-limit", MEMORY_MIB)
    decoded = avvp("decode", "--dataset", "kinds", *map(str, sampling + limits), *store)
    assert decoded.code == 1
    codes = {failure["video_id"]: failure["code"] for failure in decoded.document["failures"]}
    wanted = {name: kind.outcome for name, kind in KINDS.items() if kind.outcome != DECODED}
    if READS_EVERYTHING:
        del wanted["may not be read"]
    if codes[BOMB] == "timeout":  # a slow machine does not get as far
        wanted[BOMB] = "timeout"
    assert codes == wanted
    media = Store(tmp_path / "store").get("media/kinds")
    for row, (name, kind) in enumerate(KINDS.items()):
        status = int(media.array("status")[row])
        assert (status == 1) == (name not in wanted)
        if status == 1:
            check(kind, media.array("frames")[row], media.array("audio")[row])


@pytest.mark.parametrize("name", ["-0A9sun15YA", "a/b", "../../a", "a b", "a\nb", "ü:視", "a" * 300])
def test_an_id_is_a_name_in_the_artifact_and_never_a_path(name: str, tmp_path: Path, avvp: Callable[..., Any]) -> None:
    store = ("--store", tmp_path / "in" / "store", "--json", "--quiet")
    make(KINDS["mp4: H.264 and AAC"], tmp_path)
    record = {"id": name, "path": "00/clip.mp4", "split": "train", "labels": ["Bell"], "seconds": SECONDS}
    (tmp_path / "clips.jsonl").write_text(json.dumps(record))
    assert avvp("dataset", "--source", tmp_path / "clips.jsonl", "--name", "ids", *store).code == 0
    assert avvp("decode", "--dataset", "ids", "--frame-size", "32", "--workers", "0", *store).code == 0
    media = Store(tmp_path / "in" / "store").get("media/ids")
    assert (media.strings("video_ids"), media.array("status").tolist()) == ((name,), [1])
    assert sorted(found.name for found in tmp_path.iterdir()) == ["00", "clips.jsonl", "in"]
    assert [found.name for found in (tmp_path / "in").iterdir()] == ["store"]


def test_the_same_id_twice_is_refused_before_anything_is_decoded(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    record = json.dumps({"id": "a", "path": "a.mp4", "split": "train", "labels": ["Bell"]})
    (tmp_path / "clips.jsonl").write_text(f"{record}\n{record}\n")
    ran = avvp("dataset", "--source", tmp_path / "clips.jsonl", "--store", tmp_path / "store")
    assert ran.code == 2
    assert "line 2: id 'a' stands in line 1 too; ids must differ" in " ".join(ran.err.split())


def test_the_same_file_under_two_ids_is_decoded_for_both(folder: Path) -> None:
    path = make(KINDS["mp4: H.264 and AAC"], folder)
    tasks = [Task(row, path, SECONDS) for row in range(2)]
    first, second = (found for _, found in decode_clips(tasks, SAMPLING, workers=0, timeout_seconds=60))
    assert isinstance(first, DecodedClip)
    assert isinstance(second, DecodedClip)
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.audio, second.audio)

"""Released labels: packed once, read anywhere, and not to be fooled."""

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avvp_pipe.store import Store, StoreError, artifact_in, load_labels
from avvp_pipe.store.integrity import METADATA, file_digest, node_digests, sealed
from avvp_pipe.store.places.zipped import open_zip, pack
from avvp_pipe.store.release import adopt, release, verify_release
from avvp_pipe.store.verify import verify
from tests.made import made_labels

NAME = "labels.zarr.zip"


@pytest.fixture(scope="module")
def released(finished_demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(finished_demo.store)
    return release(store.get("labels/uwav"), store, tmp_path_factory.mktemp("release") / NAME).path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forged(path: Path, change: Callable[[dict[str, bytes]], None], out: Path) -> Path:
    """A zip whose digests are right, as a stranger who means harm would make it."""
    files = members(path)
    change(files)
    attributes = json.loads(files[METADATA])["attributes"] if METADATA in files else {}
    attributes = {name: value for name, value in attributes.items() if name != "integrity"}
    version = attributes.pop("format", None)
    nodes = node_digests({name: file_digest(data) for name, data in files.items()})
    root = json.loads(sealed(attributes, nodes))
    root["attributes"]["format"] = version
    files[METADATA] = json.dumps(root).encode()
    pack(out, [(METADATA, files[METADATA]), *sorted(item for item in files.items() if item[0] != METADATA)])
    return out


def with_metadata(name: str, **changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = json.dumps({**json.loads(files[name]), **changes}).encode()

    return change


def test_a_release_is_read_like_the_artifact_it_was_made_of(released: Path, finished_demo: Any) -> None:
    ours, theirs = load_labels("uwav", store=finished_demo.store), load_labels(released)
    assert theirs.video_ids == ours.video_ids
    assert theirs.classes == ours.classes
    for name in ("audio_hard", "visual_hard", "audio_soft", "visual_logits", "audio_thresholds", "weak", "lengths"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    clip = theirs[ours.video_ids[3]]
    np.testing.assert_array_equal(clip.audio_hard, ours.audio_hard[3][: ours.lengths[3]])
    assert str(theirs.artifact.reference) == str(ours.artifact.reference)


def test_a_release_says_what_it_was_made_of_back_to_the_source_files(released: Path, finished_demo: Any) -> None:
    attrs = load_labels(released).artifact.attrs
    stages = {record["stage"] for record in attrs["lineage"].values()}
    assert stages == {"dataset", "decode", "extract", "pretrain", "calibrate"}
    sources = [name for record in attrs["lineage"].values() for name in record["sources"]]
    assert {"target.jsonl", "videos", "tiny-clip", "tiny-clap"} <= set(sources)
    prompts = Store(finished_demo.store).get("dataset/target").attrs["prompts"]
    assert attrs["prompts"] == prompts
    assert len(attrs["prompts"]["uwav"]["audio"]) == len(attrs["classes"])


def test_the_same_labels_are_released_in_the_same_bytes(released: Path, finished_demo: Any, tmp_path: Path) -> None:
    store = Store(finished_demo.store)
    again = release(store.get("labels/uwav"), store, tmp_path / NAME)
    assert again.path.read_bytes() == released.read_bytes()
    assert (tmp_path / f"{NAME}.sha256").read_text() == f"{again.digest}  {NAME}\n"
    assert (tmp_path / f"{NAME}.sha256").read_text() == released.with_name(f"{NAME}.sha256").read_text()


def test_any_zarr_reader_opens_a_release(released: Path) -> None:
    with zarr.storage.ZipStore(released, mode="r") as opened:
        group = zarr.open_group(opened, mode="r")
        assert np.asarray(group["audio_hard"]).dtype == bool
        assert list(group.attrs["classes"])  # type: ignore[arg-type]


def test_one_clip_of_a_release_is_read_without_torch_and_without_the_rest(released: Path) -> None:
    code = (
        "import sys; from avvp_pipe.store import load_labels\n"
        f"labels = load_labels({str(released)!r}); labels[labels.video_ids[0]]\n"
        "assert 'audio_soft' not in vars(labels) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_release_is_adopted_under_its_own_key_and_verifies_there(released: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    taken = adopt(released, store, "theirs")
    assert taken.key == load_labels(released).artifact.key
    assert {name: taken.place.read(name) for name in taken.place.names()} == members(released)
    assert load_labels("theirs", store=tmp_path / "store").video_ids == load_labels(released).video_ids
    assert adopt(released, store, "theirs") == taken
    assert [path for path in tmp_path.rglob(".*") if path.name != ".runs"] == []


def test_what_is_not_sound_is_neither_released_nor_adopted(released: Path, demo_copy: Any, tmp_path: Path) -> None:
    store = Store(demo_copy.store)
    labels = store.get("labels/uwav")
    chunk = next(path for path in sorted((labels.path / "audio_soft" / "c").rglob("*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="not sound and is not released: audio_soft"):
        release(labels, store, tmp_path / NAME)
    (tmp_path / NAME).write_bytes(released.read_bytes()[:-30])
    with pytest.raises(StoreError, match="not sound and is not taken in"):
        adopt((tmp_path / NAME), Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_release_is_never_written_over(released: Path, finished_demo: Any) -> None:
    store, before = Store(finished_demo.store), released.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        release(store.get("labels/uwav"), store, released)
    assert released.read_bytes() == before


def test_every_one_of_two_hundred_flipped_bytes_is_caught(released: Path, tmp_path: Path) -> None:
    assert verify_release(released).is_sound
    data, rng = released.read_bytes(), np.random.default_rng(20)
    spans = {name: open_zip(released).members[name] for name in members(released)}
    metadata = [span for name, span in spans.items() if name.endswith("zarr.json")]
    chunks = [span for name, span in spans.items() if not name.endswith("zarr.json")]
    missed = []
    for turn in range(200):
        if turn % 4 == 3:  # anywhere at all: headers and table of contents of the zip too
            place = int(rng.integers(len(data)))
        else:
            start, size = (metadata if turn % 2 else chunks)[int(rng.integers(len(metadata if turn % 2 else chunks)))]
            place = start + int(rng.integers(size))
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / NAME).write_bytes(flipped)
        if verify_release(tmp_path / NAME).is_sound:
            missed.append(place)
    assert missed == []


def test_every_flipped_byte_of_a_shard_index_is_caught(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = release(made_labels(store, clips=4000), store, tmp_path / "big.zarr.zip").path
    start, size = open_zip(path).members["audio_soft/c/0/0/0"]
    data = path.read_bytes()
    for place in range(start + size - 40, start + size):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        (tmp_path / NAME).write_bytes(flipped)
        assert "audio_soft" in [one.where for one in verify_release(tmp_path / NAME).findings]


def rename_to(name: str) -> Callable[[Path, Path], None]:
    def make(released: Path, out: Path) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            for member, data in members(released).items():
                archive.writestr(zipfile.ZipInfo(name if member == "weak/zarr.json" else member), data)

    return make


def compress(released: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members(released).items():
            archive.writestr(member, data)


def link(released: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for member, data in members(released).items():
            info = zipfile.ZipInfo(member)
            if member == "weak/zarr.json":
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                data = b"/etc/passwd"
            archive.writestr(info, data)


def twice(released: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for member, data in members(released).items():
            archive.writestr(zipfile.ZipInfo(member), data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(zipfile.ZipInfo("weak/zarr.json"), b"{}")


def declare_a_terabyte(released: Path, out: Path) -> None:
    """Write a huge size over those of one member in the table of contents."""
    data = bytearray(released.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 20 : place + 28] = b"\xfe\xff\xff\xff" * 2
    out.write_bytes(data)


def cut_off(released: Path, out: Path) -> None:
    out.write_bytes(released.read_bytes()[:5000])


def no_zip(released: Path, out: Path) -> None:
    out.write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (rename_to("../evil"), r"holds a file named '\.\./evil'"),
        (rename_to("weak/../../evil"), "do not unpack it"),
        (rename_to("/etc/evil"), "holds a file named '/etc/evil'"),
        (rename_to("C:\\evil"), "holds a file named"),
        (rename_to("weak/.hidden"), "holds a file named"),
        (link, "weak/zarr.json is a symbolic link"),
        (compress, "is compressed"),
        (twice, "two files of one name"),
        (declare_a_terabyte, r"declares \d+ bytes of files"),
        (cut_off, "not a zip that can be read"),
        (no_zip, "not a zip that can be read"),
    ],
)
def test_a_zip_that_is_no_plain_zip_is_refused_and_nothing_is_written(
    released: Path, tmp_path: Path, make: Callable[[Path, Path], None], fault: str
) -> None:
    make(released, tmp_path / NAME)
    with pytest.raises(StoreError, match=fault):
        load_labels(tmp_path / NAME)
    with pytest.raises(StoreError, match=fault):
        adopt(tmp_path / NAME, Store(tmp_path / "store"))
    assert [path.name for path in tmp_path.rglob("*")] == [NAME]


def without(prefix: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.startswith(prefix)]:
            del files[name]

    return change


def bomb(files: dict[str, bytes]) -> None:
    """A shard of one chunk that says it decodes to a terabyte, with right checksums."""
    import google_crc32c  # zarr's own

    def checked(data: bytes) -> bytes:
        return data + int(google_crc32c.value(data)).to_bytes(4, "little")

    chunk = checked(b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + (2**40).to_bytes(8, "little") + b"\x00" * 8)
    files["audio_soft/c/0/0/0"] = chunk + checked(struct.pack("<2Q", 0, len(chunk)))


def of_format(version: object) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        root = json.loads(files[METADATA])
        root["attributes"]["format"] = version
        files[METADATA] = json.dumps(root).encode()

    return change


def codec(name: str) -> list[dict[str, Any]]:
    return [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": name, "configuration": {}}]


FORGERIES: list[tuple[Callable[[dict[str, bytes]], None], str]] = [
    (with_metadata("weak/zarr.json", data_type="object"), "data type 'object' is none of"),
    (with_metadata("weak/zarr.json", data_type={"name": "null_terminated_bytes"}), "is none of bool"),
    (with_metadata("weak/zarr.json", codecs=codec("numcodecs.pickle")), r"numcodecs.pickle.*not among zstd, crc32c"),
    (with_metadata("weak/zarr.json", storage_transformers=[{"name": "x"}]), "storage_transformers"),
    (with_metadata("weak/zarr.json", shape=[20, 3]), r"has shape \(20, 3\), but axis C has 11|axis C"),
    (with_metadata("weak/zarr.json", shape=[20]), "do not fit the shape"),
    (
        with_metadata("audio_soft/zarr.json", shape=[2**39, 10, 11]),
        "takes more than 131072 files",
    ),
    (with_metadata("audio_soft/zarr.json", data_type="float64"), "holds float64, where float32 is wanted"),
    (without("visual_hard/"), "has no visual_hard"),
    (without("video_ids/"), "has no video_ids"),
    (of_format(2), "format 2, and this program reads up to 1: install a newer avvp-pipe"),
    (of_format("1"), "names no artifact format"),
    (bomb, "says that it decodes to 1099511627776 bytes"),
]


@pytest.mark.parametrize(("change", "fault"), FORGERIES)
def test_labels_of_a_stranger_that_are_no_labels_are_refused_with_what_is_wrong(
    released: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], fault: str
) -> None:
    path = forged(released, change, tmp_path / NAME)
    with pytest.raises(StoreError, match=fault):
        _ = load_labels(path).audio_soft
    assert not verify_release(path).is_sound


def test_a_zip_without_metadata_is_refused(released: Path, tmp_path: Path) -> None:
    pack(tmp_path / NAME, [item for item in members(released).items() if item[0] != METADATA])
    with pytest.raises(StoreError, match="no Zarr group is readable"):
        load_labels(tmp_path / NAME)


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1.5, "outside 0 to 1")]
)
def test_soft_labels_that_are_no_probabilities_are_refused(tmp_path: Path, value: float, fault: str) -> None:
    artifact = made_labels(Store(tmp_path))
    array = artifact.array("audio_soft").copy()
    array[3, 2, 1] = value
    zarr.open_array(artifact.path / "audio_soft", mode="r+")[...] = array
    labels = load_labels(artifact.path)
    with pytest.raises(StoreError, match=fault):
        _ = labels.audio_soft
    with pytest.raises(StoreError, match=fault):
        _ = labels[labels.video_ids[3]]
    assert labels[labels.video_ids[4]].audio_soft is not None


def test_what_is_no_plain_file_in_a_folder_of_labels_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    folder = made_labels(Store(tmp_path)).path
    metadata, chunk = (
        folder / "weak" / METADATA,
        next(path for path in (folder / "weak" / "c").rglob("*") if path.is_file()),
    )
    kept = metadata.read_bytes()
    metadata.unlink()
    os.mkfifo(metadata)
    with pytest.raises(StoreError, match="no plain file"):
        load_labels(folder)
    assert not verify(artifact_in(folder)).is_sound
    metadata.unlink()
    with metadata.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(StoreError, match="larger than 67108864 bytes"):
        load_labels(folder)
    metadata.unlink()
    metadata.write_bytes(kept)
    elsewhere = tmp_path / "chunk"
    chunk.rename(elsewhere)
    chunk.symlink_to(elsewhere)
    assert [one.message for one in verify(artifact_in(folder)).findings] == [
        "is a symbolic link, where an artifact holds plain files only"
    ]


def mutations() -> st.SearchStrategy[Callable[[Any], Any]]:
    """Ways of changing one place of a JSON document: another value, a member more or less."""
    values = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
        st.lists(st.integers(-3, 2**40), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    )  # fmt: skip

    def place(path: list[int], value: Any, drop: bool) -> Callable[[Any], Any]:
        def change(node: Any, rest: list[int] = path) -> Any:
            if isinstance(node, dict) and node and rest:
                key = sorted(node)[rest[0] % len(node)]
                if drop and len(rest) == 1:
                    return {name: node[name] for name in node if name != key}
                return {**node, key: change(node[key], rest[1:])}
            if isinstance(node, list) and node and rest:
                index = rest[0] % len(node)
                return [*node[:index], change(node[index], rest[1:]), *node[index + 1 :]]
            return value

        return change

    return st.builds(place, st.lists(st.integers(0, 99), min_size=1, max_size=7), values, st.booleans())


@pytest.fixture(scope="module")
def small_labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = made_labels(Store(tmp_path_factory.mktemp("small")), clips=3).path
    yield folder
    shutil.rmtree(folder)


def read_everything(folder: Path) -> None:
    labels = load_labels(folder)
    for name in (
        "audio_hard",
        "visual_hard",
        "audio_soft",
        "visual_logits",
        "audio_thresholds",
        "weak",
        "status",
        "splits",
    ):
        getattr(labels, name)
    for video_id in labels.video_ids:
        labels[video_id]
    _ = labels.provenance, labels.artifact.identity, labels.artifact.described


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.integers(0, 99), mutate=mutations())
def test_a_thousand_mutations_of_the_metadata_raise_nothing_but_the_documented_error(
    small_labels: Path, file: int, mutate: Callable[[Any], Any]
) -> None:
    files = sorted(small_labels.rglob(METADATA))
    chosen = files[file % len(files)]
    before = chosen.read_bytes()
    mutated = json.dumps(mutate(json.loads(before))).encode()
    try:
        chosen.write_bytes(mutated)
        with suppress(StoreError):  # anything else fails the test
            read_everything(small_labels)
        if mutated != before and json.loads(mutated) != json.loads(before):
            verify(artifact_in(small_labels))
    finally:
        chosen.write_bytes(before)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.integers(0, 99), data=st.binary(max_size=60), place=st.integers(0, 10**6))
def test_files_with_other_bytes_in_them_raise_nothing_but_the_documented_error(
    small_labels: Path, file: int, data: bytes, place: int
) -> None:
    files = sorted(path for path in small_labels.rglob("*") if path.is_file())
    chosen = files[file % len(files)]
    before = chosen.read_bytes()
    place %= len(before)
    try:
        chosen.write_bytes(before[:place] + data + before[place + len(data) // 2 :])
        with suppress(StoreError):  # anything else fails the test
            read_everything(small_labels)
        assert verify(artifact_in(small_labels)).is_sound == (chosen.read_bytes() == before)
    finally:
        chosen.write_bytes(before)

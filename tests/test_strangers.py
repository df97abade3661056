"""What strangers, accidents and kills leave in a store: said in words, bounded in memory, never taken for sound."""

import json
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from avvp_pipe.store import Identity, Reference, Store, StoreError, StoreWriteError, artifact_in, load_labels
from avvp_pipe.store.integrity import METADATA, file_digest, node_digests, sealed
from avvp_pipe.store.lineage import lineage
from avvp_pipe.store.places.zipped import open_zip, pack
from avvp_pipe.store.release import adopt, release, verify_release
from avvp_pipe.store.sites import FolderSite, lock_name
from avvp_pipe.store.verify import verify
from tests.made import IDENTITY, PLACE, made, made_labels, rows

CHUNK = "video_ids/c/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_labels(Store(tmp_path / "store")).path


def reseal(
    folder: Path, change: Callable[[dict[str, Any]], object] = lambda attributes: None, node: str | None = None
) -> None:
    """Make the digests right again, as a stranger who means harm would."""
    attributes = json.loads((folder / METADATA).read_bytes())["attributes"]
    attributes = {name: value for name, value in attributes.items() if name not in ("format", "integrity")}
    change(attributes)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    digests = node_digests({name: file_digest((folder / name).read_bytes()) for name in names})
    (folder / METADATA).write_bytes(sealed(attributes, {**digests, **({node: "0" * 64} if node else {})}))


def wrong(folder: Path) -> str:
    return "\n".join(f"{one.where}: {one.message}" for one in verify(artifact_in(folder)).findings)


@pytest.mark.parametrize("name", ["../../other/weak", "/etc", "we\0ak", "w" * 5000, "weak/zarr.json/x", "a/../../b"])
def test_an_array_that_could_lie_elsewhere_is_refused_and_not_looked_for(folder: Path, name: str) -> None:
    reseal(folder, node=name)
    with pytest.raises(StoreError):
        load_labels(folder)
    assert f"{name}: is missing" in wrong(folder)


def test_nothing_outside_an_artifact_is_read_by_a_name_in_it(folder: Path, tmp_path: Path) -> None:
    other = made_labels(Store(tmp_path / "store"), name="other")
    for name in (f"{os.path.relpath(other.path, folder)}/weak", f"{other.path}/weak"):
        with pytest.raises(StoreError, match="no name within a folder"):
            artifact_in(folder).facts(name)


def test_a_file_whose_name_is_no_text_is_found(folder: Path) -> None:
    (folder / "weak" / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    assert "weak: was changed" in wrong(folder)


def test_a_circle_of_links_is_found(folder: Path) -> None:
    (folder / "weak" / "loop").symlink_to("loop")
    assert "weak/loop: is a symbolic link" in wrong(folder)


@pytest.mark.parametrize("name", [METADATA, f"weak/{METADATA}", CHUNK])
def test_a_folder_in_place_of_a_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(StoreError):
        _ = load_labels(folder).video_ids
    assert wrong(folder)


def test_a_file_of_a_terabyte_is_found_and_not_read(folder: Path) -> None:
    with (folder / CHUNK).open("r+b") as file:
        file.truncate(2**40)
    assert f"{CHUNK}: is larger than" in wrong(folder)
    with pytest.raises(StoreError, match="larger than"):
        _ = load_labels(folder).video_ids


def test_an_array_of_more_files_than_anybody_has_is_refused_at_once(folder: Path) -> None:
    path = folder / "video_ids" / METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), "shape": [2**29]}))
    reseal(folder)
    with pytest.raises(StoreError, match="takes more than 131072 files"):
        load_labels(folder)


@pytest.mark.parametrize(
    ("value", "fault"),
    [("NaN", "NaN is no number"), ("-1e999", "-1e999 is no number"), ("[" * 70 + "]" * 70, "nested deeper than 64")],
)
def test_what_is_json_in_name_only_is_refused(folder: Path, value: str, fault: str) -> None:
    path = folder / METADATA
    path.write_text(path.read_text().replace('"made"', value))
    with pytest.raises(StoreError, match=fault):
        load_labels(folder)
    assert fault in wrong(folder)


def with_checksum(data: bytes) -> bytes:
    import google_crc32c  # zarr's own

    return data + struct.pack("<I", google_crc32c.value(data))


@pytest.mark.parametrize("after", [bytes(2**20), b"", None])
def test_nothing_is_decoded_that_follows_a_compressed_piece(folder: Path, after: bytes | None) -> None:
    """A second frame would be decoded too: thirty kilobytes to a gigabyte."""
    path = folder / "audio_soft" / "c" / "0" / "0" / "0"
    skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip"
    more = skipped if after is None else numcodecs.Zstd().encode(after)
    path.write_bytes(with_checksum(path.read_bytes()[:-4] + bytes(more)))
    with pytest.raises(StoreError, match="something follows it"):
        _ = load_labels(folder).audio_soft


@pytest.mark.parametrize("count", [2**31, 19, 21])
def test_text_that_says_it_holds_more_or_fewer_strings_is_refused(folder: Path, count: int) -> None:
    plain = numcodecs.Zstd().decode((folder / CHUNK).read_bytes()[:-4])
    (folder / CHUNK).write_bytes(with_checksum(numcodecs.Zstd().encode(struct.pack("<I", count) + plain[4:])))
    with pytest.raises(StoreError, match=f"holds {count} strings; 20 belong there"):
        _ = load_labels(folder).video_ids


def test_text_that_decodes_to_far_more_than_text_takes_is_refused(folder: Path) -> None:
    plain = struct.pack("<I", 20) + (struct.pack("<I", 2**20) + b"a" * 2**20) * 20
    (folder / CHUNK).write_bytes(with_checksum(numcodecs.Zstd().encode(plain)))
    with pytest.raises(StoreError, match="at most 86016 belong there"):
        _ = load_labels(folder).video_ids


def forged_release(folder: Path, change: Callable[[dict[str, Any]], object], out: Path) -> Path:
    """A zip of labels with other attributes, under the key that these make."""

    def named(attributes: dict[str, Any]) -> None:
        change(attributes)
        record = attributes["provenance"]
        keys = {role: text.rpartition("@")[2] for role, text in record["inputs"].items()}
        key = Identity(record["stage"], record["stage_version"], record["params"], keys, record["sources"]).key
        attributes.setdefault("release", {"reference": f"labels/mine@{key}", "digest": ""})

    reseal(folder, named)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = [METADATA, *(name for name in names if name != METADATA)]
    pack(out, [(name, (folder / name).read_bytes()) for name in files])
    return out


def test_a_record_that_would_stop_other_commands_is_not_taken_in(folder: Path, tmp_path: Path) -> None:
    def change(attributes: dict[str, Any]) -> None:
        attributes["provenance"]["inputs"] = {"features": "../../etc@0123456789ab"}

    path = forged_release(folder, change, tmp_path / "x.zarr.zip")
    with pytest.raises(StoreError, match="not taken in: input features"):
        adopt(path, Store(tmp_path / "mine"))


def test_a_release_that_says_it_is_no_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    told = {"release": {"reference": "scores/mine@0123456789ab", "digest": ""}}
    path = forged_release(folder, lambda attributes: attributes.update(told), tmp_path / "x.zarr.zip")
    with pytest.raises(StoreError, match="names a scores artifact"):
        adopt(path, Store(tmp_path / "mine"))
    assert not verify_release(path).is_sound


def test_a_release_that_cannot_be_written_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = release(artifact_in(folder), store, tmp_path / "x.zarr.zip").path
    files = [(name, path.read_bytes()[start : start + size]) for name, (start, size) in open_zip(path).members.items()]
    mine = Store(tmp_path / "mine")
    with pytest.raises(StoreWriteError, match="name too long"):
        mine.take_in(Reference("labels", "mine", "0123456789ab"), [*files, ("w" * 300, b"")], run_facts={})
    assert (list(mine.artifacts()), mine.leftovers()) == ([], ())


def test_a_pipe_called_a_zip_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.zarr.zip")
    with pytest.raises(StoreError, match="no plain file"):
        load_labels(tmp_path / "x.zarr.zip")


def test_a_carried_record_with_sources_of_another_type_is_refused(folder: Path, tmp_path: Path) -> None:
    record = {"stage": "x", "stage_version": 1, "params": {}, "inputs": {}, "sources": {"a": 5}}

    def change(attributes: dict[str, Any]) -> None:
        attributes["provenance"]["inputs"] = {"features": "features/x@0123456789ab"}
        attributes["lineage"] = {"features/x@0123456789ab": record}

    reseal(folder, change)
    with pytest.raises(StoreError, match="sources without digests"):
        lineage(Store(tmp_path / "mine"), artifact_in(folder))


def test_a_damaged_input_is_a_finding_and_no_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    read = made(store, PLACE, IDENTITY, rows)
    identity = Identity("pseudolabel", 1, {}, {"features": read.key})
    inputs = {"features": str(read.reference)}
    scores = made(store, Reference("scores", "s"), identity, lambda out: out.describe(a=1), inputs=inputs)
    (read.path / METADATA).write_text("{")
    assert [one.where for one in verify(scores, store).findings if "input" in one.where] == ["input features"]


@pytest.mark.parametrize("text", ["[1]", '{"stage": "x"}', '{"stage":"x","params":{},"inputs":{"a":1},"key":"k"}'])
def test_a_request_edited_by_hand_is_an_error_in_words(tmp_path: Path, text: str) -> None:
    made(Store(tmp_path), PLACE, IDENTITY, rows)
    (tmp_path / "features" / "mine" / ".request.json").write_text(text)
    with pytest.raises(StoreError, match="delete it"):
        Store(tmp_path).find(PLACE)


def test_a_copy_beside_an_artifact_does_not_hide_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = made(store, PLACE, IDENTITY, rows)
    (first.path.parent / f"{first.key}.bak").mkdir()
    (first.path.parent / f"{first.key}.bak" / METADATA).write_bytes(first.metadata)
    assert store.get(str(first.reference)) == first


@pytest.mark.parametrize("then", ["force", "remove"])
def test_a_build_killed_after_publishing_is_no_ground_to_build_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The journal that it left names shards that went with the artifact."""

    def killed(site: FolderSite) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(FolderSite, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            made(store, PLACE, IDENTITY, rows)
    first = store.get(str(PLACE))
    before, record = {name: first.place.read(name) for name in first.place.names()}, first.provenance
    if then == "remove":
        store.discard(first)
    build = partial(store.build, shard_rows=8, run_facts={}, waiting=lambda holder: None, renew=then == "force")
    with build(PLACE, IDENTITY, provenance=lambda builder: record) as builder:
        assert builder is not None
        rows(builder)
    again = store.get(str(PLACE))
    assert {name: again.place.read(name) for name in again.place.names()} == before
    assert verify(again).is_sound


@pytest.mark.parametrize("now", ["the same", "others"])
def test_an_unfinished_build_is_gone_on_with_only_of_what_it_began_with(tmp_path: Path, now: str) -> None:
    store, record = Store(tmp_path), made(Store(tmp_path / "one"), PLACE, IDENTITY, rows).provenance
    build = partial(store.build, PLACE, IDENTITY, shard_rows=8, run_facts={}, waiting=lambda holder: None)

    def run(begun: str, until: Callable[[int], None]) -> None:
        with build(provenance=lambda builder: record, begun_with={"inputs": begun}) as builder:
            assert builder is not None
            rows(builder, until=until)

    def stop(start: int) -> None:
        if start == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("the same", stop)
    written: list[int] = []
    run(now, written.append)
    assert written[0] == (16 if now == "the same" else 0)


def test_what_a_kill_in_the_middle_of_a_swap_left_is_whole_and_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    old = made(store, PLACE, IDENTITY, rows)
    record, digest = old.provenance, old.digest
    build = partial(store.build, PLACE, IDENTITY, shard_rows=8, run_facts={}, waiting=lambda holder: None)

    def run(older: str | None, until: Callable[[int], None]) -> None:
        with build(provenance=lambda builder: record, begun_with={"older": older}, renew=bool(older)) as builder:
            assert builder is not None
            rows(builder, until=until)

    def killed(site: FolderSite, root: bytes) -> None:
        (site.folder / site.key).rename(site.folder / f".{site.key}.discarded")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FolderSite, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(digest, lambda start: None)
    assert store.find(PLACE) is None
    written: list[int] = []
    run(None, written.append)
    assert written == []
    assert store.get(str(PLACE)).digest == digest
    assert store.leftovers() == ()


@pytest.mark.parametrize("line", ["[1]", '{"start": 0}', '{"start": 0, "files": 3, "failures": []}', "\xff"])
def test_a_damaged_journal_is_an_error_in_words(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "features" / "mine" / f".{IDENTITY.key}.partial"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text(f"{line}\n")
    with pytest.raises(StoreError, match="is damaged"):
        made(Store(tmp_path), PLACE, IDENTITY, rows)


def test_what_another_layout_began_is_not_gone_on_with(tmp_path: Path) -> None:
    def stop(start: int) -> None:
        if start:
            raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        made(store, PLACE, IDENTITY, partial(rows, until=stop))
    with pytest.raises(StoreError, match="of another layout"):
        made(store, PLACE, IDENTITY, rows, shard_rows=4)


def test_a_finished_artifact_is_not_tidied_while_it_is_built_anew(tmp_path: Path) -> None:
    from filelock import FileLock

    store = Store(tmp_path)
    artifact = made(store, PLACE, IDENTITY, rows)
    partial_folder = artifact.path.parent / f".{artifact.key}.partial"
    partial_folder.mkdir()
    with FileLock(artifact.path.parent / lock_name(artifact.key)):
        store.tidy(artifact)
        assert partial_folder.exists()
    store.tidy(artifact)
    assert not partial_folder.exists()


def test_strings_of_every_length_come_back(tmp_path: Path) -> None:
    texts = ["", "é" * 4000, *(f"clip{row}" for row in range(40_000))]
    artifact = made(Store(tmp_path), PLACE, IDENTITY, lambda builder: builder.put("texts", texts))
    assert artifact.strings("texts") == tuple(texts)
    np.testing.assert_array_equal(artifact.array("texts"), np.array(texts, dtype=object))

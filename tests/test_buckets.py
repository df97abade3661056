"""The same store on S3: a real server of the protocol on loopback, real kills, nothing half-visible."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Builder, Store, StoreError, StoreWriteError, load_labels
from avvp_pipe.store.places import cache_folder, locks
from avvp_pipe.store.places.bucket import Bucket
from avvp_pipe.store.sites import BucketSite
from avvp_pipe.store.verify import verify
from tests.made import IDENTITY, PLACE, made, made_labels, rows


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A moto server in a process of its own; yields its address."""
    code = (
        "import logging; logging.getLogger('werkzeug').setLevel(logging.ERROR)\n"
        "import time; from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False); server.start()\n"
        "print(server.get_host_and_port()[1], flush=True); time.sleep(10**6)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket with credentials in the environment, and a cache of this test's own."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": server, "AWS_ALLOW_HTTP": "true", "AVVP_PIPE_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{time.time_ns()}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/some/artifacts"


def names_in(url: str) -> list[str]:
    return [name for name in Store(url).place.names()]


def without_cache() -> None:
    """As on another machine."""
    shutil.rmtree(cache_folder(), ignore_errors=True)


def test_an_artifact_in_a_bucket_has_the_same_bytes_as_one_in_a_folder(url: str, tmp_path: Path) -> None:
    here, there = made(Store(tmp_path), PLACE, IDENTITY, rows), made(Store(url), PLACE, IDENTITY, rows)
    assert there.location == f"{url}/features/mine/{IDENTITY.key}"
    assert {name: there.place.read(name) for name in there.place.names()} == {
        name: here.place.read(name) for name in here.place.names()
    }
    np.testing.assert_array_equal(there.array("visual"), here.array("visual"))
    assert there.digest == here.digest
    assert [name for name in names_in(url) if "partial" in name or "lock" in name] == []


def test_references_tags_and_requests_work_in_a_bucket(url: str) -> None:
    store = Store(url)
    first, second = made_labels(store, seed=1), made_labels(store, seed=2)
    store.tag(first, "paper")
    assert store.get("labels/mine@paper").key == first.key
    assert store.get("labels/mine@latest").key == second.key
    assert [one.key for one in store.artifacts()] == [first.key, second.key]
    store.discard(first)
    assert [one.key for one in store.artifacts()] == [second.key]
    assert not [name for name in names_in(url) if first.key in name and not name.endswith(".tags.json")]


def test_labels_load_from_a_bucket_and_are_read_from_it_once(url: str, server: str, monkeypatch: Any) -> None:
    made_labels(Store(url))
    labels = load_labels("mine", store=url)
    assert labels[labels.video_ids[3]].audio_hard.shape == (10, 3)
    assert labels.audio_soft.shape == (20, 10, 3)
    read: list[str] = []
    whole = Bucket.read

    def noted(self: Bucket, name: str) -> bytes:
        read.append(f"{self.location}/{name}")
        return whole(self, name)

    monkeypatch.setattr(Bucket, "read", noted)
    again = load_labels("mine", store=url)
    np.testing.assert_array_equal(again.audio_soft, labels.audio_soft)
    assert read, "the root's metadata are always asked for"
    assert [name for name in read if "/audio_soft/" in name or "/video_ids/" in name] == []
    assert verify(again.artifact, Store(url)).is_sound


def test_a_stage_runs_on_a_bucket_through_the_command_line(
    url: str, finished_demo: Any, avvp: Any, tmp_path: Path
) -> None:
    manifest = finished_demo.out / "world" / "target.jsonl"
    ran = avvp("dataset", "--source", manifest, "--name", "mine", "--store", url, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["path"].startswith(url)
    assert (
        avvp("dataset", "--source", manifest, "--name", "mine", "--store", url, "--json").document["state"] == "cached"
    )
    for command in (("ls",), ("status",), ("verify",), ("show", "dataset/mine"), ("lineage", "dataset/mine")):
        assert avvp(*command, "--store", url).code == 0, command


@contextmanager
def proxy(server: str, lets_through: Callable[[str], bool]) -> Iterator[str]:
    """Stands before the server and asks `lets_through` of the path of every object that is put, before it is."""

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT" and not lets_through(self.path):
                return  # the connection breaks off; the server never hears of it
            inner = http.client.HTTPConnection(server.removeprefix("http://"))
            inner.request(self.command, self.path, body, dict(self.headers.items()))
            answer = inner.getresponse()
            data = answer.read()
            inner.close()
            with suppress(ConnectionError):  # whoever asked may have been killed
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    between = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{between.server_address[1]}"
    between.shutdown()
    between.server_close()


BUILD = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from made import *\n"
    "made(Store(sys.argv[1]), PLACE, IDENTITY, rows)"
)


@pytest.mark.parametrize("put", ["visual/c/0", "visual/c/2", "partial/000000000016", "status/zarr.json", "/zarr.json"])
@pytest.mark.parametrize("machine", ["same", "another"])
def test_a_build_killed_in_the_middle_of_a_put_shows_nothing_and_goes_on(
    url: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: str, machine: str
) -> None:
    whole = made(Store(tmp_path / "whole"), PLACE, IDENTITY, rows)
    reached, kill_done = threading.Event(), threading.Event()

    def lets_through(path: str) -> bool:
        if put not in path or (put == "/zarr.json" and not path.endswith(f"{IDENTITY.key}/zarr.json")):
            return True
        reached.set()
        kill_done.wait(60)
        return False

    with proxy(server, lets_through) as through:
        environment = {**os.environ, "AWS_ENDPOINT": through}
        process = subprocess.Popen([sys.executable, "-c", BUILD, url], env=environment)
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(Store(url).artifacts()) == []
        assert Store(url).find(PLACE) is None
        kill_done.set()
    if machine == "another":
        without_cache()
        monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)  # the killed one's lease would be honoured for a while
    written: list[int] = []
    made(Store(url), PLACE, IDENTITY, partial(rows, until=written.append))
    done = {"visual/c/0": 0, "visual/c/2": 2, "partial/000000000016": 2}.get(put, 5)
    assert written[0:1] == ([8 * done] if done < 5 else [])
    there = Store(url).get(str(PLACE))
    assert {name: there.place.read(name) for name in there.place.names()} == {
        name: whole.place.read(name) for name in whole.place.names()
    }
    assert [one.location for one in Store(url).leftovers()] == []


def test_a_lease_that_is_renewed_is_honoured_and_one_that_is_not_is_taken_over(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 1.0)
    bucket = Store(url).place
    assert isinstance(bucket, Bucket)
    events: list[str] = []

    def hold(beats: float) -> None:
        with locks.lease(bucket, ".lock", lambda holder: events.append(f"waiting for {holder}")):
            events.append("held")
            time.sleep(beats)
            events.append("let go")

    first = threading.Thread(target=hold, args=(2.5,))
    first.start()
    while "held" not in events:
        time.sleep(0.01)
    hold(0)
    first.join()
    assert events[0] == "held"
    assert events[1].startswith(f"waiting for process {os.getpid()} on ")
    assert events[2:] == ["let go", "held", "let go"]
    bucket.write(".lock", json.dumps({"host": "elsewhere", "pid": 1, "since": "2026-01-01T00:00:00"}).encode())
    hold(0)
    assert events[5:] == ["waiting for process 1 on elsewhere, since 2026-01-01 00:00:00 UTC", "held", "let go"]


def test_leftovers_of_a_build_in_a_bucket_are_found_and_cleared(url: str) -> None:
    def fail(start: int) -> None:
        if start == 16:
            raise RuntimeError("stopped")

    store = Store(url)
    with pytest.raises(RuntimeError, match="stopped"):
        made(store, PLACE, IDENTITY, partial(rows, until=fail))
    found = store.leftovers()
    assert {one.name.rpartition("/")[2] for one in found} == {IDENTITY.key, f".{IDENTITY.key}.partial"}
    for one in found:
        store.clear(one)
    assert names_in(url) == []
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


def test_credentials_in_a_url_are_refused_and_never_repeated() -> None:
    with pytest.raises(StoreError, match="carries credentials") as refused:
        Store("s3://key:secret@bucket/artifacts")
    assert "secret" not in str(refused.value)
    with pytest.raises(StoreError, match="no store can be kept at ftp://"):
        Store("ftp://host/artifacts")


def test_a_bucket_that_is_not_there_or_not_reachable_is_a_clear_error(
    url: str, avvp: Any, finished_demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = finished_demo.out / "world" / "target.jsonl"
    with pytest.raises(StoreWriteError, match="there is no such bucket"):
        made(Store("s3://nobody-has-this/artifacts"), PLACE, IDENTITY, rows)
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    ran = avvp("dataset", "--source", manifest, "--name", "mine", "--store", url)
    assert ran.code == 1
    assert "check the URL, the network and the credentials" in ran.err


def test_a_training_goes_on_from_its_checkpoint_on_another_machine(
    url: str, demo_copy: Any, avvp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avvp_pipe.stages.blocks import training

    place = Store(url).place
    for name in Store(demo_copy.store).place.names():
        if name.startswith(("dataset/pretrain/", "features/pretrain/")):
            place.write(name, Store(demo_copy.store).place.read(name))
    small = ("--width", "32", "--heads", "4", "--ffn", "32", "--layers", "1", "--epochs", "6", "--name", "mine")
    command = ("pretrain", "--dataset", "pretrain", "--features", "pretrain", *small)
    assert avvp(*command, "--store", demo_copy.store).code == 0
    save, trained, dies = training._save, [0], [True]

    def counted(*arguments: Any) -> None:
        trained[0] += 1
        if dies[0] and trained[0] == 4:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(training, "_save", counted)
    assert avvp(*command, "--store", url).code == 130
    without_cache()
    trained[0], dies[0] = 0, False
    ran = avvp(*command, "--store", url)
    assert ran.code == 0, ran.err
    assert trained[0] == 3, "three of the six epochs were done before"
    here, there = (Store(root).get("generator/mine") for root in (demo_copy.store, url))
    assert there.digest == here.digest


def test_what_a_failed_build_put_into_a_bucket_goes_with_it(url: str) -> None:
    def fill(builder: Builder) -> None:
        builder.put("x", np.ones(3))
        builder.describe(a=np.nan)

    with pytest.raises(StoreError, match="JSON cannot hold"):
        made(Store(url), PLACE, IDENTITY, fill)
    assert [name for name in names_in(url) if IDENTITY.key in name] == []


def test_an_artifact_in_a_bucket_that_is_built_anew_is_out_of_sight_meanwhile(url: str) -> None:
    """Its files are written over one by one, so that nobody may see some of the old and some of the new."""
    store = Store(url)
    old = made(store, PLACE, IDENTITY, lambda builder: builder.put("x", np.ones(3)))
    record = old.provenance
    with store.build(
        PLACE,
        IDENTITY,
        shard_rows=8,
        provenance=lambda builder: record,
        run_facts={},
        waiting=lambda holder: None,
        renew=True,
    ) as builder:
        assert builder is not None
        assert store.find(old.reference) is None
        builder.put("x", np.zeros(3))
    np.testing.assert_array_equal(store.get(str(old.reference)).array("x"), np.zeros(3))


def test_an_artifact_in_a_bucket_that_is_taken_over_from_stays_until_the_new_one_is_whole(url: str) -> None:
    store, begun = Store(url), {"inputs": {}, "older": "x"}
    old = made(store, PLACE, IDENTITY, rows)
    digest, record, visual = old.digest, old.provenance, old.array("visual")
    build = partial(
        store.build, PLACE, IDENTITY, shard_rows=8, run_facts={}, waiting=lambda holder: None, renew=True,
        previous=old, begun_with=begun, provenance=lambda builder: record,
    )  # fmt: skip

    def fail(start: int, *, at: int) -> None:
        if start == at:
            raise KeyboardInterrupt

    def run(until: Callable[[int], None]) -> None:
        with build() as builder:
            assert builder is not None
            until(-1)
            rows(builder, until=until)

    for fatal in (-1, 16):
        with pytest.raises(KeyboardInterrupt):
            run(partial(fail, at=fatal))
        assert verify(store.get(str(PLACE))).is_sound
    np.testing.assert_array_equal(old.rows("visual", slice(24, 32)), visual[24:32])
    written: list[int] = []
    run(written.append)
    assert written[1] == 16, "what was done of it is not done again"
    assert verify(store.get(str(PLACE))).is_sound
    assert store.get(str(PLACE)).digest == digest
    assert store.leftovers() == ()


@pytest.mark.parametrize("then", ["force", "remove"])
def test_a_build_killed_after_publishing_into_a_bucket_is_no_ground_to_build_on(
    url: str, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The journal that it left names shards that went with the artifact, or are written over."""

    def killed(site: BucketSite) -> None:
        raise KeyboardInterrupt

    store = Store(url)
    with monkeypatch.context() as patched:
        patched.setattr(BucketSite, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            made(store, PLACE, IDENTITY, rows)
    first = store.get(str(PLACE))
    digest, record = first.digest, first.provenance
    if then == "remove":
        store.discard(first)
    written: list[int] = []
    build = partial(store.build, shard_rows=8, run_facts={}, waiting=lambda holder: None, renew=then == "force")
    with build(PLACE, IDENTITY, provenance=lambda builder: record) as builder:
        assert builder is not None
        rows(builder, until=written.append)
    assert written == [0, 8, 16, 24, 32]
    again = store.get(str(PLACE))
    assert again.digest == digest
    assert verify(again).is_sound
    assert store.leftovers() == ()


def test_shards_that_vanish_from_a_bucket_during_a_build_are_missed_before_it_is_published(url: str) -> None:
    def vanish(start: int) -> None:
        if start == 32:
            Store(url).place.remove(f"features/mine/{IDENTITY.key}/visual/c/0")

    with pytest.raises(StoreWriteError, match=r"visual/c/0/0/0 was removed while this was built"):
        made(Store(url), PLACE, IDENTITY, partial(rows, until=vanish))
    assert list(Store(url).artifacts()) == []
    made(Store(url), PLACE, IDENTITY, rows)
    assert verify(Store(url).get(str(PLACE))).is_sound


def test_who_lost_the_lease_stops_and_touches_nothing_of_who_took_over(url: str) -> None:
    lock = f"features/mine/.{IDENTITY.key}.lock"
    taken = json.dumps({"host": "elsewhere", "pid": 1, "since": "2026-01-01T00:00:00"}).encode()
    names: list[list[str]] = []

    def lose(start: int) -> None:
        if start == 24:
            Store(url).place.write(lock, taken)
            names.append(names_in(url))

    with pytest.raises(StoreWriteError, match="is built by another machine now"):
        made(Store(url), PLACE, IDENTITY, partial(rows, until=lose))
    assert Store(url).place.read(lock) == taken
    assert set(names[0]) <= set(names_in(url))
    assert list(Store(url).artifacts()) == []


def test_verify_reads_what_is_stored_and_not_what_was_cached(url: str) -> None:
    labels = load_labels(made_labels(Store(url)).reference.name, store=url)
    assert labels.audio_soft.shape == (20, 10, 3)
    name = "audio_soft/c/0/0/0"
    data = bytearray(labels.artifact.place.read(name))
    data[20] ^= 1
    Store(url).place.write(f"labels/mine/{labels.artifact.key}/{name}", bytes(data))
    assert [one.where for one in verify(labels.artifact).findings] == ["audio_soft", "arrays"]


@pytest.mark.parametrize("spoiled", ["no folder", "folders for files"])
def test_a_cache_of_no_use_costs_no_read(url: str, spoiled: str) -> None:
    made_labels(Store(url))
    expected = load_labels("mine", store=url).audio_soft
    if spoiled == "no folder":
        without_cache()
        cache_folder().parent.mkdir(exist_ok=True)
        cache_folder().write_text("a file")
    else:
        for path in [path for path in cache_folder().rglob("*") if path.is_file()]:
            path.unlink()
            path.mkdir()
    np.testing.assert_array_equal(load_labels("mine", store=url).audio_soft, expected)

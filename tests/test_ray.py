"""Extraction on a Ray cluster: nodes and workers may go, and the artifact has the bytes that one process makes."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import ray
from ray.cluster_utils import Cluster

from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.stages.blocks.embedding import Embedding
from avvp_pipe.stages.executors import open_executor, ray_nodes, ray_teachers
from avvp_pipe.stages.executors.ray_nodes import Setting, setting
from avvp_pipe.stages.media import Sampling
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Store

T = TypeVar("T")

CLIPS = 80
"""Five units."""
SECONDS = 2
BROKEN = {3: "missing-file", 33: "empty-file", 34: "not-a-video"}
A_UNIT = 2 * 16 * SECONDS
"""Embeddings."""
MEMORY = 100 * 2**20
TEACHERS = {"visual_teacher": "tiny-clip", "audio_teacher": "tiny-clap"}
FLAGS = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap", "--executor", "ray", "--json")


@dataclass
class Machines:
    """A cluster of this machine: a head with one processor, and nodes that come and go."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY))

    def lose(self) -> None:
        """All processes of a node at once."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def kill(self, name: str) -> None:
        """All processes of the cluster that run, or ran last, functions of this name."""
        nodes = [self.cluster.head_node, *self.nodes]
        raylets = {node.all_processes["raylet"][0].process.pid for node in nodes}
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # gone
                parent = next(line for line in status.read_text().splitlines() if line.startswith("PPid"))
                if int(parent.split()[1]) in raylets and name in (status.parent / "cmdline").read_text():
                    os.kill(int(status.parent.name), signal.SIGKILL)

    @contextlib.contextmanager
    def killing(self, name: str, *, until: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Kill them again and again, from beside, until something is so or the block is over."""
        over = threading.Event()

        def kill() -> None:
            while not (until() or over.wait(0.05)):
                self.kill(name)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield Machines(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Clips:
    """A dataset, and its features as one process makes them."""

    store: Store
    local: Outcome

    def extract(self, name: str, progress: Silent | None = None, **params: Any) -> Outcome:
        step = Step("extract", name, {**TEACHERS, "executor": "ray", **params}, {"dataset": "mine"})
        return run_step(self.store, step, progress=progress or Silent())


@pytest.fixture(scope="module")
def clips(finished_demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = tmp_path_factory.mktemp("clips")
    (folder / "empty-file").touch()
    (folder / "not-a-video").write_text("this is not a video\n")
    videos = sorted((finished_demo.out / "world" / "videos").glob("*.mp4"))
    with (folder / "clips.jsonl").open("w") as manifest:
        for row in range(CLIPS):
            path = BROKEN.get(row, str(videos[row % len(videos)]))
            clip = {"id": f"clip{row}", "path": path, "split": "train", "labels": ["Bell"], "seconds": SECONDS}
            print(json.dumps(clip), file=manifest)
    store = Store(folder / "store")
    run_step(store, Step("dataset", "mine", {"source": str(folder / "clips.jsonl")}), progress=Silent())
    return Clips(store, run_step(store, Step("extract", "local", TEACHERS, {"dataset": "mine"}), progress=Silent()))


class Accidents(Silent):
    """A progress that has things happen when so many embeddings are done."""

    def __init__(self, happening: dict[int, Callable[[], None]]) -> None:
        self.happening = happening

    def track(self, items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
        for count, item in enumerate(items, start=done):
            yield item
            if count in self.happening:
                self.happening[count]()


def test_a_node_and_a_teacher_are_lost_and_the_bytes_are_those_of_one_process(
    machines: Machines, clips: Clips, caplog: pytest.LogCaptureFixture
) -> None:
    def lost() -> bool:
        return "are done again" in caplog.text

    machines.add()
    with machines.killing("TeacherOnNode.unit", until=lost):  # one that is at work
        found = clips.extract("ray", Accidents({A_UNIT: machines.lose}))
    assert lost()
    assert found.artifact.digest == clips.local.artifact.digest
    assert found.artifact.key == clips.local.artifact.key
    assert found.failures == clips.local.failures
    assert [one["code"] for one in found.failures] == list(BROKEN.values())


def test_clips_that_lose_three_workers_in_a_row_end_the_run_and_are_named(machines: Machines, clips: Clips) -> None:
    message = r"3 workers .* in a row were lost with clips \d+ to \d+ .*kept"
    with machines.killing("decode_unit"), pytest.raises(ChildProcessError, match=message):
        clips.extract("never")


def test_what_a_teacher_says_is_told_as_it_is(machines: Machines, clips: Clips) -> None:
    with pytest.raises(ValueError, match=r"^--audio-map needs a teacher with VALOR") as raised:
        clips.extract("never", audio_map=True)
    assert type(raised.value) is ValueError


def test_a_node_with_other_weights_is_refused(
    machines: Machines, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_teachers, "weights_digests", lambda recipe: ("0" * 64, "1" * 64))
    with pytest.raises(ValueError, match=r"the weights of tiny-clip here have the digest .* the driver's 000000000000"):
        clips.extract("never")


def test_a_node_with_other_packages_is_refused(
    machines: Machines, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = setting()
    other = Setting(here.folder, "elsewhere", {**here.software, "torch": "1.0"})
    monkeypatch.setattr(ray_teachers, "setting", lambda: other)
    with pytest.raises(ValueError, match=r"has torch \S+ instead of 1\.0; .* what elsewhere has"):
        clips.extract("never")


def test_relative_paths_start_where_the_driver_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    driver = setting()
    monkeypatch.chdir("/")
    ray_nodes.take_place(driver, relative=True)
    assert Path.cwd() == tmp_path
    lost = Setting(str(tmp_path / "nowhere"), "elsewhere", driver.software)
    ray_nodes.take_place(lost, relative=False)
    with pytest.raises(ValueError, match=r"relative to .*nowhere on elsewhere, and node .* cannot go there"):
        ray_nodes.take_place(lost, relative=True)


def test_decoded_media_are_embedded_alike(
    machines: Machines, demo_copy: Any, avvp: Callable[..., Any], tmp_path: Path
) -> None:
    place = ("--store", demo_copy.store, "--quiet")
    ran = avvp("extract", "--dataset", "target", "--media", "target", "--name", "ray", *FLAGS, *place)
    assert ran.code == 0, ran.err
    store = Store(demo_copy.store)
    assert store.get("features/ray").digest == store.get("features/target").digest


def test_a_cluster_without_a_gpu_has_no_place_for_a_teacher_on_one(machines: Machines) -> None:
    with pytest.raises(ValueError, match="no node of the Ray cluster offers a GPU; add nodes"):
        ray_teachers.Crew(Embedding("tiny-clip", "tiny-clap", Sampling(), device="cuda"), 10)


def test_without_ray_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ValueError, match=r"pip install 'avvp-pipe\[ray\]'"),
        open_executor("ray", Embedding("tiny-clip", "tiny-clap", Sampling()), 10),
    ):
        pass


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given, message in ((address, "no Ray cluster answers at"), ("ray://head:10001", "for Ray's client")):
            command = "from avvp_pipe.stages.executors.ray_cluster import connected\nwith connected(): pass"
            environment = {**os.environ, "RAY_ADDRESS": given}
            ran = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True)
            assert message in ran.stderr
            assert ran.returncode == 1


def living(mark: str) -> list[str]:
    """Processes that were started with this in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_text(errors="replace"):
                found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
    return found


def test_without_a_cluster_one_is_begun_and_ended_and_ctrl_c_leaves_nothing_running(clips: Clips) -> None:
    mark = f"AVVP_TEST_{uuid.uuid4().hex}"
    command = [sys.executable, "-c", "from avvp_pipe.cli.main import main; main()", "extract", "--dataset", "mine"]
    command += ["--name", "alone", "--store", str(clips.store.root), *FLAGS]
    environment = {**os.environ, "RAY_ADDRESS": "local", mark: "1"}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, **options) as interrupted:
        assert interrupted.stderr is not None
        assert "embeddings" in (first := interrupted.stderr.readline()), first
        os.killpg(interrupted.pid, signal.SIGINT)
        assert interrupted.stderr.read().endswith("interrupted; run the same command again to go on\n")
    assert interrupted.returncode == 130
    assert not living(mark)
    ran = subprocess.run([*command, "--quiet"], stderr=subprocess.PIPE, check=False, **options)
    assert ran.returncode == 1, ran.stderr  # three clips failed
    assert json.loads(ran.stdout)["artifact"] == f"features/alone@{clips.local.artifact.key}"
    assert clips.store.get("features/alone").digest == clips.local.artifact.digest
    assert not living(mark)

"""Where an artifact comes from: every input once, back to the source files, whatever the records claim."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.store import Reference, Store, StoreError
from avvp_pipe.store.lineage import lineage, reached, turned
from avvp_pipe.store.release import release

Make = Callable[..., Any]


@pytest.fixture
def diamond(tmp_path: Path, make_artifact: Make) -> tuple[Store, dict[str, Any]]:
    """A dataset read by features and by labels that read the features too."""
    store = Store(tmp_path / "store")
    dataset = make_artifact(store, "dataset/d", sources={"a.csv": "1" * 64})
    features = make_artifact(store, "features/f", inputs={"dataset": dataset}, params={"dim": 4})
    labels = make_artifact(store, "labels/l", inputs={"dataset": dataset, "features": features})
    return store, {"dataset": dataset, "features": features, "labels": labels}


def record(stage: str, **inputs: str) -> dict[str, Any]:
    return {"stage": stage, "stage_version": 1, "params": {}, "inputs": inputs, "sources": {}, "software": {}}


def test_each_artifact_appears_once_and_every_input_is_an_edge(diamond: tuple[Store, dict[str, Any]]) -> None:
    store, made = diamond
    found = lineage(store, made["labels"])
    assert [node.reference for node in found.nodes] == [
        made[one].reference for one in ("labels", "dataset", "features")
    ]
    assert {(str(reader.kind), role, read.kind) for reader, role, read in found.edges} == {
        ("labels", "dataset", "dataset"), ("labels", "features", "features"), ("features", "dataset", "dataset"),
    }  # fmt: skip
    assert {node.where for node in found.nodes} == {"stored"}
    source = found.node(made["dataset"].reference).identity
    assert source is not None
    assert dict(source.sources) == {"a.csv": "1" * 64}


def test_an_input_that_is_gone_is_shown_as_missing_and_ends_the_command_with_1(
    diamond: tuple[Store, dict[str, Any]], avvp: Callable[..., Any]
) -> None:
    store, made = diamond
    store.discard(made["features"])
    ran = avvp("lineage", "labels/l", "--store", store.root)
    assert (ran.code, f"{made['features'].reference}, missing" in ran.out) == (1, True)


def test_an_input_that_lies_under_another_name_is_found_by_its_key(
    diamond: tuple[Store, dict[str, Any]], make_artifact: Make
) -> None:
    store, made = diamond
    store.discard(made["features"])
    twin = make_artifact(store, "features/other", inputs={"dataset": made["dataset"]}, params={"dim": 4})
    node = lineage(store, made["labels"]).node(made["features"].reference)
    assert (node.where, node.stored_as, node.record) == ("stored", twin.reference, twin.provenance)


def test_records_that_a_release_carries_stand_in_for_what_the_store_lacks(
    tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]
) -> None:
    elsewhere, store = Store(tmp_path / "elsewhere"), Store(tmp_path / "store")
    dataset = make_artifact(elsewhere, "dataset/d", sources={"a.csv": "1" * 64})
    features = make_artifact(elsewhere, "features/f", inputs={"dataset": dataset})
    carried = {str(one.reference): dict(one.provenance) for one in (dataset, features)}
    labels = make_artifact(store, "labels/l", inputs={"features": features}, lineage=carried)
    assert {node.where for node in lineage(store, labels).nodes[1:]} == {"recorded"}
    ran = avvp("lineage", "labels/l", "--store", store.root)
    assert (ran.code, ran.out.count("recorded in the release"), "source a.csv" in ran.out) == (0, 2, True)
    make_artifact(store, "dataset/d", sources={"a.csv": "1" * 64})
    assert lineage(store, labels).node(dataset.reference).where == "stored"


def test_a_forged_circle_is_walked_once(tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]) -> None:
    store = Store(tmp_path / "store")
    gone = make_artifact(store, "features/f")
    first, second = str(gone.reference), "dataset/d@" + "0" * 12
    carried = {first: record("extract", dataset=second, media=first), second: record("dataset", features=first)}
    labels = make_artifact(store, "labels/l", inputs={"features": gone}, lineage=carried)
    store.discard(gone)
    found = lineage(store, labels)
    assert [str(node.reference) for node in found.nodes] == [str(labels.reference), first, second]
    ran = avvp("lineage", "labels/l", "--store", store.root)
    assert (ran.code, ran.out.count("(see above)")) == (0, 2)


def test_a_chain_longer_than_the_interpreters_stack_is_walked(
    tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]
) -> None:
    store = Store(tmp_path / "store")
    gone = make_artifact(store, "features/f")
    names = [str(gone.reference), *(f"features/f{place}@{'0' * 12}" for place in range(1500))]
    carried = {one: record("s", features=below) for one, below in itertools.pairwise(names)}
    carried[names[-1]] = record("s")
    make_artifact(store, "labels/l", inputs={"features": gone}, lineage=carried)
    store.discard(gone)
    ran = avvp("lineage", "labels/l", "--store", store.root, "--json")
    assert len(ran.document["nodes"]) == 1 + len(names)


@pytest.mark.parametrize(
    "forged",
    [
        {"features/x@1": "text"},
        {"no reference": record("s")},
        {"features/f@KEY": {}},
        {"features/f@KEY": record("s", dataset="nothing/d@1")},
        {"features/f@KEY": {**record("s"), "stage_version": "one"}},
        {"features/f@KEY": {**record("s"), "params": 3}},
        {"features/f@KEY": {**record("s"), "inputs": []}},
        [],
    ],
)
def test_a_forged_record_is_refused_in_words(tmp_path: Path, make_artifact: Make, forged: Any) -> None:
    store = Store(tmp_path / "store")
    gone = make_artifact(store, "features/f")
    if isinstance(forged, dict):
        forged = {name.replace("KEY", gone.key): value for name, value in forged.items()}
    labels = make_artifact(store, "labels/l", inputs={"features": gone}, lineage=forged)
    store.discard(gone)
    with pytest.raises(StoreError, match=r"broken|not an artifact reference|names no inputs"):
        lineage(store, labels)


edges_of_letters = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3))


@given(edges_of_letters, st.sets(st.sampled_from("abcdef")))
def test_what_is_reached_is_what_repetition_finds_and_each_via_a_neighbour(
    letters: dict[str, list[str]], starts: set[str]
) -> None:
    def one(letter: str) -> Reference:
        return Reference("labels", letter, "0" * 12)

    edges = {one(name): [one(read) for read in read_by] for name, read_by in letters.items()}
    found = reached(edges, [one(name) for name in sorted(starts)])
    everything = {one(name) for name in starts}
    for _ in range(6):
        everything |= {read for name in everything for read in edges.get(name, ())}
    assert set(found) == everything - {one(name) for name in starts}
    assert all(name in edges[via] for name, via in found.items())
    pairs = {(reader, read) for reader, all_read in edges.items() for read in all_read}
    assert {(reader, read) for read, all_readers in turned(edges).items() for reader in all_readers} == pairs


def test_the_lineage_of_the_demos_scores_goes_back_to_manifests_videos_and_teachers(
    finished_demo: Any, avvp: Callable[..., Any]
) -> None:
    ran = avvp("lineage", "scores/parser-full", "--store", finished_demo.store, "--json")
    assert ran.code == 0
    nodes = {node["artifact"]: node for node in ran.document["nodes"]}
    assert len(nodes) == len(ran.document["nodes"]) == 11
    sources = {name for node in nodes.values() for name in node["sources"]}
    assert {"target.jsonl", "pretrain.jsonl", "videos", "tiny-clip", "tiny-clap"} <= sources
    assert all(edge["reads"] in nodes and edge["reader"] in nodes for edge in ran.document["edges"])
    shown = avvp("lineage", "scores/parser-full", "--store", finished_demo.store).out
    assert shown.count("finished ") == 11
    assert "audio_dtype = int16, frame_size = 64, sample_rate = 16000" in shown


def test_a_released_zip_tells_its_lineage_without_the_store_and_equals_what_was_released(
    finished_demo: Any, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    store, out = Store(finished_demo.store), tmp_path / "uwav.zarr.zip"
    release(store.get("labels/uwav"), store, out)
    ran = avvp("lineage", out, "--store", tmp_path / "nothing", "--json")
    where = [node["where"] for node in ran.document["nodes"]]
    assert (ran.code, where) == (0, ["file"] + ["recorded"] * (len(where) - 1))
    whole = avvp("lineage", "labels/uwav", "--store", finished_demo.store, "--json").document
    assert [node["artifact"] for node in ran.document["nodes"]] == [node["artifact"] for node in whole["nodes"]]
    assert ran.document["edges"] == whole["edges"]
    assert avvp("diff", "labels/uwav", out, "--store", finished_demo.store, "--json").code == 0

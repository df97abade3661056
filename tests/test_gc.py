"""Garbage collection: what a kept artifact was made of never goes, and what goes is said before."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.store import ArtifactNotFoundError, Reference, Request, Store, StoreError, parse_reference
from avvp_pipe.store.gc import Plan, Scope, plan_named, plan_removal, plan_superseded, remove

Edges = dict[Reference, tuple[Reference, ...]]
NOW = datetime.now(UTC)


@st.composite
def dags(draw: st.DrawFn) -> Edges:
    """Artifacts of which each reads only earlier ones, in an order that tells nothing."""
    nodes = [Reference("labels", f"n{place}", f"{place:012x}") for place in range(draw(st.integers(0, 10)))]
    edges = {
        node: tuple(draw(st.sets(st.sampled_from(nodes[:place])))) if place else () for place, node in enumerate(nodes)
    }
    return {node: edges[node] for node in draw(st.permutations(nodes))}


@st.composite
def circles(draw: st.DrawFn) -> Edges:
    """What forged records may say: anything reads anything, itself and what does not exist included."""
    nodes = [Reference("labels", f"n{place}", f"{place:012x}") for place in range(draw(st.integers(1, 6)))]
    anything = [*nodes, Reference("labels", "gone", "f" * 12)]
    return {node: tuple(draw(st.sets(st.sampled_from(anything)))) for node in nodes}


def some_of(data: st.DataObject, edges: Edges) -> set[Reference]:
    return data.draw(st.sets(st.sampled_from(list(edges)))) if edges else set()


def ancestors_by_repetition(edges: Edges, starts: set[Reference]) -> set[Reference]:
    """Everything that `starts` were made of, themselves included: add inputs until nothing is added."""
    found = set(starts)
    before: set[Reference] = set()
    while found != before:
        before = set(found)
        for one in before:
            found |= set(edges.get(one, ()))
    return found & set(edges)


def assert_readers_go_first(plan: Plan, edges: Edges) -> None:
    order = {one: place for place, one in enumerate(plan.remove)}
    for reader in plan.remove:
        assert all(order[reader] < order[read] for read in edges[reader] if read in order)


@given(dags(), st.data())
def test_superseded_keeps_the_roots_and_all_they_were_made_of_and_nothing_else(
    edges: Edges, data: st.DataObject
) -> None:
    roots = some_of(data, edges)
    plan = plan_superseded(edges, {one: "tagged" for one in roots})
    assert set(plan.keep) == ancestors_by_repetition(edges, roots)
    assert set(plan.remove) == set(edges) - set(plan.keep)
    assert_readers_go_first(plan, edges)


@given(dags(), st.data())
def test_an_interrupted_removal_leaves_no_artifact_without_its_inputs(edges: Edges, data: st.DataObject) -> None:
    plan = plan_superseded(edges, {one: "tagged" for one in some_of(data, edges)})
    done = data.draw(st.integers(0, len(plan.remove)))
    left = set(edges) - set(list(plan.remove)[:done])
    assert all(read in left for one in left for read in edges[one])


@given(dags(), st.data(), st.booleans())
def test_named_artifacts_go_only_if_nothing_that_stays_was_made_from_them(
    edges: Edges, data: st.DataObject, with_readers: bool
) -> None:
    wanted = some_of(data, edges)
    guarded = {one: "tagged paper" for one in some_of(data, edges)}
    made = {one for one in edges if ancestors_by_repetition(edges, {one}) & wanted}
    doomed = made if with_readers else wanted
    if made > doomed or doomed & set(guarded):
        with pytest.raises(StoreError):
            plan_named(edges, wanted, guarded, with_readers=with_readers)
        return
    plan = plan_named(edges, wanted, guarded, with_readers=with_readers)
    assert set(plan.remove) == doomed
    assert set(plan.keep) == set(edges) - doomed
    assert_readers_go_first(plan, edges)


@given(circles(), st.data())
def test_forged_circles_end_in_a_plan_that_keeps_what_the_kept_read(edges: Edges, data: st.DataObject) -> None:
    roots = some_of(data, edges)
    plan = plan_superseded(edges, {one: "tagged" for one in roots})
    assert set(plan.keep) == ancestors_by_repetition(edges, roots)
    assert set(plan.remove) | set(plan.keep) == set(edges)
    assert set(plan_named(edges, set(edges), {}).remove) == set(edges)


def names(references: Any) -> set[str]:
    return {str(one) for one in references}


@pytest.fixture
def chain(tmp_path: Path, make_artifact: Callable[..., Any]) -> tuple[Store, dict[str, Any]]:
    """Two versions of a dataset, each with labels made from it; scores of the older labels are the only scores."""
    store, made = Store(tmp_path / "store"), {}
    for version in (1, 2, 3):
        made[f"d{version}"] = make_artifact(store, "dataset/a", params={"v": version}, arrays={"x": [str(version)]})
        made[f"l{version}"] = make_artifact(store, "labels/a", inputs={"dataset": made[f"d{version}"]})
    made["s1"] = make_artifact(store, "scores/a", inputs={"predictions": made["l1"]})
    return store, made


def test_what_the_newest_of_a_name_reads_stays_however_old_it_is(chain: tuple[Store, dict[str, Any]]) -> None:
    store, made = chain
    plan = plan_removal(store, Scope(superseded=True), now=NOW)
    assert list(plan.remove) == [made["l2"].reference, made["d2"].reference]
    assert plan.keep[made["l1"].reference] == f"read by {made['s1'].reference}"
    assert plan.keep[made["d1"].reference] == f"read by {made['l1'].reference}"
    assert plan.keep[made["d3"].reference] == "the newest of its name"
    assert plan.bytes[made["l2"].reference] == made["l2"].size_bytes()


def test_tags_requests_numbers_and_age_keep_what_else_would_go(chain: tuple[Store, dict[str, Any]]) -> None:
    store, made = chain
    labels, data = made["l2"].reference, made["d2"].reference
    assert not plan_removal(store, Scope(superseded=True, keep=2), now=NOW).remove
    young = plan_removal(store, Scope(superseded=True, older_than=timedelta(days=1)), now=NOW)
    assert young.keep[labels] == "younger than 1 days"
    later = NOW + timedelta(days=2)
    assert labels in plan_removal(store, Scope(superseded=True, older_than=timedelta(days=1)), now=later).remove
    (Path(store.root) / "labels/a/.runs" / f"{made['l2'].key}.json").unlink()
    undated = plan_removal(store, Scope(superseded=True, older_than=timedelta(days=1)), now=later)
    assert undated.keep[labels] == "of unknown age"
    store.tag(made["l2"], "paper")
    tagged = plan_removal(store, Scope(superseded=True), now=NOW)
    assert (tagged.keep[labels], tagged.keep[data]) == ("tagged paper", f"read by {labels}")
    store.untag(Reference("labels", "a"), "paper")
    store.ask(Reference("labels", "a"), Request("make-labels", {}, {}, made["l2"].key))
    assert plan_removal(store, Scope(superseded=True), now=NOW).keep[labels] == "asked for"


@pytest.mark.parametrize("written", ["a", "dataset/a", "dataset/a@latest"])
def test_no_version_of_an_input_goes_while_a_step_that_asked_for_it_is_unfinished(
    chain: tuple[Store, dict[str, Any]], written: str
) -> None:
    store, made = chain
    store.ask(Reference("labels", "b"), Request("make-labels", {}, {"dataset": written}, "0" * 12))
    plan = plan_removal(store, Scope(superseded=True), now=NOW)
    assert plan.keep[made["d2"].reference] == "wanted by labels/b, which was asked for and is not finished"
    with pytest.raises(StoreError, match="wanted by labels/b"):
        plan_removal(store, Scope(named=(str(made["d2"].reference),), with_readers=True), now=NOW)


def test_a_named_artifact_that_others_were_made_from_is_refused_with_their_names(
    chain: tuple[Store, dict[str, Any]],
) -> None:
    store, made = chain
    first = str(made["d1"].reference)
    with pytest.raises(StoreError, match=f"{made['l1'].reference}, {made['s1'].reference} were made from it"):
        plan_removal(store, Scope(named=(first,)), now=NOW)
    plan = plan_removal(store, Scope(named=(first,), with_readers=True), now=NOW)
    assert list(plan.remove) == [made[one].reference for one in ("s1", "l1", "d1")]
    remove(store, plan)
    assert names(one.reference for one in store.artifacts()) == names(
        made[one].reference for one in ("d2", "d3", "l2", "l3")
    )


def test_a_tagged_artifact_goes_only_after_its_tag(chain: tuple[Store, dict[str, Any]]) -> None:
    store, made = chain
    store.tag(made["s1"], "paper")
    for scope in (Scope(named=("scores/a",)), Scope(named=(str(made["d1"].reference),), with_readers=True)):
        with pytest.raises(StoreError, match=r"tagged paper.*remove the tag"):
            plan_removal(store, scope, now=NOW)


def test_named_and_superseded_go_together(chain: tuple[Store, dict[str, Any]]) -> None:
    store, made = chain
    plan = plan_removal(store, Scope(superseded=True, named=("scores/a", str(made["l2"].reference))), now=NOW)
    assert names(plan.remove) == names(made[one].reference for one in ("l2", "d2", "s1"))
    assert not set(plan.remove) & set(plan.keep)


def test_a_name_that_is_not_there_removes_nothing(chain: tuple[Store, dict[str, Any]]) -> None:
    with pytest.raises(ArtifactNotFoundError):
        plan_removal(chain[0], Scope(named=("labels/none",)), now=NOW)


def test_an_input_under_another_name_with_the_same_key_is_the_same_artifact(
    tmp_path: Path, make_artifact: Callable[..., Any]
) -> None:
    store = Store(tmp_path)
    first = make_artifact(store, "dataset/a")
    make_artifact(store, "labels/a", inputs={"dataset": first})
    store.discard(first)
    twin = make_artifact(store, "dataset/b")
    make_artifact(store, "dataset/b", params={"newer": True})
    plan = plan_removal(store, Scope(superseded=True), now=NOW)
    assert twin.key == first.key
    assert str(plan.keep[twin.reference]).startswith("read by labels/a")


def test_while_a_record_cannot_be_read_only_its_own_artifact_may_go(chain: tuple[Store, dict[str, Any]]) -> None:
    store, made = chain
    (made["s1"].path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=rf"nothing was removed: {made['s1'].reference}.*cannot be read"):
        plan_removal(store, Scope(superseded=True), now=NOW)
    assert list(plan_removal(store, Scope(named=("scores/a",)), now=NOW).remove) == [made["s1"].reference]


BUILD = """
import sys, time
from avvp_pipe.store import Identity, Reference, Store
with Store(sys.argv[1]).build(
    Reference("labels", "running"), Identity("s", 1, {}, {}), shard_rows=4,
    provenance=lambda builder: {}, run_facts={}, waiting=lambda holder: None,
) as builder:
    builder.put("x", ["a"])
    print("building", flush=True)
    time.sleep(600)
"""


def test_a_build_of_which_nobody_knows_what_it_reads_stops_every_removal_until_it_ends(
    chain: tuple[Store, dict[str, Any]], avvp: Callable[..., Any]
) -> None:
    store, _ = chain
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(store.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"building\n"
        with pytest.raises(StoreError, match=r"labels/running@.* is being built"):
            plan_removal(store, Scope(superseded=True), now=NOW)
        assert avvp("gc", "--leftovers", "--store", store.root, "--json").document["leftovers"] == []
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert plan_removal(store, Scope(superseded=True), now=NOW).remove
    left = avvp("gc", "--leftovers", "--store", store.root, "--json").document
    assert any(".partial" in one["location"] for one in left["leftovers"])
    assert left["bytes"] == sum(one["bytes"] for one in left["leftovers"]) > 0
    assert avvp("gc", "--leftovers", "--store", store.root, "--json").document["leftovers"] == []


def test_without_a_scope_nothing_goes_and_the_scopes_are_listed(
    chain: tuple[Store, dict[str, Any]], avvp: Callable[..., Any]
) -> None:
    store, made = chain
    before = names(one.reference for one in store.artifacts())
    ran = avvp("gc", "--store", store.root, "--json")
    assert ran.code == 2
    assert [one["scope"] for one in ran.document["scopes"]] == ["--leftovers", "--superseded", "REF ..."]
    assert ran.document["scopes"][1]["count"] == 2
    assert ran.document["scopes"][1]["bytes"] == made["l2"].size_bytes() + made["d2"].size_bytes()
    shown = avvp("gc", "--store", store.root)
    assert (shown.code, "--superseded" in shown.out, "nothing was removed" in shown.err) == (2, True, True)
    assert names(one.reference for one in store.artifacts()) == before


@pytest.mark.parametrize("options", [("--keep", "2"), ("--older-than", "3"), ("--with-readers",)])
def test_an_option_without_its_scope_is_wrong_use(
    chain: tuple[Store, dict[str, Any]], avvp: Callable[..., Any], options: tuple[str, ...]
) -> None:
    assert avvp("gc", *options, "--leftovers", "--store", chain[0].root).code == 2


def test_a_dry_run_says_what_a_run_then_removes(chain: tuple[Store, dict[str, Any]], avvp: Callable[..., Any]) -> None:
    store, made = chain
    arguments = ("gc", "--superseded", "--store", store.root)
    planned = avvp(*arguments, "--dry-run", "--json").document
    before = names(one.reference for one in store.artifacts())
    assert before == names(one["artifact"] for one in (*planned["removed"], *planned["kept"]))
    shown = avvp(*arguments, "--dry-run").out
    assert f"would remove {made['l2'].reference}: superseded" in shown
    assert f"would keep {made['l1'].reference}: read by {made['s1'].reference}" in shown
    assert "keep" not in avvp("gc", made["l2"].reference, "--store", store.root, "--dry-run").out
    ran = avvp(*arguments, "--json").document
    assert {**ran, "dry_run": True} == planned
    assert before - names(one.reference for one in store.artifacts()) == {one["artifact"] for one in planned["removed"]}


def test_after_gc_of_a_real_store_all_inputs_are_there_and_status_says_cached(
    demo_copy: Any, avvp: Callable[..., Any]
) -> None:
    where = ("--store", demo_copy.store, "--quiet", "--json")
    calibrate = ("calibrate", "--dataset", "target", "--features", "target", "--name", "valor", *where)
    versions = [avvp(*calibrate, *more).document for more in (("--mode", "class-agnostic"), ("--split", "test"), ())]
    assert [one["state"] for one in versions] == ["built", "built", "cached"]
    ran = avvp("gc", "--superseded", *where[:2], "--json")
    assert (ran.code, [one["artifact"] for one in ran.document["removed"]]) == (0, [versions[0]["artifact"]])
    store = Store(demo_copy.store)
    for artifact in store.artifacts():
        for read in artifact.provenance["inputs"].values():
            assert store.find(parse_reference(read)), read
    assert avvp("status", *where[:2], "--json").code == 0

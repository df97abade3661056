"""Tags: names that stay with an artifact until somebody moves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.store import Store


@pytest.fixture
def two(tmp_path: Path, make_artifact: Callable[..., Any]) -> tuple[Any, Any]:
    """Two versions of one name."""
    store = Store(tmp_path / "store")
    return tuple(make_artifact(store, "labels/l", params={"v": version}) for version in (1, 2))


@pytest.fixture
def tag(two: Any, tmp_path: Path, avvp: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: avvp("tag", *map(str, arguments), "--store", tmp_path / "store", "--json")


def test_a_tag_means_its_artifact_until_it_is_moved_and_says_where_it_came_from(
    two: tuple[Any, Any], tag: Callable[..., Any], tmp_path: Path
) -> None:
    store, (first, second) = Store(tmp_path / "store"), two
    assert tag(first.reference, "paper").document["moved_from"] is None
    assert store.get("labels/l@paper").key == first.key
    assert tag(first.reference, "paper").document["moved_from"] is None
    assert tag("labels/l", "paper").document["moved_from"] == str(first.reference)
    assert store.get("labels/l@paper").key == second.key


def test_tags_are_listed_and_deleted_and_their_artifact_stays(two: tuple[Any, Any], tag: Callable[..., Any]) -> None:
    assert tag("labels/l").document == {"tags": []}
    tag(two[0].reference, "paper")
    tag("labels/l@paper", "camera-ready")
    listed = [{"tag": name, "artifact": str(two[0].reference)} for name in ("camera-ready", "paper")]
    assert tag("labels/l").document == {"tags": listed}
    assert tag("labels/l", "paper", "--delete").document == {"artifact": str(two[0].reference), "deleted": "paper"}
    assert tag("labels/l").document == {"tags": listed[:1]}
    assert tag("labels/l", "paper", "--delete").code == 2
    assert tag(two[0].reference, "again").code == 0


@pytest.mark.parametrize("name", ["latest", "0", "abc", "0123456789ab", "", "a b", "a/b", "../a", ".a", "a@b", "é"])
def test_what_could_be_taken_for_something_else_is_no_tag(
    two: tuple[Any, Any], tag: Callable[..., Any], name: str
) -> None:
    ran = tag("labels/l", name)
    assert (ran.code, "cannot be a tag" in ran.err) == (2, True)
    assert tag("labels/l").document == {"tags": []}


@pytest.mark.parametrize("name", ["paper", "v1.0", "0123456789abc", "cvpr-2025", "A_b"])
def test_other_names_are_tags(two: tuple[Any, Any], tag: Callable[..., Any], name: str, tmp_path: Path) -> None:
    assert tag(two[0].reference, name).code == 0
    assert Store(tmp_path / "store").get(f"labels/l@{name}").key == two[0].key


@pytest.mark.parametrize("arguments", [("labels/none", "paper"), ("labels/l", "--delete"), ("nothing/l",)])
def test_wrong_use_is_refused(two: tuple[Any, Any], tag: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    assert tag(*arguments).code == 2


def test_people_are_told_where_a_tag_was_before(
    two: tuple[Any, Any], tag: Callable[..., Any], tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    tag(two[0].reference, "paper")
    ran = avvp("tag", "labels/l", "paper", "--store", tmp_path / "store")
    assert ran.out == f"labels/l@paper is {two[1].reference}, moved from {two[0].reference}\n"


def test_tags_of_a_name_that_is_not_there_are_wrong_use(two: tuple[Any, Any], tag: Callable[..., Any]) -> None:
    ran = tag("labels/other")
    assert (ran.code, "no artifact labels/other" in ran.document["error"]) == (2, True)

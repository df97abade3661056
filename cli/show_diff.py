"""How a comparison of two artifacts is printed."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from avvp_pipe.cli.console import Console, say, table
from avvp_pipe.store.diff import ArrayDiff, Cause, Comparison, Layout
from avvp_pipe.store.diff_labels import ClassDiff, ClipDiff, LabelsDiff

SHOWN_IDS = 5


def print_comparison(found: Comparison, console: Console, *, clips: int) -> None:
    """All of it as JSON, or for people: why, arrays and attributes that differ, classes, the `clips` worst clips."""

    def shown() -> None:
        say(f"A {found.a}\nB {found.b}\n")
        _print_why(found)
        _print_content(found)
        if found.labels:
            _print_labels(found.labels, clips)

    console.result(comparison_document(found), shown)


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The JSON of a comparison; numbers that JSON does not know are written as text."""
    document = {
        "a": str(found.a),
        "b": str(found.b),
        "same": found.same,
        "same_content": found.same_content,
        "identity": list(found.identity),
        "causes": [{**asdict(one), "a": str(one.a), "b": str(one.b)} for one in found.causes],
        "software": list(found.software),
        "attributes": {name: {"a": a, "b": b} for name, (a, b) in found.attributes.items()},
        "arrays": [{**asdict(one), "equal": one.equal} for one in found.arrays],
        "labels": _labels_document(found.labels) if found.labels else None,
    }
    return dict(_plain(document))


def _labels_document(labels: LabelsDiff) -> dict[str, Any]:
    classes = [{**asdict(one), "agreement": one.agreement} for one in labels.classes]
    return {**asdict(labels), "classes": classes}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _print_why(found: Comparison) -> None:
    for line in found.identity:
        say(line)
    for cause in found.causes:
        for line in cause.lines:
            say(f"  because {_name(cause)}: {line}")
    if not found.identity:
        say("made alike: stage, parameters, inputs and sources are the same")
    if found.software:
        say(f"software: {'; '.join(found.software)}")


def _name(cause: Cause) -> str:
    before, after = (f"{one.kind}/{one.name}" for one in (cause.a, cause.b))
    return before if before == after else f"{before} -> {after}"


def _print_content(found: Comparison) -> None:
    if found.same_content:
        say(f"contents are equal: {len(found.arrays)} arrays and all attributes\n")
        return
    differing = [one for one in found.arrays if not one.equal]
    say(f"contents differ in {len(differing)} of {len(found.arrays)} arrays\n")
    if differing:
        columns = ("array", "A", "B", "differ", "by at most")
        table("", columns, [_array_row(one) for one in differing], left=3)
    if found.attributes:
        rows = [(name, _short(a), _short(b)) for name, (a, b) in found.attributes.items()]
        table("attributes", ("name", "A", "B"), rows, left=3)


def _array_row(one: ArrayDiff) -> tuple[str, ...]:
    def laid_out(layout: Layout | None) -> str:
        return "none" if layout is None else f"{layout.dtype} {layout.shape}"

    count = "" if one.differing is None else str(one.differing)
    other = "the same" if one.a == one.b else laid_out(one.b)
    return one.name, laid_out(one.a), other, count, "" if one.largest is None else f"{one.largest:.4g}"


def _short(value: object, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _print_labels(labels: LabelsDiff, clips: int) -> None:
    for side, names in (("A", labels.clips_only_a), ("B", labels.clips_only_b)):
        if names:
            more = ", …" if len(names) > SHOWN_IDS else ""
            say(f"{len(names)} clips only in {side}: {', '.join(names[:SHOWN_IDS])}{more}")
    for side, names in (("A", labels.classes_only_a), ("B", labels.classes_only_b)):
        if names:
            say(f"{len(names)} classes only in {side}: {', '.join(names)}")
    columns = ("", "class", "A", "B", "only A", "only B", "equal", "cut A", "cut B", "soft")
    title = f"labelled seconds of the {labels.shared_clips} clips in both, by classes that differ"
    if differing := [_class_row(one) for one in labels.classes if not one.same]:
        table(title, columns, differing, left=2)
        say("equal: intersection over union; cut: threshold; soft: mean distance of soft labels\n")
    say(f"{len(labels.clips)} of {labels.shared_clips} clips differ")
    for clip in labels.clips[:clips]:
        _print_clip(clip)
    if len(labels.clips) > clips:
        say(f"  … and {len(labels.clips) - clips} more; --clips shows more, --json all")


def _class_row(one: ClassDiff) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    counts = (str(count) for count in (one.a, one.b, one.only_a, one.only_b))
    thresholds = (number(one.a_threshold), number(one.b_threshold))
    return one.modality, one.name, *counts, number(one.agreement), *thresholds, number(one.soft)


def _print_clip(clip: ClipDiff) -> None:
    say(f"  {clip.video_id}: {clip.differing} labels differ")
    for change in clip.changes:
        sides = (("A", change.only_a), ("B", change.only_b))
        seconds = "; ".join(f"only {side} at {', '.join(map(str, where))} s" for side, where in sides if where)
        say(f"    {change.modality} {change.name}: {seconds}")

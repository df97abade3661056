"""How outcomes, conditions and artifacts are printed."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from avvp_pipe.cli.console import Console, say, table
from avvp_pipe.cli.failures import missing_from
from avvp_pipe.cli.show_scores import print_scores, scores_document
from avvp_pipe.pipeline.runner import Outcome
from avvp_pipe.pipeline.status import Condition
from avvp_pipe.store import DEFAULT_STORE, Artifact, Store, StoreError

SHOWN_FAILURES = 10
FEW_FAILURES = 3
"""Up to so many failed clips speak for themselves."""


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """The JSON of one step's outcome."""
    return {
        "artifact": str(outcome.artifact.reference),
        "path": outcome.artifact.location,
        "state": outcome.state,
        "reasons": list(outcome.reasons),
        "failures": [dict(failure) for failure in outcome.failures],
        "seconds": round(outcome.seconds, 3),
        **(scores_document(outcome.artifact) if outcome.artifact.kind == "scores" else {}),
    }


def print_outcome(store: Store, outcome: Outcome, console: Console) -> None:
    """One line for what was made, one for each reason and failure."""

    def shown() -> None:
        say(f"{outcome.state} {outcome.artifact.reference} in {outcome.seconds:.1f} s")
        for reason in outcome.reasons:
            say(f"  {reason}")
        print_failures(store, outcome)
        if outcome.artifact.kind == "scores":
            print_scores(outcome.artifact)

    console.result(outcome_document(outcome), shown)


def print_failures(store: Store, outcome: Outcome) -> None:
    """The clips that could not be processed, the first ten of them."""
    if not outcome.failures:
        return
    say(f"  {many_clips(len(outcome.failures))} failed, marked in `status`:")
    for failure in outcome.failures[:SHOWN_FAILURES]:
        say(f"    {failure['video_id']}: {failure['code']}: {failure['message']}")
    if len(outcome.failures) > SHOWN_FAILURES:
        say(f"    … and {len(outcome.failures) - SHOWN_FAILURES} more")
    if folder := missing_from(outcome.artifact, store):
        say(f"  videos were looked for in {folder} (--videos)")
    if len(outcome.failures) > FEW_FAILURES:
        where = [] if str(store.root) == DEFAULT_STORE else ["--store", str(store.root)]
        command = shlex.join(["avvp-pipe", "failures", str(outcome.artifact.reference), *where])
        say(f"  {command}: all of them by kind, and how to try them again")


def many_clips(count: int) -> str:
    """A number of clips in words.

    >>> many_clips(1), many_clips(20)
    ('1 clip', '20 clips')
    """
    return f"{count} clip" if count == 1 else f"{count} clips"


def print_conditions(found: Sequence[Condition], console: Console) -> None:
    """One line a step, and why, where it is not cached."""
    console.result(conditions_document(found), lambda: say_conditions(found))


def conditions_document(found: Sequence[Condition]) -> dict[str, Any]:
    """The JSON of how steps stand."""
    return {
        "steps": [
            {"artifact": str(one.reference), "stage": one.stage, "state": one.state, "reasons": list(one.reasons)}
            for one in found
        ]
    }


def say_conditions(found: Sequence[Condition]) -> None:
    """The same as text."""
    if not found:
        say("nothing was asked for in this store yet")
    for one in found:
        say(f"{one.state:8}{one.stage:16}{one.reference}")
        for reason in one.reasons:
            say(f"{'':24}{reason}")


def print_artifacts(store: Store, found: Iterable[Artifact], console: Console) -> None:
    """The artifacts of a store, newest of each name last."""
    rows = [_row(store, artifact) for artifact in found]

    def shown() -> None:
        if not rows:
            say(f"no artifacts in {store.root}")
            return
        columns = ("artifact", "finished (UTC)", "size", "failed")
        lines = [
            (
                row["artifact"],
                row["finished"],
                human_bytes(row["bytes"]),
                "damaged" if row["damage"] else str(row["failures"] or ""),
            )
            for row in rows
        ]
        table("", columns, lines, left=2)
        for row in rows:
            if row["damage"]:
                say(f"damaged: {row['damage']}")

    console.result({"artifacts": rows}, shown)


def _row(store: Store, artifact: Artifact) -> dict[str, Any]:
    """One line of `ls`; a damaged artifact has one too."""
    row = {"artifact": str(artifact.reference), "bytes": artifact.size_bytes()}
    row["finished"] = store.finished(artifact)[:19].replace("T", " ")
    try:
        provenance = artifact.provenance
    except StoreError as error:
        return {**row, "stage": None, "failures": 0, "damage": str(error)}
    return {**row, "stage": provenance["stage"], "failures": len(provenance["failures"]), "damage": None}


def human_bytes(count: int) -> str:
    """Bytes as people read them.

    >>> human_bytes(1536)
    '1.5 KiB'
    """
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def print_artifact(store: Store, artifact: Artifact, console: Console) -> None:
    """Everything about one artifact: arrays, attributes, provenance, how the build went."""
    arrays = {
        name: {"shape": list(artifact.lazy(name).shape), "dtype": _dtype(artifact.lazy(name).dtype)}
        for name in artifact.array_names()
    }
    others = artifact.described
    document = {
        "artifact": str(artifact.reference),
        "path": artifact.location,
        "arrays": arrays,
        "attributes": others,
        "provenance": dict(artifact.provenance),
        "run": dict(store.run_record(artifact)),
        **(scores_document(artifact) if artifact.kind == "scores" else {}),
    }

    def shown() -> None:
        say(f"{artifact.reference}  {human_bytes(artifact.size_bytes())}\n{artifact.location}\n")
        lines = [(name, str(facts["shape"]), str(facts["dtype"])) for name, facts in arrays.items()]
        table("arrays", ("name", "shape", "dtype"), lines, left=3)
        for title in ("params", "inputs", "sources", "software"):
            if record := artifact.provenance[title]:
                table(title, ("name", "value"), [(name, str(value)) for name, value in record.items()], left=2)
        if others:
            table("attributes", ("name", "value"), [(name, _short(value)) for name, value in others.items()], left=2)
        say(f"failures: {len(artifact.provenance['failures'])}\n")
        if artifact.kind == "scores":
            print_scores(artifact)

    console.result(document, shown)


def _dtype(dtype: Any) -> str:
    """numpy 1 reads strings as objects; the store holds strings."""
    return "string" if dtype.kind in "OT" else str(dtype)


def _short(value: object, limit: int = 100) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"

"""The command `failures`: which clips of an artifact failed, why, where their files are, and how to try them again."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say, table
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, StorePath, Verbose
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Store

COLUMNS = ("video_id", "code", "message", "path")


@guarded
def failures(
    reference: Annotated[str, typer.Argument(help="kind/name, kind/name@key, kind/name@tag, or a released zip.")],
    code: Annotated[str | None, typer.Option(help="Only clips that failed with this code, such as timeout.")] = None,
    out: Annotated[Path | None, typer.Option("--csv", help="Also write them to this file, one clip a line.")] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the clips of an artifact that failed: how many of each kind, each with its reason and its file.

    Says how they are tried again. Exits with 1 where some are listed. Example: avvp-pipe failures features/llp
    """
    from avvp_pipe.store import Store, StoreError
    from avvp_pipe.store.opening import open_artifact
    from avvp_pipe.store.status import CODES

    if code is not None and code not in CODES:
        raise StoreError(f"no code of failure {code!r}; there are {', '.join(sorted(CODES))}")
    opened = Store(store)
    artifact = open_artifact(reference, opened)
    found = failed_clips(artifact, opened, code)
    if out is not None:
        write_csv(out, found)
    _print(artifact, found, again(artifact, opened) if found else (), Console(as_json=json))
    if found:
        raise typer.Exit(FOUND_WRONG)


def failed_clips(artifact: "Artifact", store: "Store", code: str | None = None) -> list[dict[str, str | None]]:
    """video_id, code, message and path of each clip that failed; path None where the store lacks the dataset."""
    failed = [one for one in artifact.provenance["failures"] if code in (None, one["code"])]
    paths = _paths(artifact, store) if failed else {}
    return [{**{name: str(one[name]) for name in COLUMNS[:3]}, "path": paths.get(one["video_id"])} for one in failed]


def missing_from(artifact: "Artifact", store: "Store") -> str:
    """The folder in which the first video that is missing was looked for, "" where none is."""
    from avvp_pipe.pipeline.catalogue import STAGES

    if not STAGES[artifact.provenance["stage"]].retries:  # it reads other files than videos
        return ""
    paths = [one["path"] for one in failed_clips(artifact, store, Status.MISSING_FILE.code)]
    return str(Path(paths[0]).parent) if paths and paths[0] else ""


def _paths(artifact: "Artifact", store: "Store") -> Mapping[str, str]:
    """Clip -> file, where the dataset that the artifact comes from is in the store."""
    from avvp_pipe.stages.clips.videos import video_paths
    from avvp_pipe.store.lineage import lineage

    nodes = lineage(store, artifact).nodes
    known = [found for node in nodes if (found := store.find(node.stored_as or node.reference))]
    dataset = next((one for one in known if one.kind == "dataset"), None)
    if dataset is None:
        return {}
    runs = [store.run_record(one).get("params", {}) for one in known]
    videos = next((str(run["videos"]) for run in runs if run.get("videos")), "")
    return dict(zip(dataset.strings("video_ids"), map(str, video_paths(dataset, videos)), strict=True))


def again(artifact: "Artifact", store: "Store") -> tuple[str, ...]:
    """The commands that try failed clips again, in their order; none for what is not of this store or cannot retry."""
    from avvp_pipe.pipeline.catalogue import STAGES
    from avvp_pipe.pipeline.commands import command_line, step_of
    from avvp_pipe.store import parse_reference

    record = artifact.provenance
    here = store.find(artifact.reference)
    if here is None or here.location != artifact.location or not STAGES[record["stage"]].retries:
        return ()
    if media := record["inputs"].get("media"):
        decoded = store.find(parse_reference(media))
        before = again(decoded, store) if decoded and decoded.provenance["failures"] else ()
        return (*before, command_line(step_of(artifact, store), store, "--retry-failed"))
    return (command_line(step_of(artifact, store), store, "--retry-failed"),)


def write_csv(path: Path, found: Sequence[Mapping[str, str | None]]) -> None:
    """Write failed clips to a file, one a line below a line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(found)


def _print(
    artifact: "Artifact", found: Sequence[Mapping[str, str | None]], commands: Sequence[str], console: Console
) -> None:
    """Counts first, the most frequent code first; then every clip."""
    counts = sorted(Counter(str(one["code"]) for one in found).items(), key=lambda pair: (-pair[1], pair[0]))
    document = {
        "artifact": str(artifact.reference),
        "failed": len(found),
        "counts": dict(counts),
        "failures": [dict(one) for one in found],
        "again": list(commands),
    }

    from avvp_pipe.cli.show import many_clips

    def shown() -> None:
        if not found:
            say(f"{artifact.reference}: no clip failed")
            return
        say(f"{artifact.reference}: {many_clips(len(found))} failed\n")
        table("", ("code", "clips"), [(code, str(count)) for code, count in counts])
        for one in found:
            path = f"\n    {one['path']}" if one["path"] and one["path"] not in str(one["message"]) else ""
            say(f"{one['video_id']}: {one['code']}: {one['message']}{path}")
        if commands:
            say("\nto try them again:")
            for command in commands:
                say(f"  {command}")

    console.result(document, shown)

"""Data quality and origin: what is odd about the annotations, which clips failed, where everything comes from."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from avvp_pipe.pipeline.report.records import Failures, Origin, Quality
from avvp_pipe.stages.rows import NONE
from avvp_pipe.store import KINDS, Artifact
from avvp_pipe.store.lineage import Node

__all__ = ["failures_of", "origins_of", "quality_of"]

LISTED = 200
"""Failed clips of one artifact that are listed; `avvp-pipe failures` has all."""
LINES = 40
"""Sources of one artifact that are told."""


def quality_of(dataset: Artifact | None, artifacts: Iterable[Artifact]) -> Quality | None:
    """The dataset's data-quality report and the failures of all artifacts; None where there is neither."""
    failures = tuple(found for one in artifacts if (found := failures_of(one)) is not None)
    if dataset is None:
        return Quality({}, {}, (), failures) if failures else None
    splits, dense = np.array(dataset.strings("splits"), dtype=str), dataset.array("dense") != NONE
    names = list(dict.fromkeys(splits.tolist()))
    findings = tuple(
        (str(one["code"]), int(one["count"]), str(one["message"]), tuple(map(str, one.get("examples", ()))))
        for one in dataset.attrs.get("report", ())
    )
    return Quality(
        {name: int((splits == name).sum()) for name in names},
        {name: int(dense[splits == name].sum()) for name in names},
        findings,
        failures,
    )


def failures_of(artifact: Artifact) -> Failures | None:
    """The clips that an artifact could not process, the most frequent code first; None where all went well."""
    failed = artifact.provenance["failures"]
    if not failed:
        return None
    counts = Counter(one["code"] for one in failed)
    ordered = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    listed = tuple((one["video_id"], one["code"], one["message"]) for one in failed[:LISTED])
    return Failures(str(artifact.reference), ordered, listed, len(failed))


def origins_of(nodes: Sequence[Node]) -> tuple[Origin, ...]:
    """What the records say of every artifact shown and of what it comes from, in the pipeline's order."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    known = sorted(nodes, key=lambda node: (order.get(node.reference.kind, len(order)), str(node.reference)))
    return tuple(_origin(node) for node in known)


def _origin(node: Node) -> Origin:
    identity = node.identity
    sources = {} if identity is None else dict(identity.sources)
    if (more := len(sources) - LINES) > 0:
        sources = dict(list(sources.items())[:LINES]) | {"…": f"and {more} more"}
    return Origin(
        str(node.reference),
        "" if identity is None else identity.stage,
        0 if identity is None else identity.version,
        (node.finished or "")[:19].replace("T", " "),
        {} if identity is None else dict(identity.params),
        {role: str(read) for role, read in node.inputs.items()},
        sources,
        dict(node.software),
        node.where in ("stored", "file"),
    )

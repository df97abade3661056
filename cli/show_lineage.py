"""How the way back from an artifact to its sources is printed."""

import dataclasses
from typing import Any

from avvp_pipe.cli.console import Console, say
from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.store import Reference
from avvp_pipe.store.identity import KEY_DIGITS
from avvp_pipe.store.lineage import Lineage, Node

NOTES = {
    "file": "a file of its own",
    "recorded": "recorded in the release",
    "missing": "missing: in no store, no record",
}


def print_lineage(found: Lineage, console: Console) -> None:
    """A tree, each artifact told about once; as JSON nodes and edges."""
    document = {
        "root": str(found.root.reference),
        "nodes": [_node_document(node) for node in found.nodes],
        "edges": [{"reader": str(reader), "role": role, "reads": str(read)} for reader, role, read in found.edges],
    }
    console.result(document, lambda: say("\n".join(tree_lines(found))))


def tree_lines(found: Lineage) -> list[str]:
    """The tree as text: below each artifact its parameters that are no defaults, its sources, and what it read."""
    lines: list[str] = []
    nodes = {node.reference: node for node in found.nodes}
    told: set[Reference] = set()
    waiting = [(0, "", found.root.reference)]
    while waiting:
        depth, role, reference = waiting.pop()
        node, margin = nodes[reference], "  " * depth
        label = f"{margin}{role}: " if role else margin
        if reference in told:
            lines.append(f"{label}{reference} (see above)")
            continue
        told.add(reference)
        lines.append(label + _headline(node))
        lines += [f"{margin}    {line}" for line in _facts(node)]
        waiting += [(depth + 1, role, read) for role, read in reversed(list(node.inputs.items()))]
    return lines


def _headline(node: Node) -> str:
    parts = [str(node.reference)]
    if node.identity:
        parts.append(f"{node.identity.stage} {node.identity.version}")
    if node.finished:
        parts.append(f"finished {node.finished[:19].replace('T', ' ')} UTC")
    if node.stored_as:
        parts.append(f"stored as {node.stored_as}")
    if node.where in NOTES:
        parts.append(NOTES[node.where])
    return ", ".join(parts)


def _facts(node: Node) -> list[str]:
    if node.identity is None:
        return []
    changed = changed_params(node.identity.stage, node.identity.params)
    lines = [", ".join(f"{name} = {value}" for name, value in changed.items())] if changed else []
    return lines + [f"source {name}: {digest[:KEY_DIGITS]}" for name, digest in node.identity.sources.items()]


def changed_params(stage: str, params: Any) -> dict[str, Any]:
    """Those that differ from the stage's defaults as they are now; all of them where the stage is not known.

    >>> changed_params("pseudolabel", {"method": "valor", "temperature": 2.0, "floor_split": "train"})
    {'method': 'valor'}
    """
    fields = dataclasses.fields(STAGES[stage].params) if stage in STAGES else ()
    defaults = {field.name: field.default for field in fields}
    return {name: value for name, value in params.items() if name not in defaults or defaults[name] != value}


def _node_document(node: Node) -> dict[str, Any]:
    made = node.identity
    return {
        "artifact": str(node.reference),
        "where": node.where,
        "stored_as": str(node.stored_as) if node.stored_as else None,
        "finished": node.finished,
        "stage": made.stage if made else None,
        "stage_version": made.version if made else None,
        "params": dict(made.params) if made else None,
        "sources": dict(made.sources) if made else None,
        "software": dict(node.software),
    }

"""What `gc` does and prints: the plan, the removal, and the scopes there are."""

from datetime import UTC, datetime
from typing import Any

from avvp_pipe.cli.console import Console, say
from avvp_pipe.cli.show import human_bytes
from avvp_pipe.store import Store, StoreError
from avvp_pipe.store.gc import Plan, Scope, plan_removal, remove


def collect(store: Store, scope: Scope, *, leftovers: bool, dry_run: bool, console: Console) -> None:
    """Remove what the scope names, and the leftovers if wanted; or say what would go, and why the rest stays."""
    left = store.leftovers() if leftovers else ()
    plan = plan_removal(store, scope, now=datetime.now(UTC)) if scope.superseded or scope.named else Plan({}, {})
    if not dry_run:
        for leftover in left:
            store.clear(leftover)
        remove(store, plan)
    freed = plan.freed + sum(one.bytes for one in left)
    document = {
        "dry_run": dry_run,
        "removed": [{"artifact": str(one), "why": why, "bytes": plan.bytes[one]} for one, why in plan.remove.items()],
        "leftovers": [{"location": one.location, "why": one.why, "bytes": one.bytes} for one in left],
        "kept": [{"artifact": str(one), "why": why} for one, why in plan.keep.items()],
        "bytes": freed,
    }
    # Why the rest stays is for who asks before; it is in the JSON always.
    explained = dry_run and scope.superseded
    console.result(document, lambda: _print_collected(document, explained=explained))


def _print_collected(document: dict[str, Any], *, explained: bool) -> None:
    verb = "would remove" if document["dry_run"] else "removed"
    for one in (*document["leftovers"], *document["removed"]):
        say(f"{verb} {one.get('artifact') or one['location']}: {one['why']}, {human_bytes(one['bytes'])}")
    for one in document["kept"] if explained else ():
        say(f"would keep {one['artifact']}: {one['why']}")
    count = len(document["leftovers"]) + len(document["removed"])
    say(f"{verb} {count} of them, {human_bytes(document['bytes'])}" if count else "nothing to remove")


def print_scopes(store: Store, console: Console) -> None:
    """What each scope would free; removes nothing."""
    left = store.leftovers()
    try:
        plan = plan_removal(store, Scope(superseded=True), now=datetime.now(UTC))
        count, superseded, note = len(plan.remove), plan.freed, None
    except StoreError as error:
        count, superseded, note = 0, 0, str(error)
    sizes = [artifact.size_bytes() for artifact in store.artifacts()]
    scopes = [
        {"scope": "--leftovers", "count": len(left), "bytes": sum(one.bytes for one in left), "note": None},
        {"scope": "--superseded", "count": count, "bytes": superseded, "note": note},
        {"scope": "REF ...", "count": len(sizes), "bytes": sum(sizes), "note": "whichever of them you name"},
    ]
    told = "gc needs to be told what may go; nothing was removed"

    def shown() -> None:
        for one in scopes:
            size = human_bytes(int(str(one["bytes"])))
            say(f"{one['scope']!s:14}{one['count']!s:>6}  {size:>10}" + (f"  {one['note']}" if one["note"] else ""))

    console.result({"error": told, "scopes": scopes}, shown)
    console.note(f"error: {told}")

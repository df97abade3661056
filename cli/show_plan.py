"""How a dry run is printed: the condition of a step, and what running it would cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from avvp_pipe.cli.console import Console, human_seconds, say, table
from avvp_pipe.cli.show import conditions_document, human_bytes, say_conditions
from avvp_pipe.pipeline.status import Condition

__all__ = ["human_seconds", "print_plan"]

PARTS = {
    "load": "load the teachers, once",
    "texts": "embed the texts, once",
    "decode": "decode or read, a clip, in one process",
    "vision": "image model, a clip",
    "sound": "audio model, a clip",
    "other": "between them, a clip",
}


def print_plan(found: Sequence[Condition], cost: Mapping[str, Any] | None, console: Console) -> None:
    """One line a step, and why it would run; then clips, bytes and time. `cost`: of `pipeline.forecast`."""

    def shown() -> None:
        say_conditions(found)
        if cost is not None:
            _say_cost(cost)

    console.result({**conditions_document(found), "estimate": cost}, shown)


def _say_cost(cost: Mapping[str, Any]) -> None:
    say(f"\nclips     {cost['to_do']} to do of {cost['clips']}; files missing: {cost['missing_files']}")
    say(f"size      about {human_bytes(cost['bytes'])}")
    sample, seconds = cost["sample"], cost["seconds"]
    for failure in sample["failures"]:
        say(f"          {failure['video_id']} failed in the sample: {failure['code']}: {failure['message']}")
    if seconds is None:
        say("time      cannot be told: no clip could be measured")
        return
    by = f", {_many(cost['workers'], 'decoding process', 'es')}" if cost["workers"] else ""
    say(f"time      about {human_seconds(seconds['total'])} on this machine ({cost['device']}{by})\n")
    lines = [(PARTS[name], f"{value:.3f}") for name, value in {**seconds["once"], **seconds["each"]}.items()]
    lines.append(("every clip adds to the run", f"{seconds['clip']:.3f}"))
    table(f"measured on {_many(sample['clips'], 'clip', 's')}", ("", "seconds"), lines)


def _many(count: int, what: str, plural: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}{plural}"

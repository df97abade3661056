"""How one step with several seeds is printed."""

from collections.abc import Sequence
from typing import Any

from avvp_pipe.cli.console import Console, say, table
from avvp_pipe.cli.show import outcome_document
from avvp_pipe.pipeline.runner import Outcome
from avvp_pipe.pipeline.seeds import Spread, spreads


def print_seeds(outcomes: Sequence[Outcome], seeds: Sequence[int], console: Console) -> None:
    """One line for each artifact, then mean and spread of the validation scores."""
    found = spreads([outcome.artifact for outcome in outcomes])

    def shown() -> None:
        for outcome in outcomes:
            say(f"{outcome.state} {outcome.artifact.reference} in {outcome.seconds:.1f} s")
        if found:
            title = f"validation, best epochs of {len(seeds)} seeds, percent"
            table(title, ("", "mean", "deviation", *map(str, seeds)), [_line(one) for one in found])
        else:
            say("no validation scores, hence no spread; `avvp-pipe evaluate` scores each on other splits")

    console.result(_document(outcomes, seeds, found), shown)


def _line(one: Spread) -> tuple[str, ...]:
    numbers = (one.mean, one.deviation, *one.values)
    return (one.metric, *(f"{number:.2f}" for number in numbers))


def _document(outcomes: Sequence[Outcome], seeds: Sequence[int], found: Sequence[Spread]) -> dict[str, Any]:
    return {
        "seeds": list(seeds),
        "artifacts": [outcome_document(outcome) for outcome in outcomes],
        "validation": {
            one.metric: {"mean": one.mean, "deviation": one.deviation, "values": list(one.values)} for one in found
        },
    }

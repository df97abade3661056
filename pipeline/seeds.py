"""The same step with several seeds: an artifact for each, and how far their validation scores lie apart."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from avvp_pipe.pipeline.runner import Step
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact

__all__ = ["Spread", "seed_steps", "seeds_of", "spreads"]

LIMIT = 1000
"""Seeds in one command."""
SCORE = "history/val_"


@dataclass(frozen=True, slots=True)
class Spread:
    """One validation score over several seeds, at the best epoch of each."""

    metric: str
    values: tuple[float, ...]
    """In the order of the seeds."""

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Their standard deviation, of a sample (n - 1); 0 of one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def seeds_of(text: str) -> tuple[int, ...]:
    """Whole numbers between commas. Raises ParameterError for others, and for a seed that comes twice.

    >>> seeds_of("1,2, 3")
    (1, 2, 3)
    """
    parts = [part.strip() for part in text.split(",")]
    seeds = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    if len(seeds) != len(parts) or len(set(seeds)) != len(seeds) or len(seeds) > LIMIT:
        raise ParameterError(f"--seeds {text!r}: wanted different whole numbers between commas, such as 1,2,3")
    return seeds


def seed_steps(step: Step, seeds: Sequence[int]) -> tuple[Step, ...]:
    """The step once for each seed, called NAME-seedN. Raises ParameterError where it has a seed already."""
    if step.params.get("seed") is not None:
        raise ParameterError(f"--seed {step.params['seed']} and --seeds were given; give one of them")
    return tuple(replace(step, name=f"{step.name}-seed{seed}", params={**step.params, "seed": seed}) for seed in seeds)


def spreads(parsers: Sequence[Artifact]) -> tuple[Spread, ...]:
    """Every validation score that all of them have."""
    if not parsers:
        return ()
    names = [name for name in parsers[0].array_names() if name.startswith(SCORE)]
    common = [name for name in names if all(name in one for one in parsers)]
    return tuple(
        Spread(
            name.removeprefix("history/"),
            tuple(float(one.array(name)[int(one.attrs["best_epoch"]) - 1]) for one in parsers),
        )
        for name in common
    )

"""Running a recipe: its steps on a dataset of one's own, and what the paper printed beside what came out.

recipe + what it is given -> steps (as `run_step` takes them) -> artifacts -> rows: published, measured, difference
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.recipe import (
    COLEAF_METRICS,
    GIVEN,
    METRICS,
    OPTIONAL,
    Published,
    Recipe,
    RecipeStep,
    type_error,
)
from avvp_pipe.pipeline.runner import Step
from avvp_pipe.stages.stage import ParameterError, make_params
from avvp_pipe.store import Artifact, StoreError, parse_reference

__all__ = ["Compared", "compare", "compared_document", "doubts", "mean_of_ten", "plan_recipe", "steps_of_recipe"]

LEVELS = ("segment", "event")
TYPE_TOLERANCE = 0.1
"""Of a Type made of three numbers that were rounded to one decimal, itself rounded."""
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Compared:
    """A published row beside what was measured."""

    published: Published
    measured: Scores | None
    """Level -> metric -> percent, of the same split and pooling; None where that split is not labelled."""
    artifact: str
    """The scores it was read from."""
    origin: str
    """Where the labels' features came from, where that is not the extraction of videos ("simulation")."""
    other_clips: str
    """In words, that so many other clips were measured than the paper's; empty where as many were."""
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    """`video_labels` everywhere and `nothing` -> as `measured`, of the same clips; empty where it is None."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """`of` what was measured, and of both baselines -> percent of seconds; empty where seconds have several classes."""


def plan_recipe(
    recipe: Recipe,
    given: Mapping[str, str],
    *,
    used: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Step, ...]:
    """The recipe's steps as `run_step` takes them, in order; artifacts are called DATASET-RECIPE.

    given: name out of GIVEN -> reference. used: id of a step -> reference of what is there already and taken instead.
    settings: stage -> parameters, over the recipe's own.
    Raises ParameterError where something is lacking, is given for nothing, or is of another kind.
    """
    return tuple(steps_of_recipe(recipe, given, used=used, settings=settings).values())


def steps_of_recipe(
    recipe: Recipe,
    given: Mapping[str, str],
    *,
    used: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Step]:
    """The same by the ids that the recipe gives its steps."""
    used, settings = used or {}, settings or {}
    known = {step.id: step for step in recipe.steps}
    for name in used:
        if name not in known:
            raise ParameterError(f"{recipe.name} has no step {name!r}; it has {', '.join(known)}")
    references = {name: str(parse_reference(text, kind=STAGES[known[name].stage].kind)) for name, text in used.items()}
    steps = tuple(_without_optional(step, given) for step in _needed(recipe.steps, frozenset(used)))
    references |= _starts(recipe, steps, given)
    if idle := set(settings) - {step.stage for step in steps}:
        stages = ", ".join(dict.fromkeys(step.stage for step in steps))
        raise ParameterError(f"{recipe.name} does not run {min(idle)}, so that --set changes nothing; it runs {stages}")
    names = _names(recipe, steps, references)
    planned = {}
    for step in steps:
        params = {**step.params, **settings.get(step.stage, {})}
        make_params(STAGES[step.stage], params)
        inputs = {role: references.get(came) or names[came] for role, came in step.inputs.items()}
        planned[step.id] = Step(step.stage, parse_reference(names[step.id]).name, params, inputs)
    return planned


def _needed(steps: tuple[RecipeStep, ...], used: frozenset[str]) -> tuple[RecipeStep, ...]:
    """The steps that still have to run: not those that are replaced, nor those that only these needed."""
    wanted: set[str] = set()
    for step in reversed(steps):
        last = step.stage == "evaluate" or step is steps[-1]
        if step.id not in used and (last or step.id in wanted):
            wanted |= {step.id, *step.inputs.values()}
    return tuple(step for step in steps if step.id in wanted and step.id not in used)


def _without_optional(step: RecipeStep, given: Mapping[str, str]) -> RecipeStep:
    """The step without the inputs that need not be given and are not."""
    inputs = {role: came for role, came in step.inputs.items() if came not in OPTIONAL or given.get(came)}
    return dataclasses.replace(step, inputs=inputs)


def _starts(recipe: Recipe, steps: Sequence[RecipeStep], given: Mapping[str, str]) -> dict[str, str]:
    wanted = {name for step in steps for name in step.inputs.values() if name in GIVEN}
    for name in GIVEN:
        if name in wanted and not given.get(name):
            owner = next(step for step in steps if name in step.inputs.values())
            instead = f", or --use {owner.id}={STAGES[owner.stage].kind}/NAME for one that is there"
            raise ParameterError(
                f"{recipe.name} runs {owner.stage} on {name.removeprefix('@')}; give it as --{name.removeprefix('@')} "
                f"NAME{instead if name.startswith(('@pretrain', '@threshold')) else ''}"
            )
    if idle := [name for name in recipe.given if name in OPTIONAL and given.get(name) and name not in wanted]:
        raise ParameterError(
            f"--{idle[0].removeprefix('@')} has no effect: the step of {recipe.name} that heeds it is replaced "
            "by --use; leave one of the two out"
        )
    return {name: str(parse_reference(given[name], kind=GIVEN[name])) for name in sorted(wanted)}


def _names(recipe: Recipe, steps: Sequence[RecipeStep], references: Mapping[str, str]) -> dict[str, str]:
    """Id of a step -> kind/name: after its dataset and the recipe, and after its id where a kind is made twice."""
    kinds = Counter(STAGES[step.stage].kind for step in steps)
    datasets: dict[str, str] = {}
    names = {}
    for step in steps:
        kind, came = STAGES[step.stage].kind, step.inputs.values()
        base = next((references[one] for one in came if one in GIVEN and GIVEN[one] == "dataset"), None)
        datasets[step.id] = base or next((datasets[one] for one in came if one in datasets), recipe.name)
        name = f"{parse_reference(datasets[step.id], kind='dataset').name}-{recipe.name}"
        names[step.id] = f"{kind}/{name}" if kinds[kind] == 1 else f"{kind}/{name}-{step.id}"
    return names


def compare(recipe: Recipe, scores: Artifact) -> tuple[Compared, ...]:
    """Every published row beside the scores of the same split and pooling. Raises StoreError for other scores."""
    if scores.kind != "scores":
        raise StoreError(f"{scores.reference} holds no scores; published numbers are compared with those")
    origin, rows = str(scores.attrs.get("origin", "")), scores.attrs["scores"]
    found = []
    for published in recipe.published:
        wanted = (published.split, published.dense)
        of_split = [one for one in rows if (one["split"], one.get("dense", "separate")) == wanted]
        facts = (published, None, str(scores.reference), origin, "")
        found.append(_compared(recipe, Compared(*facts), of_split[0]) if of_split else Compared(*facts))
    return tuple(found)


def _compared(recipe: Recipe, one: Compared, part: Mapping[str, Any]) -> Compared:
    """The row with what was measured of its split."""
    baselines = dict(part["pooled"][one.published.pooling])
    measured, other = baselines.pop("of"), _other_clips(recipe, one.published, part["clips"])
    accuracy = part.get("accuracy", {})
    return dataclasses.replace(one, measured=measured, other_clips=other, baselines=baselines, accuracy=accuracy)


def _other_clips(recipe: Recipe, published: Published, clips: int) -> str:
    wanted = recipe.clips.get(published.split, clips)
    return "" if wanted == clips else f"measured on {clips}, published on {wanted} ({recipe.dataset})"


def doubts(published: Published) -> tuple[str, ...]:
    """What speaks against a published row: what its recipe says, and sums that do not come out."""
    told = [published.doubt] if published.doubt else []
    for level in LEVELS:
        error = type_error(getattr(published, level))
        if error is not None and abs(error) > TYPE_TOLERANCE:
            told.append(f"{level}-level Type is {error:+.1f} beside the mean of the printed A, V and AV")
    return tuple(told)


def mean_of_ten(scores: Scores) -> float | None:
    """The mean of the five metrics at both levels, EAR's "Avg."; None where one is lacking."""
    values = [scores[level].get(metric) for level in LEVELS for metric in METRICS]
    known = [value for value in values if value is not None]
    return sum(known) / len(values) if len(known) == len(values) else None


def compared_document(one: Compared) -> dict[str, Any]:
    """The JSON of one row: what was printed, what was measured, and measured less printed.

    Of CoLeaF's metrics those that were printed; `accuracy` within `measured` only where it was.
    """
    published = {level: getattr(one.published, level) for level in LEVELS}
    measured = one.measured and _with_accuracy(one, one.measured, "of")
    return {
        **dataclasses.asdict(one.published),
        **published,
        "doubts": list(doubts(one.published)),
        "measured": measured,
        "difference": measured and _difference(one.published, measured),
        "baselines": {name: _with_accuracy(one, scores, name) for name, scores in one.baselines.items()},
        "mean_of_ten": {
            "published": mean_of_ten(published),
            "measured": mean_of_ten(measured) if measured else None,
        },
        "scores": one.artifact,
        "origin": one.origin,
        "other_clips": one.other_clips,
    }


def _with_accuracy(one: Compared, scores: Scores, name: str) -> dict[str, Any]:
    """Level -> metric -> percent of one set, and its accuracy where the row has one."""
    found: dict[str, Any] = {}
    for level in LEVELS:
        wanted = METRICS + tuple(metric for metric in COLEAF_METRICS if metric in getattr(one.published, level))
        found[level] = {metric: scores[level][metric] for metric in wanted if metric in scores[level]}
    if one.published.accuracy is not None and name in one.accuracy:
        found["accuracy"] = one.accuracy[name]
    return found


def _difference(published: Published, measured: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        level: {name: measured[level][name] - value for name, value in getattr(published, level).items()}
        for level in LEVELS
    }
    if published.accuracy is not None and "accuracy" in measured:
        found["accuracy"] = measured["accuracy"] - published.accuracy
    return found

"""From a run's file to its steps: recipes and seeds unfolded, ids turned into references, everything checked.

    steps of the file -> Planned(id, Step, recipe), as `run_step` takes them, in the file's order

Nothing is read but recipes; whether inputs from outside the file are in the store is told by `pipeline/run_plan.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.names import step_name
from avvp_pipe.pipeline.recipe import GIVEN, read_recipe
from avvp_pipe.pipeline.recipe_run import steps_of_recipe
from avvp_pipe.pipeline.run_config import RunConfig, RunStep
from avvp_pipe.pipeline.runner import Step
from avvp_pipe.pipeline.seeds import seed_steps
from avvp_pipe.pipeline.tables import hint
from avvp_pipe.stages.stage import ParameterError, Stage, make_params
from avvp_pipe.store import StoreError, parse_reference

__all__ = ["Planned", "config_of_steps", "plan_run"]


@dataclass(frozen=True, slots=True)
class Planned:
    """One step of a run, ready to be run."""

    id: str
    step: Step
    recipe: str = ""
    """The recipe that it is of, if any."""


@dataclass
class _Plan:
    """What is planned so far."""

    planned: list[Planned] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    """Id -> kind/name."""
    seeded: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Id -> seeds, of steps that stand for several."""

    def add(self, id_: str, step: Step, recipe: str, where: str) -> None:
        for other in self.planned:
            if other.step.reference == step.reference:
                raise ParameterError(
                    f"{where}: makes {step.reference}, as {other.id} does; give one of the two a `name`"
                )
        self.planned.append(Planned(id_, step, recipe))
        self.made[id_] = str(step.reference)


def plan_run(config: RunConfig) -> tuple[Planned, ...]:
    """The steps of a run, in order.

    Raises ParameterError naming the step and what is wrong: parameters, inputs that are no earlier step and no
    reference or are of another kind, two steps that make the same, a step that comes before what it reads.
    """
    plan, ids = _Plan(), [one.id for one in config.steps]
    for one in config.steps:
        where = f"step {one.id!r}"
        if one.id in plan.made or one.id in plan.seeded or ids.count(one.id) > 1:
            raise ParameterError(f"{where}: two steps have this id; ids should differ")
        if one.recipe:
            _add_recipe(plan, one, where)
        else:
            _add_stage(plan, one, config.defaults.get(one.stage, {}), where)
    _check_order(plan.planned)
    _check_defaults(config, plan.planned)
    return tuple(plan.planned)


def _add_stage(plan: _Plan, one: RunStep, defaults: Mapping[str, Any], where: str) -> None:
    stage, params = STAGES[one.stage], {**defaults, **one.params}
    for role in one.inputs:
        if role not in stage.reads:
            raise ParameterError(f"{where}: {stage.name} reads no {role!r}{hint(role, stage.reads)}")
    for role, reads in stage.reads.items():
        if reads.required and role not in one.inputs:
            raise ParameterError(f"{where}: {stage.name} needs the input {role} ({reads.text.rstrip('.')})")
    seeds = _seeds_read(plan, one, where)
    for seed in seeds or (None,):
        suffix = "" if seed is None else f"-seed{seed}"
        inputs = {
            role: _reference(plan, came + (suffix if came in plan.seeded else ""), stage.reads[role].kinds, where)
            for role, came in one.inputs.items()
        }
        try:
            make_params(stage, params)
            step = Step(stage.name, _name(stage, one, params, inputs, suffix), params, inputs)
            for made in seed_steps(step, one.seeds) if one.seeds else (step,):
                own = f"-seed{made.params['seed']}" if one.seeds else suffix
                plan.add(one.id + own, made, "", where)
        except (ParameterError, StoreError) as error:
            raise ParameterError(_placed(error, where)) from None
    if one.seeds or seeds:
        plan.seeded[one.id] = one.seeds or seeds


def _name(stage: Stage, one: RunStep, params: Mapping[str, Any], inputs: Mapping[str, str], suffix: str) -> str:
    defaults = {field.name: field.default for field in fields(stage.params)}
    name = step_name(stage, one.name or None, {**defaults, **params}, inputs)
    return name if not suffix or name.endswith(suffix) else name + suffix


def _placed(error: Exception, where: str) -> str:
    return str(error) if str(error).startswith("step ") else f"{where}: {error}"


def _seeds_read(plan: _Plan, one: RunStep, where: str) -> tuple[int, ...]:
    """The seeds of the steps that it reads: it is run once for each of them."""
    found = {plan.seeded[came] for came in one.inputs.values() if came in plan.seeded}
    if len(found) > 1 or (found and one.seeds):
        raise ParameterError(f"{where}: what it reads is made with several seeds of its own; give seeds to one step")
    return next(iter(found), ())


def _reference(plan: _Plan, came: str, kinds: Sequence[str], where: str) -> str:
    if came in plan.made:
        text = plan.made[came]
    elif "/" in came:
        text = str(parse_reference(came))
    else:
        known = [*plan.made, *plan.seeded]
        raise ParameterError(f"{where}: {came!r} is no earlier step and not kind/name of the store{hint(came, known)}")
    kind = parse_reference(text).kind
    if kind not in kinds:
        raise ParameterError(f"{where}: {came!r} is of kind {kind}; wanted {' or '.join(kinds)}")
    return text


def _add_recipe(plan: _Plan, one: RunStep, where: str) -> None:
    recipe = read_recipe(one.recipe)
    known = [name.removeprefix("@") for name in recipe.given]
    given = {}
    for name, came in one.inputs.items():
        if name not in known:
            raise ParameterError(f"{where}: {recipe.name} starts from no {name!r}{hint(name, known)}")
        if came in plan.seeded:
            raise ParameterError(f"{where}: {came} is made with several seeds; name one of them, such as {came}-seed1")
        given[f"@{name}"] = _reference(plan, came, (GIVEN[f"@{name}"],), where)
    settings = {}
    for stage, params in one.params.items():
        if stage not in STAGES or not isinstance(params, dict):
            raise ParameterError(f"{where}: the params of a recipe are STAGE: {{PARAMETER: VALUE}}, not {stage!r}")
        settings[stage] = {name.replace("-", "_"): value for name, value in params.items()}
    used = {name: plan.made.get(came, came) for name, came in one.use.items()}
    try:
        steps = steps_of_recipe(recipe, given, used=used, settings=settings)
    except (ParameterError, StoreError) as error:
        raise ParameterError(f"{where}: {error}") from None
    for name, step in steps.items():
        plan.add(f"{one.id}.{name}", step, one.recipe, where)


def _check_order(planned: Sequence[Planned]) -> None:
    """That nothing is read by a step that comes before the one which makes it."""
    places = {str(one.step.reference): place for place, one in enumerate(planned)}
    for place, one in enumerate(planned):
        for role, text in one.step.inputs.items():
            if places.get(text, -1) >= place:
                maker = planned[places[text]].id
                raise ParameterError(f"step {one.id!r}: {role} {text} is made by {maker!r}, which must come before it")


def _check_defaults(config: RunConfig, planned: Iterable[Planned]) -> None:
    stages = {one.step.stage for one in planned}
    for stage, values in config.defaults.items():
        if stage not in stages:
            raise ParameterError(f"defaults of {stage} have no effect: no step runs it")
        known = [one.name for one in fields(STAGES[stage].params)]
        for name in values:
            if name not in known:
                raise ParameterError(f"defaults of {stage}: no parameter {name!r}{hint(name, known)}")


def config_of_steps(steps: Iterable[Step | Planned], *, store: str = "", title: str = "") -> RunConfig:
    """Steps as a run that makes them, every name told; inputs that no step makes stay references."""
    planned = [one if isinstance(one, Planned) else Planned("", one) for one in steps]
    ids: dict[str, str] = {}
    for one in planned:
        wanted = one.id.replace(".", "-") or _id(one.step)
        ids[str(one.step.reference)] = wanted if wanted not in ids.values() else f"{wanted}-{len(ids)}"
    runs = []
    for one in planned:
        step = one.step
        inputs = {role: ids.get(text, text) for role, text in step.inputs.items()}
        params = {name: value for name, value in step.params.items() if value is not None}
        runs.append(RunStep(ids[str(step.reference)], step.stage, name=step.name, inputs=inputs, params=params))
    return RunConfig(tuple(runs), title, store)


def _id(step: Step) -> str:
    """An id that no other step has: kind and name."""
    safe = "".join(letter if letter.isalnum() else "-" for letter in step.name)
    return f"{step.reference.kind}-{safe}"

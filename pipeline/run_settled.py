"""A run with nothing left to be filled in: what `config show` prints, and what can be run as it stands."""

from dataclasses import fields, replace
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.run_config import RunConfig, RunStep, settled_document
from avvp_pipe.pipeline.run_steps import config_of_steps, plan_run
from avvp_pipe.stages.stage import make_params

__all__ = ["settled_config"]


def settled_config(config: RunConfig, *, store: str, full: bool = False) -> dict[str, Any]:
    """Recipes and seeds unfolded, `defaults` merged into the steps, values as the types they are, artifacts named.

    full: also parameters that nobody set. Raises what `plan_run` raises.
    """
    plain = config_of_steps(plan_run(config), store=store, title=config.title)
    steps = tuple(_typed(step, full=full) for step in plain.steps)
    return settled_document(replace(plain, steps=steps))


def _typed(step: RunStep, *, full: bool) -> RunStep:
    stage = STAGES[step.stage]
    made = make_params(stage, step.params)
    names = [one.name for one in fields(stage.params) if full or one.name in step.params]
    values = {name: getattr(made, name) for name in names}
    return replace(step, params={name: value for name, value in values.items() if value is not None})

"""Steps as they are typed: the command that makes an artifact, or makes it again."""

import dataclasses
import shlex
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.names import step_name
from avvp_pipe.pipeline.runner import Step
from avvp_pipe.store import DEFAULT_STORE, Artifact, Reference, Store

__all__ = ["command_line", "step_of"]


def step_of(artifact: Artifact, store: Store) -> Step:
    """The step that made an artifact: as it was asked for, if it was the last; else from its records."""
    asked, record = store.request(Reference(artifact.kind, artifact.name)), artifact.provenance
    if asked and asked.key == artifact.key:
        return Step(asked.stage, artifact.name, asked.params, asked.inputs)
    outside = store.run_record(artifact).get("params", {})
    params = {**record["params"], **(outside if isinstance(outside, dict) else {})}
    inputs = {role: text.partition("@")[0] for role, text in record["inputs"].items()}
    return Step(record["stage"], artifact.name, params, inputs)


def command_line(step: Step, store: Store, *more: str) -> str:
    """A step as a command line for the shell, without what is as it would be anyway. more: further words."""
    stage = STAGES[step.stage]
    defaults = {field.name: field.default for field in dataclasses.fields(stage.params)}
    words = [word for role, text in step.inputs.items() for word in (f"--{role.replace('_', '-')}", text)]
    for name, value in step.params.items():
        if name in defaults and value not in (None, defaults[name]):
            words += _flag(name.replace("_", "-"), value)
    if step.name != step_name(stage, None, {**defaults, **step.params}, step.inputs):
        words += ["--name", step.name]
    if str(store.root) != DEFAULT_STORE:
        words += ["--store", str(store.root)]
    return shlex.join(["avvp-pipe", stage.name, *words, *more])


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]

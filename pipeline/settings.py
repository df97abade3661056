"""Parameters changed from the command line for one stage out of several: STAGE.PARAMETER=VALUE."""

from collections.abc import Sequence

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.stages.stage import ParameterError

__all__ = ["settings_of"]


def settings_of(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Stage -> parameter -> value. Raises ParameterError for what has another form or names no stage.

    >>> settings_of(["pretrain.train-batch=8"])
    {'pretrain': {'train_batch': '8'}}
    """
    changed: dict[str, dict[str, str]] = {}
    for setting in settings:
        left, equals, value = setting.partition("=")
        stage, dot, parameter = left.partition(".")
        if not (equals and dot and stage in STAGES):
            raise ParameterError(
                f"--set {setting!r} is not STAGE.PARAMETER=VALUE with a stage out of {', '.join(STAGES)}; "
                "for example --set calibrate.mode=class-agnostic"
            )
        changed.setdefault(stage, {})[parameter.replace("-", "_")] = value
    return changed

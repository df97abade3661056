"""How parsers are trained unless told otherwise: from the parameters that were given to those that count.

    given on the command line > the parser's published recipe > UWAV's, which is PUBLISHED here

Parameters that nothing uses (steps of a cosine schedule, re-weighting without targets, terms of an objective that the
parser brings itself) become None, so that they do not tell two equal runs apart; given, they are refused.
No torch at import.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from avvp_pipe.stages.stage import ParameterError

if TYPE_CHECKING:
    from avvp_pipe.stages.parsers.records import ParserMethod

__all__ = ["NETWORK_FIELDS", "PUBLISHED", "SHARED", "settled_network", "settled_recipe"]

PUBLISHED: Mapping[str, Any] = {
    "targets": "soft",
    "video": "pooled",
    "audio_smoothing": 1.0,
    "visual_smoothing": 0.9,
    "video_loss": "bce",
    "segment": "bce",
    "reweight": "code",
    "balance": 0.5,
    "mixup": "soft",
    "mixup_alpha": 1.7,
    "background": "none",
    "widths": "published",
    "epochs": 80,
    "optimiser": "adamw",
    "beta1": 0.9,
    "beta2": 0.999,
    "weight_decay": 1e-4,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "warmup": 10,
    "learning_rate": 1e-4,
    "learning_rate_min": 5e-6,
    "step_every": 10,
    "step_factor": 0.1,
    "train_batch": 64,
    "select": "val_Type",
    "ties": "first",
    "patience": 0,
    "seed": 20000,
}
"""UWAV's released script (15c9a8d)."""
SHARED = (
    "video", "audio_smoothing", "visual_smoothing", "video_loss", "segment", "reweight", "balance", "mixup",
    "mixup_alpha", "background",
)  # fmt: skip
"""Parameters of the objective that parsers share."""
NETWORK_FIELDS = ("width", "heads", "ffn", "layers", "dropout", "norm", "order")
"""Parameters that are fields of a parser's network, where it has them."""
DENSE = ("segment", "reweight", "mixup")
"""Parameters that say what labels of seconds are for, each with a word for nothing."""

Uses = Callable[[Mapping[str, Any]], bool]
USED_IF: Mapping[str, tuple[Uses, str]] = {
    "segment": (lambda one: one["targets"] != "weak", "weak labels supervise no second"),
    "reweight": (lambda one: one["targets"] != "weak" and one["segment"] == "bce", "no segment is re-weighted"),
    "mixup": (lambda one: one["targets"] != "weak", "weak labels supervise no second"),
    "balance": (lambda one: one["reweight"] != "none", "nothing is re-weighted"),
    "mixup_alpha": (lambda one: one["mixup"] != "none", "there is no mixup"),
    "video_loss": (lambda one: one["video"] != "none", "there is no video term"),
    "audio_smoothing": (lambda one: one["video"] == "guided", "the video term is not guided"),
    "visual_smoothing": (lambda one: one["video"] == "guided", "the video term is not guided"),
    "warmup": (lambda one: one["schedule"] == "cosine", "the schedule is not a cosine"),
    "learning_rate_min": (lambda one: one["schedule"] == "cosine", "the schedule is not a cosine"),
    "step_every": (lambda one: one["schedule"] == "step", "the schedule has no steps"),
    "step_factor": (lambda one: one["schedule"] == "step", "the schedule has no steps"),
}
"""Parameter -> whether it counts, and why not; those that others ask for come first."""


def settled_recipe(method: "ParserMethod", given: Mapping[str, Any], *, labelled: bool) -> dict[str, Any]:
    """Every name of PUBLISHED with what it comes to; None for what does not count.

    given: parameters, None for those left out. labelled: whether labels of seconds were given, which then train a
    parser that was published with weak labels alone. Raises ParameterError for parameters of no use.
    """
    asked = {name: given[name] for name in PUBLISHED if given[name] is not None}
    found = {**PUBLISHED, **_widths(method), **method.recipe, **asked}
    if labelled and "targets" not in asked and found["targets"] == "weak":
        found["targets"] = "hard"
    if method.objective != "shared":
        for name in SHARED:
            _refuse(name, asked, f"parser {method.name} has an objective of its own; see --switches")
        found |= dict.fromkeys(SHARED)
    for name, (used, why) in USED_IF.items():
        if found[name] is not None and not used(found):
            _refuse(name, asked, why)
            found[name] = "none" if name in DENSE else None
    return found


def _widths(method: "ParserMethod") -> dict[str, str]:
    """Classic features and CLAP's maps are as wide as published; what else reads teachers reads any teachers'."""
    classic = {"motion", "audio_map"} & set(method.reads)
    return {"widths": "published" if classic else "features"}


def _refuse(name: str, asked: Mapping[str, Any], why: str) -> None:
    if asked.get(name) not in (None, "none"):
        raise ParameterError(f"--{name.replace('_', '-')} {asked[name]} was given, but {why}; leave it out")


def settled_network(method: "ParserMethod", given: Mapping[str, Any]) -> dict[str, Any]:
    """NETWORK_FIELDS with what they come to; None where the network has no such field.

    Raises ParameterError for one that was given and that it does not have.
    """
    fields = {field.name for field in dataclasses.fields(method.network)}
    for name in NETWORK_FIELDS:
        if given[name] is not None and name not in fields:
            raise ParameterError(f"--{name} {given[name]} was given, but parser {method.name} has none; leave it out")
    return {
        name: (getattr(method.network, name, None) if given[name] is None else given[name]) for name in NETWORK_FIELDS
    }

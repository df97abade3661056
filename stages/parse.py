"""Stage `parse`: a stored parser says of clips which events are heard and which are seen in every second.

    a parser's weights, features as wide as it reads them -> video_probs (N, C)
                                                             audio_, visual_ probs and hard (N, T, C)

The features may be of any dataset; classes are the parser's. Decisions are made as the parser's paper makes them, or as
told: a class is on where its probability passes `threshold` and the clip's passes `gate_threshold`. Clips that failed
keep their status and get zeros, as do seconds beyond a clip's end. Shard by shard: a killed run goes on at a shard.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from avvp_pipe.stages.parsers.records import GateSettings
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from torch import device, nn

    from avvp_pipe.stages.parsers.feeding import Feed
    from avvp_pipe.stages.parsers.records import ParserMethod
    from avvp_pipe.stages.parsers.validation import Parsing
    from avvp_pipe.store import Artifact, Builder

Share = Annotated[float, Field(ge=0, le=1)] | None
GATE = ("gate", "gate_threshold", "threshold", "compare")


@dataclass(frozen=True, slots=True)
class Params:
    """How probabilities become decisions. What is None is the parser's own."""

    gate: Literal["global", "modality", "none"] | None = option(
        None,
        "What a class has to pass in the whole clip: pooled (HAN, VALOR, UWAV), in that modality (CoLeaF), nothing.",
    )
    gate_threshold: Share = option(None, "Probability that it has to pass there.")
    threshold: Share = option(None, "Probability that a second has to pass.")
    compare: Literal["above", "at-least"] | None = option(
        None, "Whether equality passes: UWAV's above, HAN's at-least."
    )
    device: str = outside_key("auto", "auto, cpu or cuda:N.")


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in the parser's own decisions. Raises ParameterError where none are made by thresholds."""
    parser = inputs["parser"]
    if parser.attrs.get("background"):
        if given := [name for name in GATE if getattr(params, name) is not None]:
            raise ParameterError(
                f"{parser.reference} has background as a class of its own: the most probable class of a second is on, "
                f"and --{given[0].replace('_', '-')} is of no use; leave it out"
            )
        return params
    own = _own_gate(parser)
    own["compare"] = "above" if own.pop("strict") else "at-least"
    return dataclasses.replace(params, **{name: own[name] for name in GATE if getattr(params, name) is None})


def _own_gate(parser: "Artifact") -> dict[str, Any]:
    """As the parser was scored in training, else as its paper says."""
    stored = parser.attrs.get("gate")
    if isinstance(stored, dict) and stored.keys() == dataclasses.asdict(GateSettings()).keys():
        return dict(stored)
    return dataclasses.asdict(_method(parser).gate)


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Parse every clip that did not fail."""
    from avvp_pipe.stages.blocks.device import torch_device
    from avvp_pipe.stages.parsers.fitting import check_streams
    from avvp_pipe.stages.parsers.validation import Parsing, predictions

    parser, features = inputs["parser"], inputs["features"]
    where, method = torch_device(params.device), _method(parser)
    model, network = _loaded(parser, method)
    check_streams(method, network, features)
    feed = _feed(features, tuple(network.widths()), len(parser.attrs["classes"]), where)
    background = bool(parser.attrs.get("background"))
    parsing = Parsing(GateSettings() if background else _gate(params), background)
    _describe(out, parser, features, parsing)
    status, shape = features.array("status"), (len(feed.lengths), feed.segments, feed.weak.shape[1])
    out.declare("video_probs", (shape[0], shape[2]), "float32", compressed=True)
    for modality in ("audio", "visual"):
        out.declare(f"{modality}_probs", shape, "float32", compressed=True)
        out.declare(f"{modality}_hard", shape, "bool")
    out.declare("status", shape[:1], "uint8")
    model, shards = model.to(where), list(out.pending())
    done = -(-shape[0] // STAGE.shard_rows) - len(shards)
    for shard in progress.track(shards, total=len(shards) + done, label="parse", done=done):
        found = predictions(model, feed, np.arange(shard.start, shard.stop), parsing)
        out.write(shard, {"status": status[shard], **found})


def _gate(params: Params) -> GateSettings:
    assert params.gate is not None
    assert params.gate_threshold is not None
    assert params.threshold is not None
    return GateSettings(params.gate, params.gate_threshold, params.threshold, params.compare == "above")


def _method(parser: "Artifact") -> "ParserMethod":
    from avvp_pipe.stages.parsers import parser_method

    name = parser.attrs.get("parser")
    if not isinstance(name, str):
        raise StoreError(
            f"{parser.reference} does not say which parser it is (it was made by version "
            f"{parser.provenance['stage_version']} of {parser.provenance['stage']}); train or import it anew"
        )
    return parser_method(name)


def _loaded(parser: "Artifact", method: "ParserMethod") -> "tuple[nn.Module, Any]":
    """The network with its weights, and the record of its sizes. Raises StoreError where they do not fit."""
    from avvp_pipe.stages.blocks.stored import load_network

    record = type(method.network)
    try:
        network = record(**parser.attrs["network"])
        return load_network(parser, record, method.build), network
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{parser.reference} holds no parser {method.name} that can be run ({type(error).__name__}: {error}); "
            "`avvp-pipe verify` tells whether it is damaged; else train or import it anew"
        ) from error


def _feed(features: "Artifact", names: tuple[str, ...], classes: int, where: "device") -> "Feed":
    """All clips of the features, read from the store as they are parsed. Weak labels are of no use here."""
    import torch

    from avvp_pipe.stages.blocks.device import tensor_on
    from avvp_pipe.stages.parsers.feeding import Feed

    clips = features.facts("lengths").shape[0]
    timed = next(name for name in names if name != "audio_map")
    return Feed(
        features=features,
        names=names,
        weak=torch.zeros(clips, classes, dtype=torch.bool, device=where),
        lengths=tensor_on(where, features.array("lengths").astype(np.int64)),
        segments=features.facts(timed).shape[1],
    )


def _describe(out: "Builder", parser: "Artifact", features: "Artifact", parsing: "Parsing") -> None:
    """What identifies the clips, and how they were parsed."""
    classes = list(parser.attrs["classes"])
    for name in ("video_ids", "splits"):
        out.put(name, features.strings(name))
    out.put("lengths", features.array("lengths"))
    if list(features.attrs.get("classes", [])) == classes:
        out.put("weak", features.array("weak"))
    out.describe(
        classes=classes,
        parser=parser.attrs["parser"],
        method=str(parser.attrs.get("method", parser.name)),
        gate=None if parsing.background else dataclasses.asdict(parsing.gate),
        background=parsing.background,
    )


STAGE = Stage(
    name="parse",
    kind="predictions",
    version=1,
    summary="Run a stored parser over features, or straight over video files: which events are heard and seen when. "
    "Videos are extracted as the features were that the parser was trained on.",
    reads={
        "parser": Reads("parser", "A parser that was trained or imported."),
        "features": Reads("features", "Of any clips, as wide as those it was trained on."),
    },
    params=Params,
    run=run,
    settle=settle,
    example="""\
from videos, or folders of them, to a table
avvp-pipe parse --parser parser/mine holiday.mp4 --csv holiday.csv
features that were extracted before
avvp-pipe parse --parser parser/mine --features features/others --csv others.csv""",
)

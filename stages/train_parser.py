"""Stage `train-parser`: a parser learns from labels which events are heard and seen in every second.

    labels (soft or hard), weak labels, features -> weights, history, and predictions for every clip

Each parser brings its network and its published recipe (`stages/parsers/`); parameters that are left out are that
recipe's. What is minimised is put together of parts that any parser can take (`parsers/objectives.py`), or is the
parser's own. The best epoch is the one of the best validation score of the name `select` (`parsers/validation.py`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from avvp_pipe.stages.blocks.precision import settled_precision
from avvp_pipe.stages.parsers.records import ParserName
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, epochs, option, outside_key

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

OBJECTIVE, RECIPE = "Objective", "Recipe"
Count = Annotated[int, Field(ge=1)] | None
Share = Annotated[float, Field(ge=0, lt=1)] | None
Positive = Annotated[float, Field(gt=0)] | None
Number = Annotated[float, Field(ge=0)] | None


@dataclass(frozen=True, slots=True)
class Params:
    """Parser, objective and recipe. What is None is the parser's own."""

    parser: ParserName = option("uwav-clip-clap", "Which parser; what is left out below is its own published recipe.")
    widths: Literal["published", "features"] | None = option(
        None, "Inputs as wide as published, or as the features are, without motion where they have none."
    )
    width: Annotated[int, Field(ge=8)] | None = option(None, "Width of the parser.")
    heads: Count = option(None, "Attention heads.")
    ffn: Annotated[int, Field(ge=8)] | None = option(None, "Width of the feed-forward layers.")
    layers: Count = option(None, "Layers.")
    dropout: Share = option(None, "Dropout.")
    norm: Literal["post", "pre"] | None = option(None, "Where layers normalise.")
    order: Literal["sequential", "symmetric"] | None = option(
        None, "Vision attends to the updated audio, or both to the old streams."
    )
    switches: str = option("", "Other switches of the parser, NAME=VALUE between commas.")
    targets: Literal["weak", "hard", "soft"] | None = option(
        None, "What supervises seconds; weak: nothing does.", panel=OBJECTIVE
    )
    video: Literal["pooled", "guided", "mean", "none"] | None = option(
        None,
        "Weak labels supervise what is pooled of the clip; guided: of each modality too; mean: the mean logit instead.",
        panel=OBJECTIVE,
    )
    audio_smoothing: Annotated[float, Field(ge=0, le=1)] | None = option(
        None, "How much is kept of the label that guides what is heard (1.0).", panel=OBJECTIVE
    )
    visual_smoothing: Annotated[float, Field(ge=0, le=1)] | None = option(
        None, "The same of what is seen (0.9).", panel=OBJECTIVE
    )
    video_loss: Literal["bce", "asymmetric"] | None = option(
        None, "Loss of the video terms; asymmetric: CoLeaF's.", panel=OBJECTIVE
    )
    segment: Literal["bce", "global", "kd", "none"] | None = option(
        None, "What targets are for: every second, pooled modalities, distillation (of logits).", panel=OBJECTIVE
    )
    reweight: Literal["none", "code", "paper"] | None = option(
        None, "Class-balanced re-weighting of the segment loss.", panel=OBJECTIVE
    )
    balance: Positive = option(None, "Strength W of the re-weighting (0.5).", panel=OBJECTIVE)
    mixup: Literal["none", "soft", "hard"] | None = option(
        None, "Mixup of segment features after attention, against soft or hard labels.", panel=OBJECTIVE
    )
    mixup_alpha: Positive = option(None, "Of the Beta distribution that mixup draws from (1.7).", panel=OBJECTIVE)
    background: Literal["none", "column"] | None = option(
        None, "Background is where no class is on, or (AVE) a class of its own.", panel=OBJECTIVE
    )
    epochs: Count = option(None, "Passes over the training clips.", panel=RECIPE)
    optimiser: Literal["adamw", "adam"] | None = option(None, "What steps.", panel=RECIPE)
    beta1: Share = option(None, "Of the running mean of gradients.", panel=RECIPE)
    beta2: Share = option(None, "Of the running mean of their squares.", panel=RECIPE)
    weight_decay: Number = option(None, "Weight decay.", panel=RECIPE)
    clip_norm: Number = option(None, "Gradient norm limit; 0: none.", panel=RECIPE)
    schedule: Literal["cosine", "step"] | None = option(
        None, "Learning rate: up to its peak and down a cosine, or down in steps.", panel=RECIPE
    )
    warmup: Annotated[int, Field(ge=0)] | None = option(None, "Epochs until the peak learning rate.", panel=RECIPE)
    learning_rate: Positive = option(None, "Peak learning rate.", panel=RECIPE)
    learning_rate_min: Number = option(None, "Learning rate at the end of the cosine.", panel=RECIPE)
    step_every: Count = option(None, "Epochs in a step.", panel=RECIPE)
    step_factor: Annotated[float, Field(gt=0, le=1)] | None = option(None, "Factor of each step.", panel=RECIPE)
    train_batch: Count = option(None, "Clips in one step of training.", panel=RECIPE)
    select: str | None = option(
        None, "Validation score of the best epoch: val_Type, val_event_A, val_mean10, val_joint_AV, ...", panel=RECIPE
    )
    ties: Literal["first", "last"] | None = option(None, "Which of equally good epochs.", panel=RECIPE)
    patience: Annotated[int, Field(ge=0)] | None = option(
        None, "Stop after so many epochs without a better one; 0: never.", panel=RECIPE
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = option(
        "fp32",
        "What matrix products are computed in; auto: bf16 where this machine has instructions for it. fp16, with a "
        "scaled loss, needs CUDA and was not tried there.",
    )
    seed: Annotated[int, Field(ge=0)] | None = option(
        None, "Of initial weights, order of clips, dropout and mixup; the published one where left out."
    )
    features_in: Literal["memory", "stream", "auto"] = outside_key(
        "auto", "Where features are while training: in memory, or read batch by batch; auto: in memory if they fit."
    )
    device: str = outside_key("auto", "auto, cpu or cuda:N.")
    tensorboard: str = outside_key("", "Folder for curves that TensorBoard shows; none where left out.")


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in the parser's recipe. Raises ParameterError for parameters that do not fit it or are of no use."""
    from avvp_pipe.stages.parsers import parser_method
    from avvp_pipe.stages.parsers.fitting import switched
    from avvp_pipe.stages.parsers.recipes import settled_network, settled_recipe

    given, published = dataclasses.asdict(params), parser_method(params.parser)
    network, switches = switched(params.switches, published.network, published.switches)
    method = dataclasses.replace(published, network=network, switches=switches)
    found = settled_recipe(method, given, labelled="labels" in inputs) | settled_network(method, given)
    if params.select is None:
        found["select"] = _select(inputs["dataset"], found)
    if method.objective == "shared":
        found["precision"] = settled_precision(params.precision, params.device)
    elif params.precision in ("fp32", "auto"):
        found["precision"] = "fp32"
    else:
        raise ParameterError(f"parser {method.name} is trained in fp32 only; leave --precision out")
    return dataclasses.replace(params, **found)


def _select(dataset: "Artifact", found: Mapping[str, Any]) -> str:
    """The score that selects, where validation clips are labelled otherwise than LLP's."""
    import numpy as np

    from avvp_pipe.stages.rows import JOINT, SEPARATE

    val = dataset.array("dense")[np.array(dataset.strings("splits"), dtype=str) == "val"]
    if SEPARATE in val or JOINT not in val:
        return str(found["select"])
    return "val_accuracy" if found["background"] == "column" else "val_joint_AV"


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Train, keep the best epoch, store weights, history and predictions."""
    import numpy as np

    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.blocks.tensorboard import curves
    from avvp_pipe.stages.parsers.training import job_of, trained
    from avvp_pipe.stages.parsers.validation import predictions
    from avvp_pipe.stages.rows import put_clips

    job = job_of(inputs, params, progress)
    with (
        epochs(progress, "train-parser", job.settings["epochs"], saved=out.saved) as tick,
        curves(params.tensorboard, f"{params.parser}-seed{params.seed}") as draw,
    ):

        def told(record: Mapping[str, float]) -> None:
            tick(record)
            draw(record)

        fitted, model = trained(job, checkpoint=out.checkpoint, progress=told)
    put_clips(out, inputs["dataset"])
    out.put("status", inputs["features"].array("status"))
    out.describe(
        classes=list(inputs["dataset"].attrs["classes"]),
        method=method_of(params, inputs.get("labels")),
        parser=params.parser,
        gate=dataclasses.asdict(job.parsing.gate),
        background=job.parsing.background,
        streams=list(job.network.widths()),
        widths=job.network.widths(),
        switches=None if job.switches is None else dataclasses.asdict(job.switches),
        best_epoch=fitted.best_epoch,
        epochs=len(fitted.history),
        selected_by=None if job.validation is None else params.select,
    )
    put_network(out, job.network, fitted.best, fitted.history)
    every = np.arange(len(job.feed.lengths))
    for name, array in predictions(model.eval(), job.feed, every, job.parsing).items():
        out.put(name, array)


def method_of(params: Params, labels: "Artifact | None") -> str:
    """What the parser was trained on, in words for tables.

    >>> method_of(Params(parser="han", targets="weak"), None)
    'han, weak labels'
    """
    if labels is None or params.targets == "weak":
        return f"{params.parser}, weak labels"
    extras = {
        "global": params.segment == "global",
        "distilled": params.segment == "kd",
        "re-weighting": params.reweight not in (None, "none"),
        "mixup": params.mixup not in (None, "none") and params.mixup == params.targets,
        f"{params.mixup} mixup": params.mixup not in (None, "none", params.targets),
    }
    told = [name for name, on in extras.items() if on]
    return ", ".join((params.parser, f"{params.targets} {labels.attrs.get('method', labels.name)}", *told))


STAGE = Stage(
    name="train-parser",
    kind="parser",
    version=2,
    summary="Train a parser on stored labels and store its predictions: HAN, VALOR's, UWAV's, CoLeaF's, EAR's.",
    reads={
        "dataset": Reads("dataset", "Weak labels, and dense ones to select by."),
        "features": Reads("features", "What the parser sees and hears."),
        "labels": Reads("labels", "Pseudo-labels; not read with --targets weak.", required=False),
    },
    params=Params,
    run=run,
    settle=settle,
    seeds=True,
    example="""\
UWAV's parser on CLIP and CLAP features, as UWAV trains it
avvp-pipe train-parser --dataset mine --features mine --labels mine-uwav
HAN as first published, on weak labels, with three seeds
avvp-pipe train-parser --parser han --dataset llp --features llp-classic --seeds 1,2,3
CoLeaF in the paper's form
avvp-pipe train-parser --parser coleaf --switches form=paper --dataset llp --features llp-classic""",
)
# version 2: every parser of the papers; features of failed seconds are 0, dropout of HAN layers draws sixteen bits

"""A small CoLeaF and clips for it."""

from typing import Any

import torch
from torch import Tensor, nn

from avvp_pipe.stages.parsers.coleaf import CoLeaF, CoLeafNetwork, Switches, terms
from avvp_pipe.stages.parsers.coleaf_reference import Modality
from avvp_pipe.stages.parsers.records import Batch, Moment, Outputs

MODALITIES: tuple[Modality, Modality] = ("audio", "visual")
GROUPS = ("reference_audio", "reference_visual", "anchor")
CLASSES, SEGMENTS = 3, 4
SIZES: dict[str, Any] = {
    "classes": CLASSES,
    "width": 8,
    "heads": 1,
    "ffn": 12,
    "dropout": 0.0,
    "head_dropout": 0.0,
    "audio_width": 5,
    "visual_width": 6,
    "motion_width": 4,
}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**changes: Any) -> CoLeafNetwork:
    return CoLeafNetwork(**(SIZES | changes))


def coleaf(**changes: Any) -> CoLeaF:
    """In training mode, without any dropout, with layer norms that treat features unalike and sure references."""
    torch.manual_seed(0)
    model = CoLeaF(network(**changes))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5)
    for reference in (model.reference_audio, model.reference_visual):
        reference.classifier.weight.data *= 5
    return model.train()


def streams(clips: int = 4, frames: int = 2, seed: int = 0) -> dict[str, Tensor]:
    return {
        "audio": numbers(clips, SEGMENTS, 5, seed=seed),
        "visual": numbers(clips, frames * SEGMENTS, 6, seed=seed + 1),
        "motion": numbers(clips, SEGMENTS, 4, seed=seed + 2),
    }


def batch(targets: bool = False, clips: int = 4) -> Batch:
    weak = numbers(clips, CLASSES, seed=9) > 0
    weak[0] = True
    labels = {
        name: (numbers(clips, SEGMENTS, CLASSES, seed=seed) > 0).float() for seed, name in ((3, "audio"), (4, "visual"))
    }
    lengths = torch.tensor([SEGMENTS, 2, 3, SEGMENTS] * (clips // 4))
    return Batch(streams(clips), weak, lengths, labels if targets else {})


def moment(epoch: int, number: int = 0, batches: int = 5) -> Moment:
    return Moment(epoch, 10, number / batches, (epoch - 1) * batches + number)


def all_terms(model: CoLeaF, when: Moment, given: Batch | None = None, **switches: Any) -> dict[str, dict[str, Tensor]]:
    """Without any step in between."""
    torch.manual_seed(1)
    return {name: dict(found) for name, found in terms(model, given or batch(), when, Switches(**switches))}


def gradients(model: CoLeaF, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of a group's terms; zeros where none reaches."""
    named = dict(model.named_parameters())
    total = torch.stack(tuple(found.values())).sum()
    values = torch.autograd.grad(total, tuple(named.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if value is None else value
        for (name, parameter), value in zip(named.items(), values, strict=True)
    }


MANY = batch(clips=64)
"""So many that some probability lies between any two thresholds that matter."""


def said(model: CoLeaF) -> tuple[Outputs, dict[Modality, Any]]:
    given = MANY
    with torch.no_grad():
        references = {each: model.reference(each)(given.streams, given.lengths) for each in MODALITIES}
        return model.anchor(given.streams, given.lengths).outputs, references


def unit(features: Tensor) -> Tensor:
    return features / (features**2).sum(dim=-1, keepdim=True).sqrt()

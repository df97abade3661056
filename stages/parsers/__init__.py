"""Parsers: the networks trained on pseudo-labels, one file a family.

A parser reads the features of a clip and says which events are heard and which are seen in every second.
Their modules import torch, so the registry imports each when it is asked for.
"""

from collections.abc import Callable, Mapping

from avvp_pipe.stages.parsers.records import (
    Batch,
    Gate,
    GateSettings,
    Moment,
    Objective,
    Outputs,
    ParserMethod,
    ParserName,
    Streams,
    Terms,
)

__all__ = [
    "PARSERS",
    "Batch",
    "Gate",
    "GateSettings",
    "Moment",
    "Objective",
    "Outputs",
    "ParserMethod",
    "ParserName",
    "Streams",
    "Terms",
    "parser_method",
]


def _han() -> ParserMethod:
    from avvp_pipe.stages.parsers import han

    return han.METHOD


def _valor() -> ParserMethod:
    from avvp_pipe.stages.parsers import valor

    return valor.VALOR


def _valor_plus() -> ParserMethod:
    from avvp_pipe.stages.parsers import valor

    return valor.VALOR_PLUS


def _valor_plusplus() -> ParserMethod:
    from avvp_pipe.stages.parsers import valor

    return valor.VALOR_PLUSPLUS


def _uwav() -> ParserMethod:
    from avvp_pipe.stages.parsers import uwav

    return uwav.UWAV


def _uwav_clip_clap() -> ParserMethod:
    from avvp_pipe.stages.parsers import uwav

    return uwav.UWAV_CLIP_CLAP


def _coleaf() -> ParserMethod:
    from avvp_pipe.stages.parsers import coleaf

    return coleaf.METHOD


def _ear() -> ParserMethod:
    from avvp_pipe.stages.parsers import ear

    return ear.METHOD


PARSERS: Mapping[str, Callable[[], ParserMethod]] = {
    "han": _han,  # attention within and between modalities, as first published
    "valor": _valor,  # HAN on VALOR's labels, one wide layer
    "valor+": _valor_plus,  # the same, four narrower layers
    "valor++": _valor_plusplus,  # the same, on CLIP and on CLAP's feature maps
    "uwav": _uwav,  # a larger HAN, soft labels, mixup
    "uwav-clip-clap": _uwav_clip_clap,  # the same, on CLIP and CLAP
    "coleaf": _coleaf,  # an anchor that learns from uni-modal references
    "ear": _ear,  # asymmetric fusion, relations between events
}


def parser_method(name: str) -> ParserMethod:
    """The parser of that name, its module imported. Raises ValueError naming those there are."""
    try:
        found = PARSERS[name]
    except KeyError:
        raise ValueError(f"no parser {name!r}; there are {', '.join(PARSERS)}") from None
    return found()

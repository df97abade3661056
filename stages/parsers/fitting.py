"""Fitting a parser to its features: which streams there are, how wide they are, and the switches of its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from avvp_pipe.stages.rows import OK
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.parsers.records import ParserMethod
    from avvp_pipe.store import Artifact

__all__ = ["STREAMS", "Widths", "check_streams", "network_for", "stream_widths", "switched"]

NATIVE = "native_visual"
"""Frames as they came, of which `visual` holds the means over seconds."""
STREAMS = ("audio", "visual", "motion", "audio_map", NATIVE)
"""Arrays of features that parsers read: (N, T, width), (N, 64, width) of the map, (N, kT, width) of k frames a second.
"""
Widths = Literal["published", "features"]


def stream_widths(features: Artifact) -> dict[str, int]:
    """The streams that features have -> how wide they are."""
    return {name: features.facts(name).shape[2] for name in STREAMS if name in features}


def network_for(method: ParserMethod, features: Artifact, classes: int, changes: Mapping[str, Any], by: Widths) -> Any:
    """The record of a parser's network for features and classes.

    changes: fields that are not as published. by: as wide as published, or as the features are (then without motion
    where they have none). Raises StoreError where the features do not fit, ParameterError for changes that do not.
    """
    there = stream_widths(features)
    fields = {field.name for field in dataclasses.fields(method.network)}
    fitted: dict[str, Any] = {"classes": classes}
    if by == "features":
        audio = "audio_map" if "audio_map" in method.reads else "audio"
        fitted |= {"audio_width": there.get(audio, 0), "visual_width": there.get("visual", 0)}
        fitted["motion_width"] = there.get("motion", 0) if "motion" in method.reads else 0
        if not fitted["motion_width"] and "visual_fusion" in fields:  # which fuses what is there
            fitted["visual_fusion"] = "joint"
        for name in (audio, "visual"):  # of which frames, where they are read, have the width
            if name not in there:
                raise StoreError(_lacking(method, features, [name]))
    chosen = {name: value for name, value in {**fitted, **changes}.items() if name in fields}
    try:
        network = dataclasses.replace(method.network, **chosen)
    except ValueError as error:
        raise ParameterError(f"{method.name}: {error}") from None
    check_streams(method, network, features)
    return network


def check_streams(method: ParserMethod, network: Any, features: Artifact) -> None:
    """Raise StoreError unless the features have the streams that the network reads, as wide as it reads them."""
    wanted, there = network.widths(), stream_widths(features)
    if lacking := [name for name in wanted if name not in there]:
        raise StoreError(_lacking(method, features, lacking))
    if wrong := [name for name in wanted if there[name] != wanted[name]]:
        told = ", ".join(f"{name} of {wanted[name]} numbers (it has {there[name]})" for name in wrong)
        raise StoreError(
            f"{features.reference} does not fit parser {method.name}, which reads {told}; take other features, or "
            "train a parser as wide as these with --widths features"
        )
    if NATIVE in wanted:
        _check_frames(method, features)


def _check_frames(method: ParserMethod, features: Artifact) -> None:
    """Raise StoreError unless every clip that did not fail has the same number of frames in each of its seconds."""
    import numpy as np

    rows, seconds = features.facts(NATIVE).shape[1], features.facts("audio").shape[1]
    frames, lengths = features.array(f"{NATIVE}_lengths"), features.array("lengths")
    wrong = np.flatnonzero((frames * seconds != lengths * rows) & (features.array("status") == OK))
    if rows % seconds or len(wrong):
        row = int(wrong[0]) if len(wrong) else 0
        raise StoreError(
            f"parser {method.name} reads frames that are as many in every second, but {features.reference} has {rows} "
            f"in {seconds} seconds, {frames[row]} in {lengths[row]} of {features.strings('video_ids')[row]}; leave "
            "visual_rows=frames out, to read their means"
        )


def _lacking(method: ParserMethod, features: Artifact, lacking: list[str]) -> str:
    there = ", ".join(f"{name} ({width})" for name, width in stream_widths(features).items())
    anyway = "with --widths features, which leaves motion out" if lacking == ["motion"] else "of another name"
    return (
        f"parser {method.name} reads {', '.join(method.reads)}, but {features.reference} has no {', '.join(lacking)}; "
        f"it has {there}. Import features with it (`avvp-pipe import-features`), or train a parser {anyway}"
    )


def switched(text: str, *records: Any) -> list[Any]:
    """Records with the fields changed that `text` names: "norm=pre,order=symmetric"; None stays None.

    Raises ParameterError for a field that none of them has, or a value that it does not take.
    """
    from pydantic import TypeAdapter, ValidationError

    given = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ParameterError(f"--switches {text!r}: wanted name=value between commas, got {part!r}")
        given[name] = value
    known = [field.name for record in records if record is not None for field in dataclasses.fields(record)]
    for name in given:
        if name not in known:
            raise ParameterError(f"--switches: this parser has no switch {name!r}; it has {', '.join(known)}")
    changed = []
    for record in records:
        mine = () if record is None else [field.name for field in dataclasses.fields(record) if field.name in given]
        try:
            values = {field: given[field] for field in mine}
            checked = TypeAdapter(type(record)).validate_python(_values(record) | values) if mine else record
        except ValidationError as error:
            first = error.errors()[0]
            where = first["loc"][0] if first["loc"] else ", ".join(mine)
            raise ParameterError(f"--switches {where}: {first['msg']}") from None
        changed.append(checked)
    return changed


def _values(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}

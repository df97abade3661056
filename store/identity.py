"""What an artifact is: the record that its key is made of, and what differs between two such records.

A key is 12 hex digits of sha256 over canonical JSON of the identity. Nothing in it depends on the
machine, on time, on names given by people, or on code: a stage whose results change raises its version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KEY_DIGITS = 12


def canonical_json(value: object) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN or infinity.

    >>> canonical_json({"b": 1, "a": [True, None, 0.5]})
    '{"a":[true,null,0.5],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that decides the content of an artifact."""

    stage: str
    version: int
    params: Mapping[str, Any]
    """Only parameters that change results."""
    inputs: Mapping[str, str]
    """Role -> key of the artifact read in that role."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest of what was read from outside the store: files, teacher weights."""

    @property
    def key(self) -> str:
        """12 hex digits.

        >>> Identity("calibrate", 1, {"mode": "per-class"}, {"features": "0" * 12}).key
        'd82b1365c1e4'
        """
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()[:KEY_DIGITS]


def differences(old: Identity, new: Identity) -> tuple[str, ...]:
    """What makes `new` another artifact than `old`, one line a difference, old and new value in each.

    >>> a = Identity("calibrate", 1, {"mode": "per-class"}, {"features": "aaa"})
    >>> b = Identity("calibrate", 1, {"mode": "class-agnostic"}, {"features": "bbb"})
    >>> differences(a, b)
    ('parameter mode: "per-class" -> "class-agnostic"', 'input features: aaa -> bbb')
    """
    lines = []
    if old.stage != new.stage:
        lines.append(f"stage: {old.stage} -> {new.stage}")
    if old.version != new.version:
        lines.append(f"stage version: {old.version} -> {new.version}")
    for name, before, after in _changed(old.params, new.params):
        lines.append(f"parameter {name}: {_shown(before)} -> {_shown(after)}")
    for role, before, after in _changed(old.inputs, new.inputs):
        lines.append(f"input {role}: {before or 'none'} -> {after or 'none'}")
    for name, before, after in _changed(old.sources, new.sources):
        lines.append(f"source {name}: {str(before or 'none')[:KEY_DIGITS]} -> {str(after or 'none')[:KEY_DIGITS]}")
    return tuple(lines)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = sorted({*old, *new})
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _shown(value: object) -> str:
    return "unset" if value is None else canonical_json(value)

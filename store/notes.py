"""The small JSON files beside artifacts: requests, tags, records of runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avvp_pipe.store.errors import StoreError, StoreWriteError
from avvp_pipe.store.places import Place, WritablePlace

__all__ = ["Request", "read_note", "read_request", "write_note"]

_REQUEST = {"stage": str, "params": dict, "inputs": dict, "key": str}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for under a name: enough to tell later whether the artifact there is still right."""

    stage: str
    params: Mapping[str, Any]
    """All parameters, those that only change speed or say where files lie included."""
    inputs: Mapping[str, str]
    """Role -> reference, as it was given: without a version it means the newest."""
    key: str


def read_note(place: Place, name: str) -> dict[str, Any]:
    """A file's members, none where there is no such file. Raises StoreError where it is damaged or out of reach."""
    try:
        loaded = json.loads(place.read(name))
        if not isinstance(loaded, dict):
            raise ValueError(f"a {type(loaded).__name__}, not an object")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except StoreWriteError:
        raise  # the place cannot be reached, which says nothing of the file
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{place.location}/{name} is damaged ({error}); delete it: no artifact depends on it"
        ) from error
    return loaded


def write_note(place: WritablePlace, name: str, value: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all. Raises StoreWriteError."""
    place.write(name, json.dumps(value, indent=1, sort_keys=True).encode())


def read_request(place: Place, name: str) -> Request | None:
    """The request in a file, or None. Raises StoreError for a file that is there and holds none."""
    record = read_note(place, name)
    if not record:
        return None
    inputs = record.get("inputs")
    kinds = {member: type(value) for member, value in record.items()}
    if kinds == _REQUEST and isinstance(inputs, dict) and all(isinstance(text, str) for text in inputs.values()):
        return Request(**record)
    raise StoreError(f"{place.location}/{name} is not a request; delete it and run the step again")

"""JSON of strangers: what the format allows and nobody means, a name twice in an object, half a letter, is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any


def read_strict_json(path: Path, *, limit: int, what: str) -> Any:
    """The document in a file of at most `limit` bytes. `what`: what is wanted, for the messages.

    Raises ValueError naming the file and the fault; FileNotFoundError where there is no file.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes; wanted {what}")
    try:
        document = json.loads(data, object_pairs_hook=_once)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text to be stored
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON that can be read ({error}); wanted {what}") from None
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a name stands twice in it, of which all but one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return found

"""Label data of the viewer as compact text: arrays behind one another, deflated, in base64, with a table of contents.

A page reads it with `DecompressionStream("deflate")` and one typed array for each line of the table.
"""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.report.records import ClipData, Pictures

__all__ = ["UNKNOWN", "contents", "data_bytes", "packed", "picture_table", "shares"]

UNKNOWN = 255
"""A share that is not known."""
_ALIGNED = 4


def shares(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Shares in [0, 1] as bytes of 0 to 200; UNKNOWN where NaN.

    >>> shares(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 100, 200, 255]
    """
    return np.where(np.isnan(values), UNKNOWN, np.rint(np.nan_to_num(values) * 200)).astype(np.uint8)


def packed(data: ClipData) -> tuple[str, list[dict[str, Any]]]:
    """The arrays as base64 of deflated bytes, and where each lies in them: name, type, byte offset, items."""
    splits = list(dict.fromkeys(data.splits))
    arrays: dict[str, NDArray[Any]] = {
        "lengths": data.lengths,
        "counts": data.counts,
        "entry_class": data.entry_class,
        "entry_weak": data.entry_weak.astype(np.uint8),
        "known": data.known,
        "split": np.array([splits.index(name) for name in data.splits], np.uint8),
        "status": data.status,
        "distance": shares(data.distance),
        "dispute": shares(data.dispute),
        "cells": data.cells,
        **{f"logits{place}": array.view(np.uint16) for place, array in data.logits.items()},
    }
    table, pieces, offset = [], [], 0
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        table.append({"name": name, "type": array.dtype.name, "offset": offset, "items": math.prod(array.shape)})
        padded = little.tobytes() + bytes(-little.nbytes % _ALIGNED)
        pieces.append(padded)
        offset += len(padded)
    return base64.b64encode(zlib.compress(b"".join(pieces), 9)).decode("ascii"), table


def data_bytes(data: ClipData) -> int:
    """What label data take of a page: the arrays, and all names twice, in JSON and where pictures are lacking."""
    text, table = packed(data)
    reason = "x" * 80
    lacking = Pictures((b"",) * len(data.video_ids), (reason,) * len(data.video_ids), "")
    told = json.dumps(contents(data, table, lacking), separators=(",", ":"))
    spelled = sum(5 * told.count(one) for one in "<>&")
    ids = sum(len(name) + 4 * sum(name.count(one) for one in "<>&\"'") for name in data.video_ids)
    return len(text) + len(told) + spelled + ids + 6 * len(data.video_ids)


def contents(data: ClipData, table: list[dict[str, Any]], pictures: Pictures) -> dict[str, Any]:
    """What the page has to know beside the arrays, as JSON."""
    reasons = list(dict.fromkeys(pictures.reasons))
    return {
        "ids": list(data.video_ids),
        "classes": list(data.classes),
        "splits": list(dict.fromkeys(data.splits)),
        "segments": int(data.cells.shape[3]),
        "entries": int(data.cells.shape[1]),
        "sets": [
            {
                "title": one.title,
                "reference": one.reference,
                "kind": one.kind,
                "method": one.method,
                "cuts": one.thresholds,
            }
            for one in data.sets
        ],
        "arrays": table,
        "pictures": picture_table(pictures),
        "reasons": reasons,
        "reason": [reasons.index(one) for one in pictures.reasons],
    }


def picture_table(pictures: Pictures) -> list[int]:
    """How many characters of base64 each picture takes; they stand behind one another."""
    return [4 * -(-len(strip) // 3) for strip in pictures.strips]

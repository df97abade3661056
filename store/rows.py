"""Reading arrays by rows, so much at a time that memory does not grow with the number of clips."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError

if TYPE_CHECKING:
    import zarr

BLOCK_BYTES = 32 * 2**20
"""About what one array takes of memory at a time; a chunk that is larger is read whole."""


def block_rows(*arrays: "zarr.Array[Any]") -> int:
    """Rows of a block that arrays are read in together: whole chunks, and at most about BLOCK_BYTES of each array."""
    chunk = max(1, *(array.chunks[0] for array in arrays))
    row_bytes = max(1, *(int(np.prod(array.shape[1:])) * max(array.dtype.itemsize, 1) for array in arrays))
    return max(1, BLOCK_BYTES // row_bytes // chunk) * chunk


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each block of at most `size` out of `count`.

    >>> list(spans(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, size):
        yield start, min(start + size, count)


def take_rows(artifact: Artifact, name: str, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Some rows of the array `name`, in the order given; a run of neighbours is read as one slice.

    Raises StoreError where they are damaged.
    """
    if np.array_equal(rows, np.arange(rows.size) + (rows[0] if rows.size else 0)):
        start = int(rows[0]) if rows.size else 0
        return artifact.rows(name, slice(start, start + rows.size))
    array = artifact.lazy(name)
    try:
        return np.asarray(array.oindex[rows])
    except Exception as error:  # whatever zarr and its codecs make of damaged bytes
        raise StoreError(f"array {name!r} of {artifact.reference} cannot be read: {error}") from error

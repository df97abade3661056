"""The HDF5 files that say which lines of AVE's annotations a split has: one array `order`, and nothing else is read."""

from pathlib import Path
from typing import Any

from avvp_pipe.stages.datasets.records import DatasetError

BYTES_LIMIT = 2**20
"""Of a file; the largest of the real ones has 30 kB. What is packed in it can be some thousand times as large."""
CHUNK_LIMIT = 2**20
"""Elements of a chunk, which HDF5 reads whole, however few of them are the array's."""


def order_of(path: Path, *, rows: int) -> list[int]:
    """The row numbers, from 0, in the array `order`: at most `rows` of them, all below it, in the file's order.

    Raises DatasetError for a file that is larger, is not HDF5, keeps the array elsewhere than in itself, or holds
    something else under that name; FileNotFoundError where there is no file.
    """
    import h5py

    size = path.stat().st_size
    if size > BYTES_LIMIT:
        raise DatasetError(f"{path} is larger than {BYTES_LIMIT} bytes; wanted an HDF5 file of row numbers")
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = _numbers(file, rows)
    except DatasetError as error:
        raise DatasetError(f"{path}: wanted a one-dimensional array `order` of whole numbers, {error}") from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:  # what HDF5 makes of strange bytes
        raise DatasetError(f"{path} is no HDF5 file that can be read ({error}); fetch it anew") from None
    wrong = next((number for number in found if not 0 <= number < rows), None)
    if wrong is not None:
        raise DatasetError(f"{path} holds row {wrong}, but the annotations have rows 0 to {rows - 1}")
    return found


def _numbers(file: Any, rows: int) -> list[int]:
    """Raises DatasetError with what came, where `order` is not what it should be."""
    import h5py

    link = file.get("order", None, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(file["order"], h5py.Dataset):
        there = ", ".join(list(file)[:5]) or "nothing"
        raise DatasetError(f"but it is not there, or a group or a link; the file holds {there}")
    array = file["order"]
    if array.is_virtual or array.external:
        raise DatasetError("but it lies in other files")
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.shape[0] > rows:
        raise DatasetError(f"at most {rows} of them, but it is {array.dtype} of shape {array.shape}")
    if array.chunks and array.chunks[0] > CHUNK_LIMIT:
        raise DatasetError(f"but its chunks are of {array.chunks[0]} elements; more than {CHUNK_LIMIT} are not read")
    numbers: list[int] = array[:].tolist()
    return numbers

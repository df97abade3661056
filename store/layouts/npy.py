"""One `.npy` file of unknown origin: its header is judged before any data are read, and nothing is unpickled."""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError

FILE_LIMIT_BYTES = 64 * 2**20
"""Of one file; the largest of any layout has 1.3 MB."""
HEADER_LIMIT_CHARACTERS = 10_000
KINDS = "biuf"
WIDEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    """Whether the first axis runs fastest in the file."""


def read_header(path: Path) -> Header:
    """The header of a `.npy` file, checked against the file's own size. Raises StoreError naming file and fault."""
    with path.open("rb") as file:
        return _header(path, file)


def read_npy(path: Path, *, finite: bool = True) -> NDArray[Any]:
    """The array in a `.npy` file: plain booleans, integers or floats of up to 8 bytes.

    Refuses NaN, and where `finite` is asked for, infinite values. Raises StoreError naming file, what was wanted and
    what came; the array is never larger than the file.
    """
    with path.open("rb") as file:
        header = _header(path, file)
        data = file.read()
    array = np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
    if header.dtype.kind == "f":
        _require_numbers(path, array, finite=finite)
    return array


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The bytes that `numpy.save` writes for an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _header(path: Path, file: IO[bytes]) -> Header:
    size = path.stat().st_size
    if size > FILE_LIMIT_BYTES:
        raise StoreError(f"{path} has {size} bytes; a clip's file of more than {FILE_LIMIT_BYTES} is not read")
    header = _parsed(path, file)
    dtype, shape = header.dtype, header.shape
    if dtype.kind not in KINDS or dtype.itemsize > WIDEST_BYTES or dtype.subdtype is not None:
        raise StoreError(
            f"{path} holds an array of dtype {dtype}; wanted plain booleans, integers or floats of up to "
            f"{WIDEST_BYTES} bytes. Save it with numpy.save as numbers, not as objects or records"
        )
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or declared != there:
        raise StoreError(
            f"{path} declares an array {shape} of {dtype}, {declared} bytes, but {there} bytes follow its header; "
            "the file is cut off or was tampered with, fetch it anew"
        )
    return header


def _parsed(path: Path, file: IO[bytes]) -> Header:
    numpy_format: Any = np.lib.format  # its type information lacks the limit on headers
    readers = {(1, 0): numpy_format.read_array_header_1_0, (2, 0): numpy_format.read_array_header_2_0}
    try:
        version = numpy_format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the format is for records with names")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of Python 2 are as good as others
            shape, fortran, dtype = readers[version](file, max_header_size=HEADER_LIMIT_CHARACTERS)
    except OSError:
        raise
    except Exception as error:  # a header made to do harm makes numpy's parser raise anything
        reason = str(error).partition("\n")[0][:200]
        raise StoreError(
            f"{path} is not a .npy file of numbers ({reason}); wanted what numpy.save writes, without pickles"
        ) from None
    return Header(dtype, tuple(int(length) for length in shape), bool(fortran))


def _require_numbers(path: Path, array: NDArray[Any], *, finite: bool) -> None:
    wrong = ~np.isfinite(array) if finite else np.isnan(array)
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise StoreError(
            f"{path} holds {int(wrong.sum())} values that are NaN{' or infinite' if finite else ''}, the first at "
            f"{list(place)}; wanted numbers. Remove the file to have its clip count as missing"
        )

"""Reading a checkpoint file of a teacher: tensors by name, and nothing is unpickled into objects."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_state"]

ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of what torch.save wrote: bare, or under `state_dict`.

    A leading `module.` of all names, which DataParallel leaves, is dropped. Raises ValueError for what is no such
    file, for OpenAI's TorchScript archives, for compressed archives, which torch never writes, and for tensors that
    are sparse, quantised, without data, or of complex numbers or fractions in 8 bits.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"weights are read from {', '.join(ENDINGS)}, came {path.name}")
    document = _safe(path) if path.suffix == ".safetensors" else _torch(path)
    state = document.get("state_dict", document)
    if not isinstance(state, Mapping) or not state:
        raise ValueError("holds no tensors; wanted a state dict, bare or under 'state_dict'")
    found = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"holds {name!r}, a {type(tensor).__name__}; wanted tensors by name")
        if tensor.is_meta or tensor.layout != torch.strided or tensor.dtype not in (*FLOATS, *COUNTS):
            kind = "without data" if tensor.is_meta else f"{tensor.layout} of {tensor.dtype}"
            raise ValueError(f"holds {name!r}, {kind}; wanted plain tensors of 16 to 64 bits")
        found[name] = tensor
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def _safe(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"is no whole safetensors file ({error}); fetch it again") from error


def _torch(path: Path) -> Mapping[str, Any]:
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_archive(path)
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch and its unpickler raise many kinds for files that are damaged or hold more
        told = str(error).partition("This file can still be loaded")[0]  # what follows advises to unpickle it
        reason = " ".join(told.split())[:200] or type(error).__name__
        raise ValueError(
            f"cannot be read as tensors alone ({reason}); convert it to safetensors where it was made"
        ) from error
    if not isinstance(document, Mapping):
        raise ValueError(f"holds a {type(document).__name__}; wanted a state dict")
    return document


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.split("/")[-1] == "constants.pkl" for entry in entries):
        raise ValueError(
            "is a TorchScript archive, as OpenAI published its models: it holds code and is not run; fetch the same "
            "weights as safetensors, for instance with `avvp-pipe models fetch ViT-L-14-quickgelu`"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("is a compressed archive, which torch.save never writes; save it anew with torch.save")

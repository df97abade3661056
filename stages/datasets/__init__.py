"""Dataset readers: annotation files in, one Dataset record out."""

from avvp_pipe.stages.datasets.llp import llp_files, read_llp
from avvp_pipe.stages.datasets.manifest import read_classes, read_manifest, write_manifest
from avvp_pipe.stages.datasets.prompts import Prompts, prompt_sets
from avvp_pipe.stages.datasets.records import (
    JOINT,
    NONE,
    SEPARATE,
    Clip,
    Dataset,
    DatasetError,
    Event,
    Finding,
    build_dataset,
)

__all__ = [
    "JOINT",
    "NONE",
    "SEPARATE",
    "Clip",
    "Dataset",
    "DatasetError",
    "Event",
    "Finding",
    "Prompts",
    "build_dataset",
    "llp_files",
    "prompt_sets",
    "read_classes",
    "read_llp",
    "read_manifest",
    "write_manifest",
]

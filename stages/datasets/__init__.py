"""Dataset readers: annotation files in, one Dataset record out."""

from avvp_pipe.stages.datasets.ave import CLASS_ORDERS, ClassOrder, ave_files, read_ave
from avvp_pipe.stages.datasets.llp import llp_files, read_llp
from avvp_pipe.stages.datasets.manifest import read_classes, read_manifest, write_manifest
from avvp_pipe.stages.datasets.prompts import Prompts, prompt_sets
from avvp_pipe.stages.datasets.records import (
    Clip,
    Dataset,
    DatasetError,
    Event,
    Finding,
    build_dataset,
    heard_and_seen,
)
from avvp_pipe.stages.datasets.unav import read_unav, unav_file

__all__ = [
    "CLASS_ORDERS",
    "ClassOrder",
    "Clip",
    "Dataset",
    "DatasetError",
    "Event",
    "Finding",
    "Prompts",
    "ave_files",
    "build_dataset",
    "heard_and_seen",
    "llp_files",
    "prompt_sets",
    "read_ave",
    "read_classes",
    "read_llp",
    "read_manifest",
    "read_unav",
    "unav_file",
    "write_manifest",
]

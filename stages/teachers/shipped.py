"""The files of the embedded teachers, inside the package."""

from pathlib import Path

from avvp_pipe.stages.digests import combined_digest
from avvp_pipe.store.integrity import digest_of_file

FOLDER = Path(__file__).parent / "weights"
TOKENIZER = "tokenizer.json"


def shipped_files(name: str) -> tuple[Path, ...]:
    """Weights, configuration and tokenizer of an embedded teacher."""
    return tuple(FOLDER / file for file in (f"{name}.safetensors", f"{name}.json", TOKENIZER))


def shipped_digest(name: str) -> str:
    """One sha256 over the teacher's files."""
    return combined_digest((path.name, digest_of_file(path)) for path in shipped_files(name))

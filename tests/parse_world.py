"""What the tests of `parse` share: a small network, what a parser says, and reading it back from CSV."""

import csv
from pathlib import Path

SMALL = {"widths": "features", "width": 8, "heads": 2, "ffn": 12, "layers": 1, "epochs": 1, "warmup": 0}
SAID = ("video_probs", "audio_probs", "visual_probs", "audio_hard", "visual_hard")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

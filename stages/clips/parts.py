"""One machine's part of a dataset: `--shard 2/4` is the second of four, to be merged later (`pipeline/merge.py`).

Parts are cut at whole units (`units.py`), so that every clip is embedded among the same neighbours, and to the same
bits, as in a run on one machine.
"""

import re
from dataclasses import dataclass

from avvp_pipe.stages.clips.units import UNIT_CLIPS

__all__ = ["WHOLE", "Part", "part_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def rows(self, clips: int) -> slice:
        """Rows of a dataset of so many clips that belong to this part; empty where there are more parts than units.

        >>> Part(1, 2).rows(40), Part(2, 2).rows(40)
        (slice(0, 32, None), slice(32, 40, None))
        """
        units = -(-clips // UNIT_CLIPS)
        first, last = ((units * part + self.count - 1) // self.count for part in (self.index - 1, self.index))
        return slice(min(first * UNIT_CLIPS, clips), min(last * UNIT_CLIPS, clips))


WHOLE = Part(1, 1)


def part_of(text: str) -> Part:
    """The part that `i/n` means; "" is the whole. Raises ValueError.

    >>> part_of("2/4")
    Part(index=2, count=4)
    """
    if not text:
        return WHOLE
    found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(
            f"--shard {text!r} is not I/N with I from 1 to N; for example --shard 1/4 on the first of four"
        )
    return Part(int(found[1]), int(found[2]))

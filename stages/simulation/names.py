"""What a class name says: its words, and what such a thing sounds and looks like.

    Violin_fiddle, playing violin -> violin             sounds bowed, looks like a stringed instrument
    Baby_cry_infant_cry, baby crying -> baby, cry       sounds like a voice, looks like people

Names of LLP, UnAV-100 and AVE that mean the same share words; confusable things share a kind. Names that are not
listed work too: they have words, and no kind.
"""

import re
from dataclasses import dataclass

from avvp_pipe.stages.simulation.settings import Sense

_SILENT = frozenset(
    {"a", "an", "and", "by", "driving", "flyby", "food", "in", "of", "on", "or", "over", "passing", "people", "playing"}
)
"""Words that do not tell classes apart here."""
_SAME = {
    "auto": "car",
    "baby's": "baby",
    "bark": "dog",
    "barking": "dog",
    "chainsawing": "chainsaw",
    "cheering": "cheer",
    "crying": "cry",
    "fiddle": "violin",
    "fixed-wing": "airplane",
    "aircraft": "airplane",
    "infant": "baby",
    "laughing": "laughter",
    "meowing": "cat",
    "mower": "mow",
    "mowing": "mow",
    "rooster": "chicken",
    "singing": "sing",
    "speaking": "speak",
    "speech": "speak",
    "vehicle": "car",
}
"""Word -> the word it stands for."""

_KINDS = {
    ("bowed", "strings"): "violin cello erhu orchestra",
    ("plucked", "guitar"): "guitar banjo ukulele mandolin zither harp",
    ("reed", "instrument"): "accordion harmonica organ synthesizer clarinet saxophone flute shofar",
    ("brass", "instrument"): "trumpet cornet trombone",
    ("drum", "instrument"): "drum tabla snare",
    ("motor", "vehicle"): "car motorcycle buses bus truck train racing engine skidding",
    ("motor", "garden"): "mow chainsaw trees",
    ("motor", "appliance"): "vacuum cleaner blender dryer",
    ("motor", "aircraft"): "helicopter airplane",
    ("ring", "device"): "alarm telephone bell siren honking clock horn",
    (
        "voice",
        "person",
    ): "speak sing laughter cry shouting whispering babbling sobbing child male female man woman kid choir",
    ("crowd", "crowd"): "cheer clapping crowd battle applause",
    ("animal", "animal"): "dog cat chicken bird sheep frog bull lions horse goat rats rodents",
    ("sizzle", "kitchen"): "frying eating slurping",
    ("impact", "sport"): "basketball bounce tennis badminton volleyball bowling skipping hammering",
}
VOICES = frozenset({"voice", "crowd", "person"})
"""Kinds of sound and sight of people: who is seen need not be heard, and the reverse."""
_KIND_OF = {word: kinds for kinds, words in _KINDS.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class name says."""

    name: str
    words: tuple[str, ...]
    """Sorted; what it stands for rather than how it is spelled."""
    sounds: frozenset[str]
    """Kinds of sound."""
    looks: frozenset[str]
    """Kinds of sight."""

    def kinds(self, sense: Sense) -> frozenset[str]:
        """Of sound or of sight."""
        return self.sounds if sense == "audio" else self.looks


def meaning(name: str) -> Meaning:
    """Words and kinds of a class name.

    >>> meaning("Violin_fiddle").words, meaning("playing violin").words, sorted(meaning("Lawn_mower").sounds)
    (('violin',), ('violin',), ['motor'])
    """
    spelled = re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", name.lower())
    kept = [_SAME.get(word, word) for word in spelled if word not in _SILENT]
    words = tuple(sorted(set(kept or spelled or [name])))
    kinds = [_KIND_OF[word] for word in words if word in _KIND_OF]
    return Meaning(name, words, frozenset(sound for sound, _ in kinds), frozenset(look for _, look in kinds))

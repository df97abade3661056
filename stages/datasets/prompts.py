"""Prompts: what the teachers are asked about each class. A prompt set is named after the method it comes from.

`valor`: on LLP the strings of VALOR's released code, its two typos included (methods compared with VALOR's labels
need them); `valor-paper` spells them right. `uwav`: the templates of UWAV's paper. For classes that VALOR did not
know, its templates are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompts:
    """One sentence a class and teacher."""

    audio: tuple[str, ...]
    visual: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValorClass:
    """VALOR's row of its Table 6 and released code for one class of LLP."""

    name: str
    caption: str
    """What CLIP is asked, as in the code."""
    sound: str
    """What follows "This is a sound of " for CLAP."""
    visual_threshold: float
    """On logits of CLIP (100 times the cosine)."""
    audio_threshold: float
    """On logits of CLAP."""


VALOR_CLASSES = (
    ValorClass("Speech", "A photo of people talking.", "speech", 20, 0),
    ValorClass("Car", "A photo of a car.", "car", 15, 0),
    ValorClass("Cheering", "A photo of people cheering.", "cheering", 18, 1),
    ValorClass("Dog", "A photo of a dog.", "dog", 14, 4),
    ValorClass("Cat", "A photo of a cat.", "cat", 15, 6),
    ValorClass("Frying_(food)", "A photo of frying food.", "frying (food)", 18, -2),
    ValorClass("Basketball_bounce", "A photo of people playing basketball.", "basketball bounce", 18, 4),
    ValorClass("Fire_alarm", "A photo of a fire alarm.", "fire alarm", 15, 4),
    ValorClass("Chainsaw", "A photo of a chainsaw.", "chainsaw", 15, 2),
    ValorClass("Cello", "A photo of a cello.", "cello", 15, 2),
    ValorClass("Banjo", "A photo of a banjo.", "banjo", 15, 2),
    ValorClass("Singing", "A photo of people singing.", "singing", 18, 1),
    ValorClass("Chicken_rooster", "A photo of a chicken or a rooster.", "chicken, rooster", 15, 2),
    ValorClass("Violin_fiddle", "A photo of a violin.", "violin fiddle", 15, 3),
    ValorClass("Vacuum_cleaner", "A photo of a vaccum cleaner.", "vacuum cleaner", 15, 0),
    ValorClass("Baby_laughter", "A photo of a laughing baby.", "baby laughter", 15, 2),
    ValorClass("Accordion", "A photo of an accordion.", "accordion", 15, 2),
    ValorClass("Lawn_mower", "A photo of a lawnmower.", "lawn mower", 15, 2),
    ValorClass("Motorcycle", "A photo of a motorcycle.", "motorcycle", 15, 0),
    ValorClass("Helicopter", "A photo of a helicopter.", "helicopter", 16, 2),
    ValorClass("Acoustic_guitar", "A photo of a acoustic guiter.", "acoustic guitar", 14, -1),
    ValorClass("Telephone_bell_ringing", "A photo of a ringing telephone.", "telephone bell ringing", 15, 2),
    ValorClass("Baby_cry_infant_cry", "A photo of a crying baby.", "baby cry, infant cry", 15, 3),
    ValorClass("Blender", "A photo of a blender.", "blender", 15, 3),
    ValorClass("Clapping", "A photo of hands clapping.", "clapping", 18, 0),
)
"""LLP's classes in their official order, with VALOR's captions and thresholds."""

_TYPOS = {"vaccum": "vacuum", "guiter": "guitar"}


def shown(name: str) -> str:
    """A class name as it stands in a sentence.

    >>> shown("Baby_cry_infant_cry")
    'baby cry infant cry'
    """
    return name.replace("_", " ").lower()


def prompt_sets(classes: Sequence[str]) -> dict[str, Prompts]:
    """All prompt sets for these classes: `valor` and `uwav`, and on LLP also `valor-paper`.

    >>> prompt_sets(["Fire_alarm", "Kettle"])["uwav"].audio
    ('This is the sound of fire alarm', 'This is the sound of kettle')
    """
    known = {one.name: one for one in VALOR_CLASSES}
    captions = [known[name].caption if name in known else f"A photo of {shown(name)}." for name in classes]
    sounds = [f"This is a sound of {known[name].sound if name in known else shown(name)}" for name in classes]
    sets = {
        "valor": Prompts(audio=tuple(sounds), visual=tuple(captions)),
        "uwav": Prompts(
            audio=tuple(f"This is the sound of {shown(name)}" for name in classes),
            visual=tuple(f"A photo of {shown(name)}" for name in classes),
        ),
    }
    right = tuple(_spelled_right(caption) for caption in captions)
    if right != sets["valor"].visual:
        sets["valor-paper"] = Prompts(audio=tuple(sounds), visual=right)
    return sets


def _spelled_right(caption: str) -> str:
    for wrong, right in _TYPOS.items():
        caption = caption.replace(wrong, right)
    return caption

"""Prompts: what the teachers are asked about each class. A prompt set is named after the method it comes from.

`valor`: on LLP the strings of VALOR's released code, its two typos included (methods compared with VALOR's labels
need them); `valor-paper` spells them right. `uwav`: the templates of UWAV's paper. Other datasets' classes have
VALOR's strings where they are those of LLP in another spelling ("Violin, fiddle" of AVE), and its templates elsewhere;
what VALOR and UWAV asked on AVE and UnAV-100 is not published.

Sets of one's own come from a JSON file: per set and teacher a template, or a sentence for each class.

    {"mine": {"audio": "the sound of {name}", "visual": {"Dog": "a photo of a dog", "Fire_alarm": "a fire alarm"}}}

`{name}` stands for the class name as it stands in a sentence: Fire_alarm is "fire alarm".
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avvp_pipe.stages.datasets.strict_json import read_strict_json


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

OWN_NAMES = ("valor", "valor-paper", "uwav")
"""Prompt sets that `prompt_sets` makes."""
SET_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
FILE_LIMIT = 2**20
TEXT_LIMIT = 1000
"""Characters of a sentence; CLIP and CLAP read 77 tokens of it."""

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
    known = [_VALOR.get(_bare(name)) for name in classes]
    captions = [_caption(name, one) for name, one in zip(classes, known, strict=True)]
    tails = [one.sound if one else shown(name) for name, one in zip(classes, known, strict=True)]
    sounds = [f"This is a sound of {tail}" for tail in tails]
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


def read_prompts(path: Path, classes: Sequence[str]) -> dict[str, Prompts]:
    """Prompt sets of one's own for these classes, from a JSON file as above.

    Raises ValueError naming file, set, teacher and what was wanted; FileNotFoundError where there is no file.
    """
    document = read_strict_json(path, limit=FILE_LIMIT, what="prompts, a few sentences a class")
    if not isinstance(document, dict) or not document:
        raise ValueError(f'{path} should hold {{"set": {{"audio": ..., "visual": ...}}}}, but holds {_short(document)}')
    return {name: _own_set(f"{path}, prompt set {name!r}", name, given, classes) for name, given in document.items()}


def _own_set(place: str, name: str, given: Any, classes: Sequence[str]) -> Prompts:
    if name in OWN_NAMES:
        raise ValueError(f"{place}: {', '.join(OWN_NAMES)} have the words of their methods; choose another name")
    if not SET_NAME.fullmatch(name):
        raise ValueError(f"{place}: a set is named by up to 64 small letters, digits, dots, - and _, a letter first")
    if not isinstance(given, dict) or given.keys() != {"audio", "visual"}:
        raise ValueError(f"{place}: wanted an object with audio and visual, got {_short(given)}")
    audio, visual = (_sentences(f"{place}, {teacher}", given[teacher], classes) for teacher in ("audio", "visual"))
    return Prompts(audio=audio, visual=visual)


def _sentences(place: str, given: Any, classes: Sequence[str]) -> tuple[str, ...]:
    """One sentence a class, from a template or from an object of sentences."""
    if isinstance(given, str):
        if "{name}" not in given:
            raise ValueError(f"{place}: a template holds {{name}} where the class goes, got {_short(given)}")
        given = {name: given.replace("{name}", shown(name)) for name in classes}
    if not isinstance(given, dict):
        raise ValueError(f"{place}: wanted a template or an object with a sentence for each class, got {_short(given)}")
    for fault, names in (
        ("has no sentence for", [name for name in classes if name not in given]),
        ("has the unknown class", [name for name in given if name not in classes]),
        ("should be text, up to a thousand characters, for", [name for name, text in given.items() if not _asks(text)]),
    ):
        if names:
            raise ValueError(f"{place} {fault} {', '.join(names[:5])}; classes are {_short(', '.join(classes))}")
    return tuple(given[name] for name in classes)


def _asks(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text) <= TEXT_LIMIT


def _short(thing: Any) -> str:
    text = thing if isinstance(thing, str) else json.dumps(thing, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _caption(name: str, known: ValorClass | None) -> str:
    """What CLIP is asked; the released typos only for a class that is written as in LLP."""
    if known is None:
        return f"A photo of {shown(name)}."
    return known.caption if known.name == name else _spelled_right(known.caption)


def _bare(name: str) -> str:
    """A class name without what datasets write differently: case, underscores, commas, brackets."""
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))


def _spelled_right(caption: str) -> str:
    for wrong, right in _TYPOS.items():
        caption = caption.replace(wrong, right)
    return caption


_VALOR = {_bare(one.name): one for one in VALOR_CLASSES}

"""What the teachers are asked: VALOR's strings on LLP, templates elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.stages.datasets import prompt_sets
from avvp_pipe.stages.datasets.prompts import VALOR_CLASSES, Prompts, read_prompts, shown
from avvp_pipe.store import Store

# VALOR, NeurIPS 2023, Table 6: event, caption for CLIP, caption for CLAP, thresholds of CLIP and of CLAP.
TABLE_6 = """
Speech | A photo of people talking. | This is a sound of speech | 20 | 0
Car | A photo of a car. | This is a sound of car | 15 | 0
Cheering | A photo of people cheering. | This is a sound of cheering | 18 | 1
Dog | A photo of a dog. | This is a sound of dog | 14 | 4
Cat | A photo of a cat. | This is a sound of cat | 15 | 6
Frying_(food) | A photo of frying food. | This is a sound of frying (food) | 18 | -2
Basketball_bounce | A photo of people playing basketball. | This is a sound of basketball bounce | 18 | 4
Fire_alarm | A photo of a fire alarm. | This is a sound of fire alarm | 15 | 4
Chainsaw | A photo of a chainsaw. | This is a sound of chainsaw | 15 | 2
Cello | A photo of a cello. | This is a sound of cello | 15 | 2
Banjo | A photo of a banjo. | This is a sound of banjo | 15 | 2
Singing | A photo of people singing. | This is a sound of singing | 18 | 1
Chicken_rooster | A photo of a chicken or a rooster. | This is a sound of chicken, rooster | 15 | 2
Violin_fiddle | A photo of a violin. | This is a sound of violin fiddle | 15 | 3
Vacuum_cleaner | A photo of a vacuum cleaner. | This is a sound of vacuum cleaner | 15 | 0
Baby_laughter | A photo of a laughing baby. | This is a sound of baby laughter | 15 | 2
Accordion | A photo of an accordion. | This is a sound of accordion | 15 | 2
Lawn_mower | A photo of a lawnmower. | This is a sound of lawn mower | 15 | 2
Motorcycle | A photo of a motorcycle. | This is a sound of motorcycle | 15 | 0
Helicopter | A photo of a helicopter. | This is a sound of helicopter | 16 | 2
Acoustic_guitar | A photo of a acoustic guitar. | This is a sound of acoustic guitar | 14 | -1
Telephone_bell_ringing | A photo of a ringing telephone. | This is a sound of telephone bell ringing | 15 | 2
Baby_cry_infant_cry | A photo of a crying baby. | This is a sound of baby cry, infant cry | 15 | 3
Blender | A photo of a blender. | This is a sound of blender | 15 | 3
Clapping | A photo of hands clapping. | This is a sound of clapping | 18 | 0
"""
ROWS = [tuple(line.split(" | ")) for line in TABLE_6.strip().splitlines()]
LLP = tuple(one.name for one in VALOR_CLASSES)


def test_the_table_has_llps_25_classes_in_the_papers_order() -> None:
    assert tuple(row[0] for row in ROWS) == LLP
    assert len(set(LLP)) == 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_class_has_the_papers_captions_and_thresholds(row: tuple[str, ...]) -> None:
    name, caption, sound, visual, audio = row
    one = VALOR_CLASSES[LLP.index(name)]
    right = prompt_sets(LLP)["valor-paper"]
    assert right.visual[LLP.index(name)] == caption
    assert right.audio[LLP.index(name)] == sound
    assert (one.visual_threshold, one.audio_threshold) == (float(visual), float(audio))


def test_the_released_strings_differ_from_the_papers_in_two_typos_only() -> None:
    sets = prompt_sets(LLP)
    pairs = zip(LLP, sets["valor"].visual, sets["valor-paper"].visual, strict=True)
    assert {name: code for name, code, paper in pairs if code != paper} == {
        "Vacuum_cleaner": "A photo of a vaccum cleaner.",
        "Acoustic_guitar": "A photo of a acoustic guiter.",
    }
    assert sets["valor"].audio == sets["valor-paper"].audio


def test_uwavs_templates_end_without_a_stop_and_say_the_sound() -> None:
    uwav = prompt_sets(["Baby_cry_infant_cry"])["uwav"]
    assert uwav.visual == ("A photo of baby cry infant cry",)
    assert uwav.audio == ("This is the sound of baby cry infant cry",)


def test_a_class_valor_did_not_know_gets_its_templates() -> None:
    valor = prompt_sets(["Steam_whistle", "Dog"])["valor"]
    assert valor.visual == ("A photo of steam whistle.", "A photo of a dog.")
    assert valor.audio == ("This is a sound of steam whistle", "This is a sound of dog")


@given(st.lists(st.text(min_size=1), unique=True, max_size=5))
def test_every_set_asks_once_for_each_class_and_shows_no_underscore(classes: list[str]) -> None:
    for prompts in prompt_sets(classes).values():
        assert len(prompts.audio) == len(prompts.visual) == len(classes)
        assert not any("_" in sentence for sentence in prompts.audio + prompts.visual)
    assert all("_" not in shown(name) for name in classes)


CLASSES = ("Dog", "Fire_alarm")
SENTENCES = {"Fire_alarm": "a fire alarm on a wall", "Dog": "a dog"}


def prompts_file(folder: Path, document: Any) -> Path:
    path = folder / "prompts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_ones_own_prompts_are_templates_or_sentences_in_the_order_of_the_classes(tmp_path: Path) -> None:
    path = prompts_file(tmp_path, {"mine": {"audio": "the noise {name} makes: {name}!", "visual": SENTENCES}})
    audio = ("the noise dog makes: dog!", "the noise fire alarm makes: fire alarm!")
    assert read_prompts(path, CLASSES) == {"mine": Prompts(audio=audio, visual=("a dog", "a fire alarm on a wall"))}


WRONG = {
    "not json": ("{", "is no JSON"),
    "half a letter": ('{"mine": {"audio": "\\ud800 {name}", "visual": "{name}"}}', "is no JSON"),
    "a list": ([], "should hold"),
    "no set": ({}, "should hold"),
    "too large": (" " * 2**20 + "{}", "larger than"),
    "a method's name": ({"uwav": {"audio": "{name}", "visual": "{name}"}}, "'uwav'.*choose another name"),
    "a path for a name": ({"../x": {"audio": "{name}", "visual": "{name}"}}, "a set is named by"),
    "no name": ({"": {"audio": "{name}", "visual": "{name}"}}, "a set is named by"),
    "one teacher": ({"mine": {"audio": "{name}"}}, "'mine': wanted an object with audio and visual"),
    "a third teacher": ({"mine": {"audio": "{name}", "visual": "{name}", "smell": "{name}"}}, "with audio and visual"),
    "no place for the class": ({"mine": {"audio": "a dog", "visual": "{name}"}}, "'mine', audio: a template holds"),
    "a number": ({"mine": {"audio": "{name}", "visual": 3}}, "visual: wanted a template or an object"),
    "a class left out": ({"mine": {"audio": "{name}", "visual": {"Dog": "a"}}}, "has no sentence for Fire_alarm"),
    "a class too many": (
        {"mine": {"audio": "{name}", "visual": SENTENCES | {"Cat": "a cat"}}},
        "has the unknown class Cat; classes are Dog, Fire_alarm",
    ),
    "an empty sentence": ({"mine": {"audio": "{name}", "visual": SENTENCES | {"Dog": " "}}}, "should be text.* Dog"),
    "no sentence": ({"mine": {"audio": "{name}", "visual": SENTENCES | {"Dog": None}}}, "should be text.* Dog"),
    "a novel": ({"mine": {"audio": "{name}", "visual": SENTENCES | {"Dog": "x" * 1001}}}, "should be text.* Dog"),
    "a class twice": (
        '{"mine": {"audio": "{name}", "visual": {"Dog": "a", "Dog": "b", "Fire_alarm": "c"}}}',
        "'Dog' stands twice",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_prompts_with_a_fault_are_refused_with_file_and_reason(tmp_path: Path, fault: str) -> None:
    document, reason = WRONG[fault]
    path = prompts_file(tmp_path, document)
    with pytest.raises(ValueError, match=reason) as caught:
        read_prompts(path, CLASSES)
    assert str(path) in str(caught.value)


def test_ones_own_prompts_stand_in_the_dataset_beside_the_methods_and_in_its_key(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    manifest = tmp_path / "clips.csv"
    manifest.write_text("id,path,split,labels\na,a.mp4,train,Dog;Fire_alarm\n", encoding="utf-8")
    path = prompts_file(tmp_path, {"mine": {"audio": "hear {name}", "visual": SENTENCES}})
    store = Store(tmp_path / "store")

    def dataset(*more: str | Path) -> Any:
        return avvp("dataset", "--source", manifest, "--name", "mine", "--store", tmp_path / "store", "--quiet", *more)

    assert dataset("--prompts", path).code == 0
    first = store.get("dataset/mine")
    assert {*first.attrs["prompts"]} == {"valor", "uwav", "mine"}
    assert first.attrs["prompts"]["mine"] == {
        "audio": ["hear dog", "hear fire alarm"],
        "visual": ["a dog", "a fire alarm on a wall"],
    }
    assert {*first.provenance["sources"]} == {"clips.csv", "prompts"}
    prompts_file(tmp_path, {"mine": {"audio": "listen to {name}", "visual": SENTENCES}})
    assert dataset("--prompts", path).code == 0
    assert store.get("dataset/mine").key != first.key
    prompts_file(tmp_path, {"mine": {"audio": "listen", "visual": SENTENCES}})
    ran = dataset("--prompts", path)
    assert (ran.code, "{name}" in ran.err) == (2, True)
    assert dataset("--prompts", tmp_path / "none.json").code == 2

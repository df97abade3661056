"""What the teachers are asked: VALOR's strings on LLP, templates elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.stages.datasets import prompt_sets
from avvp_pipe.stages.datasets.prompts import VALOR_CLASSES, shown

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

"""Scenes have no contradictions, and captions state only what is in their scene."""

import random
import re

import pytest

from costroute_rt.export.postcard.absence import PLACE_NOUN, Absences, add_absences, choose_absences, put_before
from costroute_rt.export.postcard.caption import caption, front
from costroute_rt.export.postcard.habits import by_ear
from costroute_rt.export.postcard.scene import ATTRIBUTES, DARK, WATER, Scene, Value, sample_scene
from costroute_rt.export.postcard.speaker import Speaker
from costroute_rt.export.postcard.words import COLOURS


def scenes(count: int) -> list[Scene]:
    rng = random.Random("tests")
    return [sample_scene(rng) for _ in range(count)]


def test_every_value_of_every_attribute_is_frequent_enough_to_be_learnt() -> None:
    sampled = scenes(6000)
    for name, values in ATTRIBUTES.items():
        for value in values:
            share = sum(scene[name] == value for scene in sampled) / len(sampled)
            assert share > 0.01, (name, value, share)


def test_scenes_have_no_contradictions() -> None:
    for scene in scenes(6000):
        assert not (scene["rainbow"] and scene["sky"] in DARK)
        assert not (scene["boat"] != "none" and scene["ground"] not in WATER)
        assert not (scene["bridge"] and scene["ground"] != "river")
        assert (scene["house"] == "none") == (scene["house_side"] == "none")
        assert (scene["house2"] != "none") == (scene["house_side"] == "both")
        assert (scene["tree"] == "none") == (scene["tree_count"] == 0) == (scene["tree_side"] == "none")
        assert not (scene["season"] == "winter" and scene["ground"] in ("desert", "sea"))


def test_a_caption_states_only_what_is_in_the_scene() -> None:
    rng = random.Random("captions")
    for scene in scenes(4000):
        text, stated = caption(scene, rng)
        assert text.strip()
        assert stated
        assert all(scene[name] == value for name, value in stated.items())


def test_many_captions_exclude_something() -> None:
    rng = random.Random("absences")
    excluding = sum(any(value in ("none", 0) for value in caption(scene, rng)[1].values()) for scene in scenes(2000))
    assert 0.2 < excluding / 2000 < 0.6


def plain_scene(**things: Value) -> Scene:
    """A lake on a summer day, without any thing but these."""
    return {name: values[0] for name, values in ATTRIBUTES.items()} | {"ground": "lake"} | things


def test_place_or_time_alone_does_not_say_that_there_is_nothing_else() -> None:
    """The caption names neither house nor tree, which are there."""
    scene = plain_scene(sky="night", celestial="moon", house="red", house_side="left", tree="oak", tree_count=1, tree_side="right")
    texts = {front(Speaker(scene, random.Random(seed), vague=0.0), {"sky", "celestial"}) for seed in range(100)}
    assert {"on a moonlit night", "under the moon at night"} <= texts
    assert not any("nothing" in text for text in texts)


@pytest.mark.parametrize(
    ("other", "wide", "narrow"),
    [({"landmark": "church"}, "building", "house"), ({"flowers": 1}, "plant", "tree"), ({"birds": 1}, "animal", "sheep")],
)
def test_the_absence_of_one_thing_does_not_deny_another(other: Scene, wide: str, narrow: str) -> None:
    def denials(scene: Scene) -> str:
        speakers = (Speaker(scene, random.Random(seed), vague=0.0) for seed in range(3000))
        said = [choose_absences(each, keep=set()) for each in speakers]
        return " ".join(text for each in said for text in (*each.phrases, *(adjective for _, adjective in each.adjectives)))

    assert wide in denials(plain_scene())
    assert wide not in denials(plain_scene(**other))
    assert narrow in denials(plain_scene(**other))


def test_a_house_that_is_corrected_is_another_one_than_both_and_has_a_colour() -> None:
    scene = plain_scene(house="red", house2="blue", house_side="both")
    texts = [Speaker(scene, random.Random(seed), vague=0.0).another("house", bare=True) for seed in range(300)]
    wrong = [colour for colours in ("white", "yellow", "green") for colour in COLOURS[colours]]
    assert [text for text in texts if not any(colour in text for colour in wrong)] == []


def test_an_adjective_stands_before_the_noun_that_it_fits() -> None:
    rng = random.Random(1)
    said = Absences(adjectives=[("tree", "treeless"), ("clouds", "cloudless")])
    texts = {add_absences("a lake in a wide meadow on a summer day", said, rng) for _ in range(50)}
    assert "a treeless lake in a wide meadow on a cloudless summer day" in texts
    assert all(text.count("treeless") == text.count("cloudless") == 1 for text in texts)


@pytest.mark.parametrize(
    ("text", "adjective", "changed"),
    [
        ("an ocean", "treeless", "a treeless ocean"),
        ("by a mountain lake", "uninhabited", "by an uninhabited mountain lake"),
        ("a beach palm on the beach", "houseless", "a beach palm on the houseless beach"),
        ("open fields", "boatless", "open boatless fields"),
    ],
)
def test_an_adjective_brings_its_article(text: str, adjective: str, changed: str) -> None:
    assert put_before(adjective, PLACE_NOUN, text) == changed


def test_nouns_have_the_article_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.export.postcard.caption.finish", lambda text, style, rng: text)  # no typos
    rng = random.Random("articles")
    wrong = re.compile(
        r"\ba (?:[\w-]+ )?(?:towers of|fencing|wooden rails|fence posts|sails)\b|cactuss|\ba [aeiou]|\ban [^aeiou]|soaring soaring"
    )
    assert [found for scene in scenes(6000) if (found := wrong.search(caption(scene, rng)[0]))] == []


def test_a_word_spelled_by_ear_keeps_its_first_letter() -> None:
    rng = random.Random(2)
    for word in ("night", "house", "church", "castle", "mountain", "rhythm"):
        spelled = {by_ear(word, rng) for _ in range(30)}
        assert all(each[0] == word[0] for each in spelled)
    assert "nite" in {by_ear("night", rng) for _ in range(200)}


def test_the_same_seed_gives_the_same_scene_and_caption() -> None:
    first, second = random.Random(4), random.Random(4)
    assert [caption(sample_scene(first), first) for _ in range(50)] == [caption(sample_scene(second), second) for _ in range(50)]

"""The prompts of the benchmarks."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.caption import OTHER_HANDS, Prompt, free_form_prompts, held_out_captions
from costroute_rt.export.postcard.captions import BANDS
from costroute_rt.export.postcard.scene import ATTRIBUTES

FREE_FORM, BY_OTHERS = free_form_prompts(), free_form_prompts(path=OTHER_HANDS)
CAPTIONS = held_out_captions("held-out-quality", 5)


def test_there_are_two_hundred_free_form_prompts_of_all_bands() -> None:
    assert len({prompt.text for prompt in FREE_FORM}) == 200
    assert {prompt.band for prompt in FREE_FORM} == set(BANDS)
    assert all(1 <= len(prompt.stated) <= 10 for prompt in FREE_FORM)


@pytest.mark.parametrize("prompt", FREE_FORM + BY_OTHERS + CAPTIONS, ids=lambda prompt: prompt.text[:40])
def test_what_a_prompt_states_can_be_drawn(prompt: Prompt) -> None:
    stated = prompt.stated
    assert all(value in ATTRIBUTES[name] for name, value in stated.items())
    if stated.get("house2", "none") != "none":
        assert stated["house"] != "none"
        assert stated.get("house_side", "both") == "both"
    if stated.get("house_side") in ("left", "right"):
        assert "house2" not in stated
    if stated.get("tree_side") == "both":
        assert stated.get("tree_count") in (None, 2, 4)
    if stated.get("tree") == "none":
        assert stated.get("tree_count", 0) == 0
    assert not (stated.get("tree_count") and stated.get("tree") == "none")


def test_fewer_free_form_prompts_are_evenly_spaced() -> None:
    few = free_form_prompts(4)
    assert [prompt.text for prompt in few] == [FREE_FORM[index].text for index in (0, 50, 100, 150)]


def test_captions_fill_every_band_without_repeating_a_text() -> None:
    assert Counter(prompt.band for prompt in CAPTIONS) == dict.fromkeys(BANDS, 5)
    assert len({prompt.text for prompt in CAPTIONS}) == len(CAPTIONS)


def test_captions_state_only_what_their_scene_holds() -> None:
    assert all(prompt.scene[name] == value for prompt in CAPTIONS for name, value in prompt.stated.items())


def test_captions_depend_only_on_the_name_of_their_dataset() -> None:
    assert held_out_captions("held-out-quality", 5) == CAPTIONS
    others = {prompt.name for prompt in held_out_captions("held-out-routing", 5)}
    assert others.isdisjoint(prompt.name for prompt in CAPTIONS)

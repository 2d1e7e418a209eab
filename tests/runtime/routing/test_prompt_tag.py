"""Tags: what they find in a prompt, and that they never fail."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.prompt_tag import TAGS, find_counts, split_tokens, tag_prompts


def tags(prompt: str) -> dict[str, float]:
    """The tags that a prompt has, with their values."""
    (row,) = tag_prompts([prompt])
    return {name: float(value) for name, value in zip(TAGS, row, strict=True) if value > 0}


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("three dogs and 12 cats", [3, 12]),
        ("a dozen eggs, one egg", [12, 1]),
        ("8k, 3d render, 35 mm, 16:9, the 19th street", []),
        ("a 1 9 5 0 s diner, 4 k", []),
        ("a street in 1950", []),
        ("house number 7 on route 66, 1.5 lanes", []),
        ("an ant. 3 dogs", [3]),
        ("0 dogs", []),
    ],
)
def test_counts_are_numbers_of_things(prompt: str, counts: list[int]) -> None:
    assert find_counts(split_tokens(prompt)) == counts
    assert ("counted" in tags(prompt)) == bool(counts)


def test_the_largest_count_and_the_total_are_told_apart() -> None:
    four, six = tags("4 cats"), tags("six cats and six dogs")
    assert {name for name in four if name.startswith("count_over")} == {f"count_over_{limit}" for limit in (1, 2, 3)}
    assert {name for name in six if name.startswith("count_over")} == {f"count_over_{limit}" for limit in (1, 2, 3, 5)}
    assert four["total_count"] < six["total_count"]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a red cup", {"colours"}),
        ("a red cup and a blue plate", {"colours", "several_colours", "joins"}),
        ("a cat without a tail", {"negations"}),
        ("a cat that isn't black", {"negations"}),
        ("fewer dogs than cats", {"comparisons"}),
        ("half of a pizza", {"fractions"}),
        ("a dog to the left of a cat", {"places"}),
        ('a sign that says "open"', {"quoted", "lettering"}),
        ("a shop named ‘Blue’", {"quoted"}),
        ("an old woman running", {"people", "actions"}),
        ("oil painting by Van Gogh", {"media", "names"}),
        ("夕焼け", {"other_scripts"}),
    ],
)
def test_a_prompt_has_the_tags_of_what_it_asks_for(prompt: str, found: set[str]) -> None:
    assert found <= tags(prompt).keys()


@pytest.mark.parametrize("prompt", ["a house", "the dog's bowl", "rock 'n' roll", "it's a dog's life"])
def test_an_apostrophe_is_no_quotation(prompt: str) -> None:
    assert not tags(prompt).keys() & {"quoted", "counted", "colours", "negations"}


@pytest.mark.parametrize(
    "prompt", ["", "  ", "\ud800", "\0", "1" * 5000, "١٢ كتب", "²³", "a " * 50_000, '"' * 30_000, "'" * 30_000, "A" * 30_000]
)
def test_odd_prompts_have_tags_from_0_to_1(prompt: str) -> None:
    row = tag_prompts([prompt])
    assert row.shape == (1, len(TAGS))
    assert ((row >= 0) & (row <= 1)).all()


def test_tags_are_read_by_name_in_the_given_order() -> None:
    prompts = ["two red cups", "no cup"]
    every, some = tag_prompts(prompts), tag_prompts(prompts, ("negations", "colours"))
    np.testing.assert_array_equal(some, every[:, [TAGS.index("negations"), TAGS.index("colours")]])
    assert tag_prompts([]).shape == (0, len(TAGS))

"""Familiarity: how far a prompt's tags are from those of the labelled prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.routing.familiarity import RANK, Familiarity, fall
from costroute_rt.routing.prompt_tag import TAGS, tag_prompts

COLOURED = [f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cup", "house", "boat", "tree")]


def familiarity(near: float = 1.0, far: float = 3.0) -> Familiarity:
    return Familiarity(tag_prompts(COLOURED), near, far)


def test_a_kind_with_tags_that_no_label_has_is_unfamiliar() -> None:
    known, counted, negated = familiarity().of_prompts(["a yellow dog", "six red dogs and nine cats", "no dog without a tail"])
    assert known == 1
    assert max(counted, negated) < 0.5


def test_the_distance_is_that_to_the_fifth_nearest_in_units_of_spread() -> None:
    rng = np.random.default_rng(0)
    rows, asked = rng.random((30, len(TAGS))).astype(np.float32), rng.random((4, len(TAGS))).astype(np.float32)
    unit = np.sqrt(rows.astype(np.float64).var(0) + 0.04)
    expected = np.sort(np.linalg.norm((asked[:, None] - rows[None]) / unit, axis=2), axis=1)[:, RANK - 1]
    np.testing.assert_allclose(Familiarity(rows, 1, 2).distance(asked), expected, rtol=1e-3)
    few = Familiarity(rows[:2], 1, 2).distance(asked)
    assert np.isfinite(few).all()


def test_it_falls_linearly_between_near_and_far() -> None:
    np.testing.assert_allclose(fall(np.array([0.0, 1.0, 1.5, 2.0, 9.0]), 1.0, 2.0), [1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(fall(np.array([0.9, 1.0, 1.1]), 1.0, 1.0), [1, 1, 0])


def test_it_is_restored_from_its_settings_and_arrays() -> None:
    made = Familiarity(tag_prompts(COLOURED, ("colours", "length")), 0.5, 1.5, ("colours", "length"))
    again = Familiarity.from_saved(made.to_json(), made.arrays())
    assert (again.near, again.far, again.tags) == (0.5, 1.5, ("colours", "length"))
    np.testing.assert_array_equal(again.of_prompts(["two dogs"]), made.of_prompts(["two dogs"]))


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"far": 0.2}, None),
        ({"near": -1}, None),
        ({"near": float("nan")}, None),
        ({"tags": ["colours", "humour"]}, None),
        ({"tags": ["colours"]}, None),
        ({"near": "1"}, None),
        ({}, np.zeros((0, 2))),
        ({}, np.full((3, 2), 2.0)),
        ({}, np.full((3, 2), np.nan)),
        ({}, np.zeros(4)),
    ],
)
def test_damaged_settings_and_arrays_are_refused(settings: dict[str, Any], rows: np.ndarray | None) -> None:
    made = Familiarity(tag_prompts(COLOURED, ("colours", "length")), 0.5, 1.5, ("colours", "length"))
    with pytest.raises((ValueError, ConfigError)):
        Familiarity.from_saved({**made.to_json(), **settings}, made.arrays() if rows is None else {"rows": rows})
